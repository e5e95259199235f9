"""Run an emitted project: its unit's ExecStart, its nginx site, its development server."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2

from support.commands import free_port, ok, tool

# Headers with which a client could pretend to be someone else.
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


# The server.


def exec_start(project: Path) -> list[str]:
    """Return the words of the unit's ExecStart, as systemd passes them to execve(2)."""
    unit = (project / "deploy/my-app.service").read_text().replace("\\\n", " ")
    [line] = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]


def environment(project: Path, **settings: str) -> list[str]:
    """Return the unit's environment and settings as options of systemd-socket-activate."""
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
        """Stop it as systemd does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"SIGTERM does not stop it:\n{self.log.read_text()}") from None


@contextlib.contextmanager
def serving(project: Path, listen: str, log: Path, **settings: str) -> Iterator[Server]:
    """Run a project's ExecStart in its folder, on a socket passed as systemd does."""
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
        # Other tests check how it stops.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


@contextlib.contextmanager
def started(command: str, path: Path) -> Iterator[subprocess.Popen]:
    """Run a shell command in the background, and stop it as Ctrl+C does."""
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"Ctrl+C does not stop {command}") from None


# Requests.


def http_client(port: int, **options) -> httpx2.Client:
    """Return a client that requests example.com from a port of this machine."""
    options.setdefault("headers", {"Host": "example.com"})
    return httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, **options)


def raw(port: int, request: bytes) -> bytes:
    """Send these bytes to nginx and read until it closes the connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    with connection as sock, contextlib.suppress(ConnectionError):
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))
    return b""


def output_of(server: subprocess.Popen) -> str:
    """Return what a server that has exited wrote to its pipe."""
    return server.stdout.read().decode() if server.stdout else "see above"


def get_when_up(url: str, server: subprocess.Popen, seconds: float = 20) -> httpx2.Response:
    """Request a URL again and again until the server has started."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return httpx2.get(url)
        except httpx2.TransportError:
            assert server.poll() is None, f"the server has exited: {output_of(server)}"
            assert time.monotonic() < deadline, "no response"
            time.sleep(0.1)


def wait_for_port(port: int) -> None:
    """Wait until something is listening on a port."""
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port)).close()
        assert time.monotonic() < deadline
        time.sleep(0.02)


# nginx.


class Site(NamedTuple):
    """A project behind nginx, as on a server."""

    client: httpx2.Client
    port: int
    project: Path
    socket: Path
    configuration: Path


def configure(
    project: Path, folder: Path, port: int, site: str = "http.conf", other_port: int = 0
) -> Path:
    """Write the emitted site into `folder`, with the test's own port and paths.

    site: http.conf or https.conf; the port is that of its pages, and `other_port` that of
    the redirects to them, or the one for HTTPS. Returns the path of the nginx.conf that
    includes it.
    """
    (folder / "my-app.d").mkdir()
    http, https = port, other_port or free_port()
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
        "/opt/my-app.versions/": f"{folder}/versions/",
        "/opt/my-app/": f"{project}/",
        "/var/www/acme": f"{folder}/acme",
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
        f"include {folder}/default*.conf; include {folder}/conf.d/*.conf;"
        f" include {folder}/my-app/{site}; }}\n"
    )
    return configuration


# Runs a function of deploy/assets.py with another directory than that in /opt.
KEEP = """
import pathlib
import sys

sys.path.insert(0, sys.argv[1])
import assets

assets.BY_HASH = pathlib.Path(sys.argv[2])
assets.BY_HASH.parent.mkdir(exist_ok=True)
getattr(assets, sys.argv[4])(pathlib.Path(sys.argv[3]))
"""


def keep_static_files(
    project: Path, folder: Path, release: Path, function: str = "keep"
) -> None:
    """Do what deploy/release does with the static files of a release, for nginx in `folder`.

    function: prepare_assets also changes and compresses the files of the release.
    """
    kept = folder / "versions/by-hash"
    ok("python3", "-B", "-c", KEEP, project / "deploy", kept, release, function)


def make_certificate(folder: Path, *names: str) -> None:
    """Make a self-signed certificate for names, or example.com, as https.conf names its files."""
    alternatives = ",".join(f"DNS:{name}" for name in names or ["example.com"])
    # fmt: off
    ok(
        tool("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-days", "2", "-subj", "/CN=example.com", "-addext", f"subjectAltName={alternatives}",
        "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem",
    )
    # fmt: on


@contextlib.contextmanager
def nginx(
    project: Path, folder: Path, site: str = "http.conf", own: str = ""
) -> Iterator[Site]:
    """Run nginx with the emitted site, on a port of its own.

    own: what the owner has put into a file of the site's own directory.
    """
    binary = tool("nginx", "nginx-light")
    port = free_port()
    configuration = configure(project, folder, port, site)
    (folder / "my-app.d/own.conf").write_text(own)
    command = [binary, "-c", configuration, "-e", folder / "error.log"]
    assert "[warn]" not in ok(*command, "-t")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with http_client(port) as client:
            wait_for_port(port)
            yield Site(client, port, project, folder / "app.sock", configuration)
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(20)


@contextlib.contextmanager
def deployed(project: Path, folder: Path, site: str = "http.conf") -> Iterator[Site]:
    """Run a project's server on a unix socket, behind nginx."""
    with (
        nginx(project, folder, site) as running,
        serving(project, str(running.socket), folder / "log"),
    ):
        yield running
