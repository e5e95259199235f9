"""Routes for bench/data.py as in FastAPI's tutorial, with SQLModel: appended to app/routes.py.

They come before those in app/examples.py.
"""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import quote

from app.config import PROJECT
from app.routes import api
from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse
from sqlmodel import Field, Session, SQLModel, create_engine, select

PAGE = 10


class Greeting(SQLModel, table=True):
    __tablename__ = "greetings"

    id: int | None = Field(default=None, primary_key=True)
    name: str


class Items(SQLModel):
    """What /items/ returns."""

    items: list[Greeting]
    next: int | None


options = {"check_same_thread": False}
engine = create_engine(f"sqlite:///{PROJECT}/data/app.db", connect_args=options)


def get_session() -> Iterator[Session]:
    """Yield the session of this request."""
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


@api.get("/greetings/{number}")
def greeting(number: int, session: SessionDep) -> Greeting:
    found = session.get(Greeting, number)
    if not found:
        raise HTTPException(404)
    return found


@api.get("/items/")
def items(session: SessionDep, before: int | None = None) -> Items:
    query = select(Greeting).order_by(Greeting.id.desc()).limit(PAGE)
    if before is not None:
        query = query.where(Greeting.id < before)
    found = session.exec(query).all()
    return Items(items=found, next=found[-1].id if len(found) == PAGE else None)


@api.post("/hello/")
def hello_submit(request: Request, session: SessionDep, name: Annotated[str, Form()]):
    request.session["name"] = name
    session.add(Greeting(name=name))
    session.commit()
    return RedirectResponse(f"/hello/{quote(name)}", 303)
