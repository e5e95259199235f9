"""The pages. Add one: write a function here and a template beside home.html."""

from flask import Blueprint, redirect, render_template, request, session, url_for

pages = Blueprint("pages", __name__)


@pages.get("/")
def home():
    """A page made from a template."""
    return render_template("home.html")


@pages.get("/hello/")
def hello_form():
    """A form, filled in with the name that the visitor's session remembers."""
    return render_template("hello.html", name=session.get("name", ""))


@pages.post("/hello/")
def hello_submit():
    """What the form sends. The redirect keeps a reload from sending it twice."""
    name = request.form.get("name", "").strip()
    if not 1 <= len(name) <= 40 or "/" in name:
        problem = "Please enter 1 to 40 characters, and no slash."
        return render_template("hello.html", name=name, problem=problem), 422
    session["name"] = name
    return redirect(url_for("pages.hello", name=name), code=303)


@pages.get("/hello/<name>")
def hello(name: str):
    """A variable in the address. The template escapes it."""
    return render_template("hello.html", greeting=name)


@pages.get("/items/<int:item_id>")
def item(item_id: int):
    """JSON, from a whole number in the address and an optional ?q= behind it."""
    return {"item_id": item_id, "q": request.args.get("q")}


@pages.get("/healthz")
def healthz():
    """Tells release scripts and monitors that the app is alive."""
    return {"status": "ok"}
