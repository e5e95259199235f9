"""The database: one SQLite file, opened once per request."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")


def connect(request: Request) -> Iterator[sqlite3.Connection]:
    """Yield a connection. Create the tables if there are none."""
    path = request.app.state.settings.database
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, check_same_thread=False)  # FastAPI may change the thread
    db.row_factory = sqlite3.Row
    try:
        db.executescript(SCHEMA)
        yield db
    finally:
        db.close()


Database = Annotated[sqlite3.Connection, Depends(connect)]
