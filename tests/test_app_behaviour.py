"""What visitors get from each pair's app, requested directly and through nginx."""

import re
from hashlib import sha256

import httpx2
import pytest
from support.commands import ok


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
        [url] = re.findall(rf'"({re.escape(address)}[^"]*)"', page.text)
        file = client.get(url)
        assert file.status_code == 200
        assert file.headers["Content-Type"].startswith(kind)
        assert url == f"{address}?v={sha256(file.content).hexdigest()[:8]}"


# Prints the URLs of static files, before and after their content changes.
STATIC_URLS = """
import sys
from app.config import PROJECT, Settings
from app.main import create_app

app = create_app(Settings.from_env())
if hasattr(app, "test_request_context"):
    def url_of(name, **more):
        with app.test_request_context():
            return app.url_for("static", filename=name, **more)
else:
    def url_of(name, v=""):
        name += f"?v={v}" if v else ""
        return app.state.templates.env.globals["url_path_for"]("static", path=name)

file = PROJECT / "app/static/own.css"
for content in ("first", "other"):  # of the same size
    file.write_text(content)
    print(url_of("own.css"))
for name in ("gone.css", "..", "../main.py", "a\\0b"):
    print(url_of(name))
print(url_of("own.css", v="2"))
"""


@pytest.mark.first_pairs
@pytest.mark.parametrize("environment", ["development", "production"])
def test_hash_in_a_url_is_that_of_the_content(own, environment):
    """In production, from when it was first needed: a process has one release. Other URLs have none."""
    settings = {"APP_ENV": environment, "SECRET_KEY": "x" * 32}
    python = ["env", *(f"{name}={value}" for name, value in settings.items())]
    first, other, *rest = ok(*python, ".venv/bin/python", "-c", STATIC_URLS, cwd=own).split()
    hashes = [sha256(content).hexdigest()[:8] for content in (b"first", b"other")]
    if environment == "production":
        hashes[1] = hashes[0]
    assert [first, other] == [f"/static/own.css?v={each}" for each in hashes]
    assert not any("?v=" in url for url in rest[:-1]), rest
    assert len(rest) == 5
    assert rest[-1] == "/static/own.css?v=2"


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


# No path can end in one of the last four.
BAD_NAMES = ["", " ", "x" * 41, "AC/DC", ".", "..", "a\0b", "a\u202eb"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_form_explains_a_bad_name(client, name):
    check_explanation(client.post("/hello/", data={"name": name}))


def test_form_explains_a_missing_name(client):
    check_explanation(client.post("/hello/", data={"other": "x"}))


def check_explanation(page: httpx2.Response) -> None:
    """Check that a page says how to fill in the form."""
    assert page.status_code == 422
    assert "Please enter 1 to 40 printable characters, without a slash." in page.text


def test_cookie_is_of_this_host_secure_and_hidden_from_scripts(client):
    response = client.post("/hello/", data={"name": "Ada"})
    name, cookie = response.headers["Set-Cookie"].split("=", 1)
    assert name == "__Host-session"
    flags = set(cookie.lower().split("; ")[1:])
    assert flags >= {"httponly", "secure", "samesite=lax", "path=/"}
    assert "domain" not in cookie.lower()


def test_cookie_under_another_name_is_ignored(client):
    """Another host of the domain can set `session`, but not `__Host-session`."""
    response = client.post("/hello/", data={"name": "Ada"})
    value = response.headers["Set-Cookie"].split("=", 1)[1].split(";")[0]
    for name, known in {"__Host-session": True, "session": False}.items():
        page = client.get("/hello/", headers={"Cookie": f"{name}={value}"})
        assert ('value="Ada"' in page.text) == known


def test_pages_that_depend_on_the_session_are_not_stored(client):
    responses = [client.get("/hello/"), client.post("/hello/", data={"name": "Ada"})]
    assert [each.headers["Cache-Control"] for each in responses] == ["no-store"] * 2
    for path in ("/", "/hello/Ada", "/items/42", "/nowhere"):
        assert "Cache-Control" not in client.get(path).headers


def test_view_may_set_its_own_cache_control(client):
    assert client.get("/cached").headers["Cache-Control"] == "private, max-age=60"


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


# nginx itself answers TRACE; FastAPI's servers reject unknown methods with 400.
@pytest.mark.parametrize("method", ["TRACE", "DELETE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/hello/", "/hello/Ada", "/items/1", "/healthz"])
def test_unsupported_method_is_refused_everywhere(direct, path, method):
    response = direct.request(method, path, headers={"X-Secret": "echo"})
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    assert "echo" not in response.text


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


FORM = "application/x-www-form-urlencoded"
LONG = "王" * 55_000  # percent-encoded, nine bytes a character
LARGE_FORMS = {"one field": b"name=" + b"x" * 9_000_000, "many fields": b"a&" * 4_500_000}


def test_long_text_fits_into_a_form(client):
    """It is the name that is too long."""
    check_explanation(client.post("/hello/", data={"name": LONG}))


@pytest.mark.parametrize("form", LARGE_FORMS.values(), ids=LARGE_FORMS)
def test_large_form_is_refused_with_a_page(client, form):
    """Each time: the server has to drain it, or the next response is lost."""
    for _ in range(5):
        page = client.post("/hello/", content=form, headers={"Content-Type": FORM})
        assert page.status_code == 413
        assert is_html(page)
        assert "<h1>Too large</h1>" in page.text


def test_large_body_is_refused_with_a_page_or_json(direct):
    """nginx refuses it earlier."""
    body = b"x" * (10 * 2**20 + 1)
    assert "<h1>Too large</h1>" in direct.post("/count", content=body).text
    response = direct.post("/items/count", content=body)
    assert response.status_code == 413
    assert response.json()["detail"]


@pytest.mark.parametrize("path", ["/hello/", "/count"])
def test_upload_with_files_is_not_limited_as_a_form(client, path):
    upload = {"upload": ("photo.jpg", b"x" * 9_000_000)}
    response = client.post(path, files=upload, data={"name": "Ada"})
    assert response.status_code in (200, 303)


def test_chunked_body_is_accepted(site):
    chunks = iter([b"x" * 1000] * 50)
    assert site.client.post("/count", content=chunks).json() == {"bytes": 50_000}
