"""The posts: pages to read and write them, and a JSON feed."""

from datetime import datetime, timezone

import humanize
from flask import Blueprint, abort, current_app, g, redirect, render_template, request, url_for

from app.auth import login_required
from app.db import connect

bp = Blueprint("blog", __name__)
SELECT = "SELECT post.*, name FROM post JOIN member ON author_id = member.id"


@bp.app_template_filter()
def ago(created: str) -> str:
    """Return how long ago a time of the database was."""
    return humanize.naturaltime(datetime.fromisoformat(created).replace(tzinfo=timezone.utc))


def latest() -> list:
    limit = current_app.config["SETTINGS"].posts_per_page
    return connect().execute(f"{SELECT} ORDER BY post.id DESC LIMIT ?", (limit,)).fetchall()


def find(post_id: int, by_author: bool = False):
    """Return a post. Abort if there is none, or if it must be by the member and is not."""
    post = connect().execute(f"{SELECT} WHERE post.id = ?", (post_id,)).fetchone()
    if post is None:
        abort(404, "No such post.")
    if by_author and post["author_id"] != g.member["id"]:
        abort(403)
    return post


@bp.get("/posts/<int:post_id>")
def read(post_id: int):
    return render_template("blog/post.html", post=find(post_id))


@bp.route("/write", methods=["GET", "POST"])
@login_required
def write():
    if request.method == "POST" and request.form["title"].strip():
        row = (g.member["id"], request.form["title"].strip(), request.form["body"])
        with connect() as db:
            added = db.execute(
                "INSERT INTO post (author_id, title, body) VALUES (?, ?, ?)", row
            )
        return redirect(url_for("blog.read", post_id=added.lastrowid), 303)
    return render_template("blog/edit.html", post=None)


@bp.route("/posts/<int:post_id>/edit", methods=["GET", "POST"])
@login_required
def edit(post_id: int):
    post = find(post_id, by_author=True)
    if request.method == "POST" and request.form["title"].strip():
        row = (request.form["title"].strip(), request.form["body"], post_id)
        with connect() as db:
            db.execute("UPDATE post SET title = ?, body = ? WHERE id = ?", row)
        return redirect(url_for("blog.read", post_id=post_id), 303)
    return render_template("blog/edit.html", post=post)


@bp.post("/posts/<int:post_id>/delete")
@login_required
def delete(post_id: int):
    find(post_id, by_author=True)
    with connect() as db:
        db.execute("DELETE FROM post WHERE id = ?", (post_id,))
    return redirect(url_for("pages.home"), 303)


@bp.get("/api/posts/<int:post_id>")
def read_json(post_id: int):
    post = find(post_id)
    return {name: post[name] for name in ("id", "name", "created", "title", "body")}
