"""Members: register, log in, log out."""

import functools
import sqlite3

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

from app.db import connect

bp = Blueprint("auth", __name__, url_prefix="/auth")


@bp.before_app_request
def load_member():
    """Find the member whose id is in the session."""
    member = session.get("member")
    g.member = member and (
        connect().execute("SELECT id, name FROM member WHERE id = ?", (member,)).fetchone()
    )


def login_required(view):
    """Send visitors who are not logged in to the login form."""

    @functools.wraps(view)
    def wrapped(**arguments):
        return view(**arguments) if g.member else redirect(url_for("auth.login"), 303)

    return wrapped


@bp.route("/register", methods=["GET", "POST"])
def register():
    if request.method == "POST":
        name, password = request.form["name"].strip(), request.form["password"]
        if not name or len(password) < 8:
            flash("Please choose a name, and a password of at least 8 characters.")
        else:
            row = (name, generate_password_hash(password))
            try:
                with connect() as db:
                    db.execute("INSERT INTO member (name, password) VALUES (?, ?)", row)
            except sqlite3.IntegrityError:
                flash(f"{name} is taken.")
            else:
                return redirect(url_for("auth.login"), 303)
    return render_template("auth/form.html", heading="Register")


@bp.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        found = (
            connect()
            .execute("SELECT * FROM member WHERE name = ?", (request.form["name"].strip(),))
            .fetchone()
        )
        if found and check_password_hash(found["password"], request.form["password"]):
            session.clear()
            session["member"] = found["id"]
            return redirect(url_for("pages.home"), 303)
        flash("Wrong name or password.")
    return render_template("auth/form.html", heading="Log in")


@bp.post("/logout")
def logout():
    session.clear()
    return redirect(url_for("pages.home"), 303)
