"""Routes for bench/data.py with Flask-SQLAlchemy's defaults: appended to app/routes.py.

They come before those in app/examples.py.
"""

from app.config import PROJECT
from app.routes import pages
from flask import redirect, request, session, url_for
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PAGE = 10


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Greeting(db.Model):
    __tablename__ = "greetings"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pages.record_once
def init_db(state) -> None:
    """Connect the extension to the app."""
    state.app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{PROJECT}/data/app.db"
    db.init_app(state.app)


@pages.get("/greetings/<int:number>")
def greeting(number: int):
    found = db.get_or_404(Greeting, number)
    return {"id": found.id, "name": found.name}


@pages.get("/items/")
def items():
    query = db.select(Greeting).order_by(Greeting.id.desc()).limit(PAGE)
    if before := request.args.get("before", type=int):
        query = query.where(Greeting.id < before)
    found = [{"id": each.id, "name": each.name} for each in db.session.scalars(query)]
    return {"items": found, "next": found[-1]["id"] if len(found) == PAGE else None}


@pages.post("/hello/")
def hello_submit():
    name = session["name"] = request.form["name"]
    db.session.add(Greeting(name=name))
    db.session.commit()
    return redirect(url_for("examples.hello", name=name), code=303)
