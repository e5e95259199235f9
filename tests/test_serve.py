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
from conftest import Installed, Pair, ok, run, tool

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


@pages.get("/crash")
def crash():
    raise ZeroDivisionError("a detail for the log alone")
""",
    "fastapi": """

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


@api.get("/slow")
async def slow():
    import asyncio

    await asyncio.sleep(2)
    return {"slow": True}


@api.get("/crash")
async def crash():
    raise ZeroDivisionError("a detail for the log alone")
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


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


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


@contextlib.contextmanager
def nginx(project: Path, folder: Path) -> Iterator[Site]:
    """Run nginx with the emitted site, adapted to a port and paths of the test's own."""
    binary = tool("nginx", "nginx-light")
    port = free_port()
    listen = folder / "app.sock"
    (folder / "my-app.d").mkdir()
    changes = {
        "listen 80": f"listen 127.0.0.1:{port}",
        "listen [::]:80": "# no IPv6 here: listen [::]:80",
        "/etc/nginx/": f"{folder}/",
        "/run/my-app.sock": str(listen),
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
        f"http {{ include /etc/nginx/mime.types; access_log off; {temporary}\n"
        f"include {folder}/default.conf; include {folder}/my-app/http.conf; }}\n"
    )
    checked = ok(binary, "-t", "-c", configuration, "-e", folder / "error.log")
    assert "[warn]" not in checked
    process = subprocess.Popen(
        [binary, "-c", configuration, "-e", folder / "error.log"], stdin=subprocess.DEVNULL
    )
    try:
        with client(port) as asks:
            wait_for_port(port)
            yield Site(asks, port, project, listen, configuration)
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
    assert "Something broke on our side." in page.text
    assert "ZeroDivisionError" not in page.text
    assert asks.get("/healthz").status_code == 200


def test_docs_come_from_this_host_alone(asks, pair):
    page = asks.get("/docs")
    if pair.framework == "flask":
        assert page.status_code == 404
        return
    addresses = re.findall(r"""(?:href|src)=["']([^"']+)|url: ["']([^"']+)""", page.text)
    addresses = {first or second for first, second in addresses}
    assert "/openapi.json" in addresses
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/")
        assert asks.get(address).status_code == 200
    assert "http" not in re.sub(r"<script>.*", "", page.text, flags=re.DOTALL)


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
    """How many processes a process has started, and these in turn."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(children) + sum(descendants(int(child)) for child in children)


@pytest.mark.parametrize("count", [None, 2, 4])
def test_workers_follow_the_cpus_or_the_setting(pair, edited, tmp_path, count):
    port = free_port()
    settings = {"WEB_CONCURRENCY": str(count)} if count else {}
    with serving(edited, f"127.0.0.1:{port}", tmp_path / "log", **settings) as server:
        with client(port) as asks:
            assert asks.get("/healthz").status_code == 200
        # Uvicorn's supervisor has a helper process beside its workers.
        helpers = 1 if pair == ("fastapi", "uvicorn") else 0
        workers = count or len(os.sched_getaffinity(0))
        expected = 0 if pair.server == "waitress" else workers + helpers
        deadline = time.monotonic() + 20
        while descendants(server.process.pid) != expected:
            assert time.monotonic() < deadline, descendants(server.process.pid)
            time.sleep(0.1)


def test_missing_secret_stops_the_start(edited, tmp_path):
    """The log says what is missing and how to make one; the server does not stay up."""
    port = free_port()
    log = tmp_path / "log"
    with serving(edited, f"127.0.0.1:{port}", log, SECRET_KEY="short") as server:
        with contextlib.suppress(httpx2.TransportError), client(port) as asks:
            asks.get("/healthz", timeout=3)
        deadline = time.monotonic() + 15
        while "SECRET_KEY in /etc/my-app.env is missing" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert server.process.pid


def test_unit_and_socket_verify(project):
    analyze = tool("systemd-analyze", "systemd")
    units = [project / "deploy/my-app.service", project / "deploy/my-app.socket"]
    assert ok(analyze, "verify", *units) == ""


def test_unit_is_exposed_at_most_1_5(project):
    analyze = tool("systemd-analyze", "systemd")
    unit = project / "deploy/my-app.service"
    done = run(analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout
