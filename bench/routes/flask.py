"""Routes for bench/data.py with the emitted session: appended to app/routes.py."""

from app.database import get_session
from app.models import Greeting
from app.routes import pages
from flask import abort


@pages.get("/greetings/<int:number>")
def greeting(number: int):
    found = get_session().get(Greeting, number) or abort(404)
    return {"id": found.id, "name": found.name}
