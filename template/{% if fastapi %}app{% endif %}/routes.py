"""The pages. Add one: write a function here and a template beside home.html."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from app.config import PROJECT, SITE_NAME

templates = Jinja2Templates(directory=PROJECT / "app/templates")
templates.env.globals["site_name"] = SITE_NAME

pages = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
api = APIRouter()


@pages.api_route("/", methods=["GET", "HEAD"])  # monitors ask with HEAD
async def home(request: Request):
    """A page made from a template."""
    return templates.TemplateResponse(request, "home.html")


@pages.get("/hello/")
async def hello_form(request: Request):
    """A form, filled in with the name that the visitor's session remembers."""
    name = request.session.get("name", "")
    return templates.TemplateResponse(request, "hello.html", {"name": name})


@pages.post("/hello/")
async def hello_submit(request: Request, name: Annotated[str, Form()] = ""):
    """What the form sends. The redirect keeps a reload from sending it twice."""
    name = name.strip()
    if not 1 <= len(name) <= 40 or "/" in name:
        problem = "Please enter 1 to 40 characters, and no slash."
        context = {"name": name, "problem": problem}
        return templates.TemplateResponse(request, "hello.html", context, 422)
    request.session["name"] = name
    return RedirectResponse(pages.url_path_for("hello", name=quote(name)), 303)


@pages.get("/hello/{name}")
async def hello(request: Request, name: str):
    """A variable in the address. The template escapes it."""
    return templates.TemplateResponse(request, "hello.html", {"greeting": name})


@api.get("/items/{item_id}")
async def item(item_id: int, q: str | None = None):
    """JSON, from a whole number in the address and an optional ?q= behind it."""
    return {"item_id": item_id, "q": q}


@api.head("/healthz", include_in_schema=False)
@api.get("/healthz")
async def healthz():
    """Tells release scripts and monitors that the app is alive."""
    return {"status": "ok"}
