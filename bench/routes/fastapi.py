"""Routes for bench/data.py with the emitted session: appended to app/routes.py."""

from app.database import SessionDep
from app.examples import GreetingItem
from app.models import Greeting
from app.routes import api
from fastapi import HTTPException


@api.get("/greetings/{number}")
def greeting(number: int, session: SessionDep) -> GreetingItem:
    found = session.get(Greeting, number)
    if found is None:
        raise HTTPException(404)
    return GreetingItem.model_validate(found)
