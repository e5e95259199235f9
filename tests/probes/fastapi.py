"""Routes an owner might add, which show what the app sees: appended to app/routes.py."""

import asyncio
import os
import pathlib
import socket
from typing import Annotated

from app.routes import api
from fastapi import Form, Request, UploadFile, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel


@api.get("/whoami")
async def whoami(request: Request):
    url = str(request.url_for("home"))
    return {"address": request.client.host, "scheme": request.url.scheme, "url": url}


@api.api_route("/headers", methods=["GET", "POST"], include_in_schema=False)
async def headers(request: Request):
    """What the app sees of a request, with the names of headers in lower case."""
    seen = {name: ", ".join(request.headers.getlist(name)) for name in request.headers}
    return {
        "method": request.method,
        "scheme": request.url.scheme,
        "url": str(request.url),
        "root": request.scope["root_path"],
        "headers": seen,
    }


@api.post("/count")
async def count(request: Request):
    return {"bytes": len(await request.body())}


@api.post("/ignore")
async def ignore():
    return {"read": False}


@api.get("/refused")
async def refused():
    class Refused(Exception):
        status_code = 401
        detail = "a detail for the log only"

    raise Refused


@api.get("/slow")
async def slow(seconds: float = 2):
    await asyncio.sleep(seconds)
    return {"slow": True}


@api.get("/policy")
async def policy():
    return JSONResponse({}, headers={"Content-Security-Policy": "own"})


@api.get("/crash")
async def crash():
    print("a line for the log only")
    raise ZeroDivisionError("a detail for the log only")


@api.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(websocket.client.host + await websocket.receive_text())
    await websocket.close()


@api.get("/state")
def state():
    """Write to the state directory, then try what the unit forbids."""
    with open(os.environ["STATE_DIRECTORY"] + "/visits", "a") as file:
        file.write("x")
    try:
        pathlib.Path(__file__).with_name("planted.py").touch()
    except OSError as error:
        planted = type(error).__name__
    with socket.socket() as outside:
        outside.settimeout(2)
        refused = 111  # nothing is listening on that port
        reached = outside.connect_ex(("10.9.8.7", 9)) == refused
    return {"user": os.getuid(), "planted": planted, "network": reached}


# For /docs: the methods and kinds of parameters that the examples do not have.


class Thing(BaseModel):
    name: str
    price: float | None = None


@api.put("/things/{number}")
async def replace_thing(number: int, thing: Thing) -> Thing:
    return thing


@api.patch("/things/{number}", deprecated=True)
async def change_thing(number: int, thing: Thing) -> Thing:
    return thing


@api.delete("/things/{number}")
async def delete_thing(number: int) -> None:
    pass


@api.post("/forms")
async def send_form(
    upload: UploadFile, tags: Annotated[list[str], Form()], sure: bool = False
) -> None:
    pass
