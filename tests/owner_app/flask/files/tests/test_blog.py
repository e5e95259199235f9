import re

import pytest

from app.config import Settings


@pytest.fixture
def post(member):
    """The address of a post by the member."""
    return member.post("/write", data={"title": "Hello", "body": "<b>World</b>"}).location


def test_home_lists_the_posts(member, post):
    page = member.get("/").text
    assert f'href="{post}"' in page
    assert re.search("ada, (now|.+ ago)", page)


def test_text_is_escaped(client, post):
    assert "&lt;b&gt;World" in client.get(post).text


def test_author_can_edit_and_delete(member, post):
    member.post(f"{post}/edit", data={"title": "Hi", "body": ""})
    assert "Hi" in member.get(post).text
    member.post(f"{post}/delete")
    assert member.get(post).status_code == 404


@pytest.mark.members
def test_others_cannot_edit(app, post):
    other = app.test_client()
    assert other.get(f"{post}/edit").location == "/auth/login"
    data = {"name": "bob", "password": "correct horse"}
    other.post("/auth/register", data=data)
    other.post("/auth/login", data=data)
    assert other.get(f"{post}/edit").status_code == 403


def test_json(client, post):
    assert client.get(f"/api{post}").json["title"] == "Hello"
    assert client.get("/api/posts/99").json == {"detail": "No such post."}


def test_logo_is_a_picture(client):
    response = client.get("/static/logo.png")
    response.close()
    assert response.mimetype == "image/png"


def test_posts_per_page_is_a_setting(monkeypatch):
    monkeypatch.setenv("POSTS_PER_PAGE", "3")
    assert Settings.from_env().posts_per_page == 3


def test_server_keeps_the_database_in_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert Settings.from_env().database == tmp_path / "blog.sqlite"
