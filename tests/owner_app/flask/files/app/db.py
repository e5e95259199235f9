"""The database: one SQLite file, opened once per request."""

import sqlite3
from pathlib import Path

from flask import Flask, current_app, g

SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")


def init_app(app: Flask) -> None:
    """Close the connection at the end of each request."""
    app.teardown_appcontext(close)


def connect() -> sqlite3.Connection:
    """Return the connection of this request. Create the tables if there are none."""
    if "db" not in g:
        path = current_app.config["SETTINGS"].database
        path.parent.mkdir(parents=True, exist_ok=True)
        g.db = sqlite3.connect(path)
        g.db.row_factory = sqlite3.Row
        g.db.executescript(SCHEMA)
    return g.db


def close(error: BaseException | None = None) -> None:
    db = g.pop("db", None)
    if db is not None:
        db.close()
