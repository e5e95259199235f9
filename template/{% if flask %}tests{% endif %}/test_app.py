"""Each test asks for a page as a browser would and looks at the answer."""

import pytest

from app.config import Settings, read_settings
from app.main import create_app


@pytest.fixture
def client():
    return create_app(Settings()).test_client()


def test_home_names_the_file_to_edit(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "app/templates/home.html" in page.text


def test_form_redirects_to_the_greeting(client):
    answer = client.post("/hello/", data={"name": "Ada & 100%"})
    assert answer.status_code == 303
    assert "Hello, Ada &amp; 100%!" in client.get(answer.headers["Location"]).text


def test_form_remembers_the_name(client):
    client.post("/hello/", data={"name": "Ada"})
    assert 'value="Ada"' in client.get("/hello/").text


@pytest.mark.parametrize("name", ["", "   ", "AC/DC", "x" * 41])
def test_form_says_what_is_wrong(client, name):
    page = client.post("/hello/", data={"name": name})
    assert page.status_code == 422
    assert "1 to 40 characters" in page.text


def test_name_is_escaped(client):
    assert "Hello, &lt;b&gt;!" in client.get("/hello/<b>").text


def test_item_is_json(client):
    assert client.get("/items/42?q=tea").json == {"item_id": 42, "q": "tea"}
    assert client.get("/items/42").json == {"item_id": 42, "q": None}


def test_item_number_must_be_a_number(client):
    answer = client.get("/items/tea")
    assert answer.status_code == 404
    assert "detail" in answer.json


def test_healthz(client):
    assert client.get("/healthz").json == {"status": "ok"}


def test_unknown_page(client):
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert "There is no page at this address." in page.text


def test_crash_shows_a_page_without_details():
    app = create_app(Settings())
    app.add_url_rule("/crash", view_func=lambda: 1 / 0)
    page = app.test_client().get("/crash")
    assert page.status_code == 500
    assert "Something broke" in page.text
    assert "ZeroDivisionError" not in page.text


def test_production_needs_a_secret_key(monkeypatch):
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("SECRET_KEY", "changeme")
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        read_settings()


def test_cookie_travels_over_https_alone_in_production():
    client = create_app(Settings(production=True)).test_client()
    answer = client.post("/hello/", data={"name": "Ada"})
    assert "Secure" in answer.headers["Set-Cookie"]
