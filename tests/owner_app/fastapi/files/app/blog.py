"""The posts: an API to read and write them."""

import sqlite3
from datetime import datetime, timezone
from typing import Annotated

import humanize
from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from app.auth import CurrentMember
from app.db import Database

router = APIRouter(prefix="/api/posts", tags=["Posts"])
SELECT = "SELECT post.*, name FROM post JOIN member ON author_id = member.id"


class Draft(BaseModel):
    """What an author sends."""

    title: Annotated[str, Field(min_length=1, max_length=200, examples=["Hello"])]
    body: str = ""


class Post(Draft):
    """What readers get."""

    id: int
    author_id: int
    name: str
    created: datetime

    @property
    def ago(self) -> str:
        return humanize.naturaltime(self.created.replace(tzinfo=timezone.utc))


def latest(db: sqlite3.Connection, limit: int) -> list[Post]:
    rows = db.execute(f"{SELECT} ORDER BY post.id DESC LIMIT ?", (limit,))
    return [Post(**row) for row in rows]


def find(db: sqlite3.Connection, post_id: int) -> Post:
    """Return a post. Raise 404 if there is none."""
    row = db.execute(f"{SELECT} WHERE post.id = ?", (post_id,)).fetchone()
    if row is None:
        raise HTTPException(404, "No such post.")
    return Post(**row)


def find_own(post_id: int, member: CurrentMember, db: sqlite3.Connection) -> Post:
    """Return a post. Raise 403 if it is somebody else's."""
    post = find(db, post_id)
    if post.author_id != member.id:
        raise HTTPException(403, "This post is not yours.")
    return post


@router.get("/")
def read_latest(db: Database, limit: int = 10) -> list[Post]:
    return latest(db, limit)


@router.post("/", status_code=201)
def write(draft: Draft, member: CurrentMember, db: Database) -> Post:
    row = (member.id, draft.title, draft.body)
    with db:
        added = db.execute("INSERT INTO post (author_id, title, body) VALUES (?, ?, ?)", row)
    return find(db, added.lastrowid)


@router.get("/{post_id}")
def read(post_id: int, db: Database) -> Post:
    return find(db, post_id)


@router.put("/{post_id}")
def edit(post_id: int, draft: Draft, member: CurrentMember, db: Database) -> Post:
    find_own(post_id, member, db)
    row = (draft.title, draft.body, post_id)
    with db:
        db.execute("UPDATE post SET title = ?, body = ? WHERE id = ?", row)
    return find(db, post_id)


@router.delete("/{post_id}", status_code=204)
def delete(post_id: int, member: CurrentMember, db: Database) -> None:
    find_own(post_id, member, db)
    with db:
        db.execute("DELETE FROM post WHERE id = ?", (post_id,))
