import re

import pytest
from fastapi.testclient import TestClient

from app.config import Settings


@pytest.fixture
def post(member):
    """The address of a post by the member."""
    draft = {"title": "Hello", "body": "<b>World</b>"}
    return f"/api/posts/{member.post('/api/posts/', json=draft).json()['id']}"


def test_home_shows_the_posts(client, post):
    page = client.get("/").text
    assert f'href="{post}"' in page
    assert re.search("ada, (now|.+ ago)", page)
    assert "&lt;b&gt;World" in page


def test_author_can_edit_and_delete(member, post):
    assert member.put(post, json={"title": "Hi"}).json()["title"] == "Hi"
    assert member.get("/api/posts/").json()[0]["title"] == "Hi"
    assert member.delete(post).status_code == 204
    assert member.get(post).json() == {"detail": "No such post."}


@pytest.mark.members
def test_others_cannot_edit(app, post):
    other = TestClient(app)
    assert other.delete(post).status_code == 401
    data = {"name": "bob", "password": "correct horse"}
    other.post("/api/auth/register", json=data)
    other.post("/api/auth/login", json=data)
    assert other.delete(post).status_code == 403


def test_docs_describe_the_posts(client):
    assert "/api/posts/{post_id}" in client.get("/openapi.json").json()["paths"]


def test_logo_is_a_picture(client):
    assert client.get("/static/logo.png").headers["Content-Type"] == "image/png"


def test_posts_per_page_is_a_setting(monkeypatch):
    monkeypatch.setenv("POSTS_PER_PAGE", "3")
    assert Settings.from_env().posts_per_page == 3


def test_server_keeps_the_database_in_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert Settings.from_env().database == tmp_path / "blog.sqlite"
