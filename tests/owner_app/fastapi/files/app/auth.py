"""Members: register, log in, log out."""

import hashlib
import hmac
import secrets
import sqlite3
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, status
from pydantic import BaseModel, Field

from app.db import Database

router = APIRouter(prefix="/api/auth", tags=["Members"])


class Credentials(BaseModel):
    """What a member types."""

    name: Annotated[str, Field(min_length=1, max_length=40, examples=["ada"])]
    password: Annotated[str, Field(min_length=8, max_length=200)]


class Member(BaseModel):
    """A member, as others see one."""

    id: int
    name: str


def hash_password(password: str, salt: bytes) -> str:
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return f"{salt.hex()}${digest.hex()}"


def check_password(password: str, stored: str) -> bool:
    salt = bytes.fromhex(stored.partition("$")[0])
    return hmac.compare_digest(hash_password(password, salt), stored)


def current_member(request: Request, db: Database) -> Member:
    """Return who is logged in. Raise 401 if nobody is."""
    member = request.session.get("member")
    found = db.execute("SELECT id, name FROM member WHERE id = ?", (member,)).fetchone()
    if found is None:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Log in first.")
    return Member(**found)


CurrentMember = Annotated[Member, Depends(current_member)]


@router.post("/register", status_code=201)
def register(credentials: Credentials, db: Database) -> Member:
    row = (credentials.name, hash_password(credentials.password, secrets.token_bytes(16)))
    try:
        with db:
            added = db.execute("INSERT INTO member (name, password) VALUES (?, ?)", row)
    except sqlite3.IntegrityError:
        raise HTTPException(status.HTTP_409_CONFLICT, "This name is taken.") from None
    return Member(id=added.lastrowid, name=credentials.name)


@router.post("/login")
def login(request: Request, credentials: Credentials, db: Database) -> Member:
    query = "SELECT * FROM member WHERE name = ?"
    found = db.execute(query, (credentials.name,)).fetchone()
    if found is None or not check_password(credentials.password, found["password"]):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Wrong name or password.")
    request.session.clear()
    request.session["member"] = found["id"]
    return Member(id=found["id"], name=found["name"])


@router.post("/logout", status_code=204)
def logout(request: Request) -> None:
    request.session.clear()


@router.get("/me")
def me(member: CurrentMember) -> Member:
    return member
