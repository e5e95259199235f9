"""Routes for bench/data.py as in Flask's tutorial: appended to app/routes.py.

Each request opens a connection of its own. The routes come before those in app/examples.py.
"""

import sqlite3

from app.config import PROJECT
from app.routes import pages
from flask import abort, g, redirect, request, session, url_for

PAGE = 10


def get_db() -> sqlite3.Connection:
    """Return the connection of this request."""
    if "db" not in g:
        g.db = sqlite3.connect(PROJECT / "data/app.db", detect_types=sqlite3.PARSE_DECLTYPES)
        g.db.row_factory = sqlite3.Row
    return g.db


@pages.teardown_app_request
def close_db(_error: BaseException | None) -> None:
    """Close the connection of this request, if it has one."""
    if "db" in g:
        g.pop("db").close()


@pages.get("/greetings/<int:number>")
def greeting(number: int):
    query = "SELECT id, name FROM greetings WHERE id = ?"
    found = get_db().execute(query, (number,)).fetchone() or abort(404)
    return dict(found)


@pages.get("/items/")
def items():
    query, values = "SELECT id, name FROM greetings", []
    if before := request.args.get("before", type=int):
        query, values = f"{query} WHERE id < ?", [before]
    rows = get_db().execute(f"{query} ORDER BY id DESC LIMIT ?", [*values, PAGE])
    found = [dict(row) for row in rows]
    return {"items": found, "next": found[-1]["id"] if len(found) == PAGE else None}


@pages.post("/hello/")
def hello_submit():
    name = session["name"] = request.form["name"]
    get_db().execute("INSERT INTO greetings (name) VALUES (?)", (name,))
    get_db().commit()
    return redirect(url_for("examples.hello", name=name), code=303)
