"""What proves that a site loses no row finds one that is lost, repeated or refused."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from support.writers import Site, Writers, compare

PAGE = 10


class Forgetful(ThreadingHTTPServer):
    """A site in memory whose every tenth row suffers a fault.

    fault: whether it is "lost" or "repeated", or its request is "refused", or the answer
    to it "cut off"; all others are as they should be.
    """

    daemon_threads = True

    def __init__(self, fault: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault, self.rows, self.count = fault, [], 0
        self.lock = threading.Lock()

    def add(self, name: str) -> int:
        """Keep a name, and return the status of the response; 0 for none."""
        with self.lock:
            self.count += 1
            fault = self.fault if self.count % 10 == 0 else ""
            self.rows += [name] * {"lost": 0, "refused": 0, "repeated": 2}.get(fault, 1)
        return {"refused": 500, "cut off": 0}.get(fault, 303)

    def page(self, before: int) -> dict:
        rows = list(enumerate(self.rows, start=1))
        found = [row for row in rows[::-1] if row[0] < before][:PAGE]
        return {
            "items": [{"id": number, "name": name} for number, name in found],
            "next": found[-1][0] if len(found) == PAGE else None,
        }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        before = int(query.get("before", ["1000000"])[0])
        self.answer(200, json.dumps(self.server.page(before)).encode())

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if status := self.server.add(parse_qs(form)["name"][0]):
            self.answer(status)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(fault: str) -> Iterator[Forgetful]:
    with Forgetful(fault) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("fault", ["none", "lost", "repeated", "refused", "cut off"])
def test_every_fault_of_a_row_is_found(server, fault):
    site = Site(f"http://127.0.0.1:{server.server_port}", "")
    writers = Writers(site, count=3, pause=0.001)
    while server.count < 40:
        time.sleep(0.01)
    result = writers.stop()
    found = compare(result["acknowledged"], result["uncertain"], site.names())
    faults = server.count // 10
    expected = {
        "none": (0, 0, 0),
        "refused": (0, 0, 0),
        "lost": (faults, 0, 0),
        "repeated": (0, faults, 0),
        "cut off": (0, 0, faults),
    }
    assert tuple(map(len, found)) == expected[fault]
    failed = faults if fault in ("refused", "cut off") else 0
    assert len(result["failed"]) == len(result["uncertain"]) == failed
    assert len(result["acknowledged"]) == server.count - failed
    if fault == "refused":
        assert {(method, path, status) for _, method, path, status in result["failed"]} == {
            ("POST", "/hello/", 500)
        }
