"""Routes an owner might add, which show what the app sees: appended to app/routes.py."""

import os
import pathlib
import socket
import time

from app.routes import pages
from flask import request, url_for


@pages.get("/whoami")
def whoami():
    url = url_for("pages.home", _external=True)
    return {"address": request.remote_addr, "scheme": request.scheme, "url": url}


@pages.route("/headers", methods=["GET", "POST"])
def headers():
    """What the app sees of a request, with the names of headers in lower case."""
    return {
        "method": request.method,
        "scheme": request.scheme,
        "url": request.url,
        "root": request.root_path,
        "headers": {name.lower(): value for name, value in request.headers.items()},
    }


@pages.post("/count")
def count():
    return {"bytes": len(request.get_data())}


@pages.post("/ignore")
def ignore():
    return {"read": False}


@pages.get("/slow")
def slow():
    time.sleep(request.args.get("seconds", 2, float))
    return {"slow": True}


@pages.get("/policy")
def policy():
    return {}, 200, {"Content-Security-Policy": "own"}


@pages.get("/crash")
def crash():
    print("a line for the log only")
    raise ZeroDivisionError("a detail for the log only")


@pages.get("/state")
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
