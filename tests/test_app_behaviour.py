"""What visitors get from each pair's app, requested directly and through nginx."""

import re

import httpx2
import pytest


def is_html(response: httpx2.Response) -> bool:
    return response.headers["Content-Type"] == "text/html; charset=utf-8"


def test_home_page_and_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert is_html(page)
    assert "<h1>It works!</h1>" in page.text
    for address, kind in {
        "/static/style.css": "text/css",
        "/static/favicon.svg": "image/svg+xml",
    }.items():
        assert f'"{address}"' in page.text
        file = client.get(address)
        assert file.status_code == 200
        assert file.headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/style.css"])
def test_head_has_no_body(client, path):
    response = client.head(path)
    assert response.status_code == 200
    assert response.content == b""


NAMES = ["Ada", "100% <b>ö", "a?b#c&d", "%2F..%2F", "back\\slash", "王小明", "x" * 40]


@pytest.mark.parametrize("name", NAMES)
def test_form_redirects_to_the_greeting(client, name):
    assert '<form method="post" action="/hello/">' in client.get("/hello/").text
    response = client.post("/hello/", data={"name": name})
    assert response.status_code == 303
    assert response.headers["Location"].startswith("/hello/")
    page = client.get(response.headers["Location"])
    assert page.status_code == 200
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<h1>Hello, {escaped}!</h1>" in page.text


@pytest.mark.parametrize(
    "form", [{}, {"name": " "}, {"name": "x" * 41}, {"name": "AC/DC"}, {"other": "x"}]
)
def test_form_explains_a_bad_name(client, form):
    page = client.post("/hello/", data=form)
    assert page.status_code == 422
    assert "Please enter 1 to 40 characters, without a slash." in page.text


def test_cookie_is_secure_and_hidden_from_scripts(client):
    response = client.post("/hello/", data={"name": "Ada"})
    cookie = response.headers["Set-Cookie"].lower()
    for flag in ("httponly", "secure", "samesite=lax"):
        assert flag in cookie


def test_item_is_json(client):
    assert client.get("/items/42?q=tea").json() == {"item_id": 42, "q": "tea"}
    assert client.get("/items/42").json() == {"item_id": 42, "q": None}


@pytest.mark.parametrize("path", ["/items/tea", "/items/4.2", "/items/4/2"])
def test_invalid_item_is_a_json_error(client, path):
    response = client.get(path)
    assert 400 <= response.status_code < 500
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["detail"]


def test_healthz(client):
    assert client.get("/healthz").json() == {"status": "ok"}


def test_unknown_page_is_an_error_page(client):
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert is_html(page)
    assert "There is no page at this address." in page.text


def test_wrong_method_lists_the_allowed_ones(client):
    response = client.delete("/hello/")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


def test_crash_shows_no_details(client):
    # A server may close the connection after a crash; the next request must succeed.
    page = client.get("/crash", headers={"Connection": "close"})
    assert page.status_code == 500
    assert is_html(page)
    assert "<h1>Something broke</h1>" in page.text
    assert "ZeroDivisionError" not in page.text
    assert client.get("/healthz").status_code == 200


def test_error_of_a_library_shows_no_details(client, pair):
    """Even if it has the attributes of an error that is meant for visitors."""
    if pair.framework == "flask":
        pytest.skip("has no such attributes")
    page = client.get("/refused", headers={"Connection": "close"})
    assert page.status_code == 500
    assert "a detail for the log only" not in page.text


def test_docs_load_nothing_from_other_hosts(client, pair):
    page = client.get("/docs")
    if pair.framework == "flask":
        assert page.status_code == 404
        return
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(addresses) == 6
    for address in [*addresses, "/openapi.json"]:
        assert address.startswith("/")
        assert client.get(address).status_code == 200
    assert "http" not in page.text


@pytest.mark.parametrize("size", [0, 1, 1_000, 3_000_000])
@pytest.mark.parametrize("path", ["/count", "/ignore"])
def test_body_is_accepted_whether_read_or_not(client, path, size):
    response = client.post(path, content=b"x" * size)
    assert response.status_code == 200
    assert response.json() in ({"bytes": size}, {"read": False})


def test_chunked_body_is_accepted(site):
    chunks = iter([b"x" * 1000] * 50)
    assert site.client.post("/count", content=chunks).json() == {"bytes": 50_000}
