"""Each pair's server as a process: how it starts, stops and uses its workers; its unit."""

import contextlib
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from support.commands import free_port, ok, tool
from support.project import PAIRS
from support.serve import http_client, serving


def test_request_in_flight_is_finished_at_stop(edited, tmp_path):
    port = free_port()
    responses = []
    log = tmp_path / "log"
    with serving(edited, f"127.0.0.1:{port}", log) as server, http_client(port) as client:
        assert client.get("/healthz").status_code == 200
        thread = threading.Thread(target=lambda: responses.append(client.get("/slow")))
        thread.start()
        time.sleep(0.7)
        status = server.stop()
        thread.join()
    assert [response.json() for response in responses] == [{"slow": True}]
    assert status in (0, -signal.SIGTERM)


RELOADABLE = [pair for pair in PAIRS if pair.facts["reload"]]


@pytest.mark.slow
@pytest.mark.pairs(RELOADABLE)
@pytest.mark.parametrize("count", ["1", "2"])
def test_request_in_flight_is_finished_at_reload(edited, tmp_path, count):
    """Also where one worker is all there is."""
    unit = (edited / "deploy/my-app.service").read_text()
    [script] = re.findall(r"(?m)^ExecReload=/bin/sh -c '(.+)'$", unit)
    script = script.replace("$$", "$")
    port = free_port()
    settings = {"WEB_CONCURRENCY": count}
    log = tmp_path / "log"
    with (
        serving(edited, f"127.0.0.1:{port}", log, **settings) as server,
        http_client(port) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert client.get("/healthz").status_code == 200
        response = pool.submit(client.get, "/slow")
        time.sleep(0.7)
        environment = os.environ | settings | {"MAINPID": str(server.process.pid)}
        ok("sh", "-c", script, cwd=edited, env=environment)
        assert response.result().json() == {"slow": True}


def test_slow_requests_run_concurrently(site):
    """Eight requests of two seconds take far less than sixteen on every server."""
    start = time.monotonic()
    with http_client(site.port) as client:
        threads = [threading.Thread(target=client.get, args=("/slow",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - start < 12


def descendants(pid: int) -> int:
    """Count the descendants of a process.

    The resource tracker of Python's multiprocessing is not counted.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    started = [child for child in children if b"resource_tracker" not in names[child]]
    return len(started) + sum(descendants(int(child)) for child in started)


@pytest.mark.parametrize("count", [None, 3])
def test_workers_match_the_cpus_or_the_setting(pair, edited, tmp_path, count):
    port = free_port()
    settings = {"WEB_CONCURRENCY": str(count)} if count else {}
    with serving(edited, f"127.0.0.1:{port}", tmp_path / "log", **settings) as server:
        with http_client(port) as client:
            assert client.get("/healthz").status_code == 200
        for_each_cpu = pair.facts["workers"]
        expected = (count or len(os.sched_getaffinity(0)) * for_each_cpu) if for_each_cpu else 0
        deadline = time.monotonic() + 20
        while descendants(server.process.pid) != expected:
            assert time.monotonic() < deadline, descendants(server.process.pid)
            time.sleep(0.1)


def test_missing_secret_prevents_the_start(edited, tmp_path):
    """The log says what is missing and how to fix it; nothing is served."""
    port = free_port()
    log = tmp_path / "log"
    with serving(edited, f"127.0.0.1:{port}", log, SECRET_KEY="short"):
        responses = []
        with contextlib.suppress(httpx2.TransportError), http_client(port) as client:
            responses.append(client.get("/healthz", timeout=3))
        deadline = time.monotonic() + 15
        while "SECRET_KEY in /etc/my-app.env is missing" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert responses == []


def test_unit_and_socket_verify(project):
    analyze = tool("systemd-analyze", "systemd")
    units = [project / "deploy/my-app.service", project / "deploy/my-app.socket"]
    assert ok(analyze, "verify", *units) == ""


@pytest.mark.first_pairs
def test_first_state_directory_is_that_of_the_app(installed):
    """A drop-in can add others: systemd.exec(5) separates them by colons."""
    script = "from app.config import Settings; print(Settings().data)"
    environment = os.environ | {"STATE_DIRECTORY": "/var/lib/my-app:/var/lib/other"}
    command = (installed.path / ".venv/bin/python", "-c", script)
    assert ok(*command, cwd=installed.path, env=environment) == "/var/lib/my-app\n"
