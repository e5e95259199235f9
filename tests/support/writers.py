"""Writes rows to a site until its standard input ends, and finds those that the site lost.

Usage: python writers.py URL CA_FILE [--writers N] [--pause SECONDS] [--proxy HOST]
       python writers.py URL CA_FILE [--proxy HOST] --read

With --proxy, requests name the host, the visitor and https in headers, as a proxy in front of
the site does, and CA_FILE is not used.

Each writer sends a form with a name that is used only once, requests the page and the JSON
that list names, and begins again. Each request has a connection of its own, from another
address: nginx limits the forms of an address, and closes idle connections at a reload. A
row is acknowledged when the redirect that follows the form has arrived.

At the end, prints a JSON object: the number of requests `sent`; the `failed` ones, each with
its time, method, path and status or error; the names that are `acknowledged`, and those that
are `uncertain`, because something else than a redirect has arrived, or nothing; and the
`longest` time until an answer, in seconds. With --read, prints the names that the site has
instead, oldest first, as a JSON array.
"""

import argparse
import http.client
import itertools
import json
import os
import random
import ssl
import sys
import threading
import time
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TIMEOUT = 90  # seconds: longer than nginx waits for the app

# Those of another process are different: several may write to the same site in turn.
# In a container, the id of a process says nothing.
START = random.randrange(1500) if "--proxy" in sys.argv else os.getpid()
numbers = itertools.count(START * 10000)


class Findings(NamedTuple):
    """What became of the rows.

    missing: acknowledged, but not there. repeated: there more than once. unexpected: there,
    although they are uncertain, which is no fault: the answer can get lost after the row
    was written.
    """

    missing: list[str]
    repeated: list[str]
    unexpected: list[str]


def compare(acknowledged: list[str], uncertain: list[str], names: list[str]) -> Findings:
    """Compare what writers have sent with the names that the site has."""
    counts = Counter(names)
    return Findings(
        missing=[name for name in acknowledged if name not in counts],
        repeated=[name for name, count in counts.items() if count > 1],
        unexpected=[name for name in uncertain if name in counts],
    )


class Site:
    """A client of a site that uses each address and each connection once."""

    def __init__(self, url: str, ca_file: str, host: str = "") -> None:
        """Take the site at a URL.

        host: its name, if the client is a proxy in front of it.
        """
        self.proxied = {"Host": host, "X-Forwarded-Proto": "https"} if host else {}
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.visitor = threading.local()
        self.context = None
        if parts.scheme == "https":
            self.context = ssl.create_default_context(cafile=ca_file)

    def connect(self) -> http.client.HTTPConnection:
        number = next(numbers)
        rest = f"{number // 62500 % 250 + 1}.{number // 250 % 250}.{number % 250 + 1}"
        options = {"timeout": TIMEOUT}
        if self.proxied:
            self.visitor.headers = self.proxied | {"X-Forwarded-For": f"20.{rest}"}
        else:
            options["source_address"] = (f"127.{rest}", 0)
        if self.context:
            return http.client.HTTPSConnection(
                self.host, self.port, context=self.context, **options
            )
        return http.client.HTTPConnection(self.host, self.port, **options)

    def headers(self) -> dict[str, str]:
        """Return the headers that name the visitor of this thread's last connection."""
        return self.visitor.headers if self.proxied else {}

    def request(self, method: str, path: str, form: dict | None = None) -> tuple[int, bytes]:
        """Send a request, and return the status and the body of the response."""
        connection = self.connect()
        try:
            body = urlencode(form) if form else None
            connection.request(method, path, body, self.headers() | (FORM if form else {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def names(self) -> list[str]:
        """Return the names of all rows, oldest first, read page by page."""
        found, query = [], ""
        connection = self.connect()
        while True:
            connection.request("GET", f"/items/{query}", headers=self.headers())
            response = connection.getresponse()
            page = json.loads(response.read())
            assert response.status == 200, page
            if response.will_close:
                connection.close()
            found += [item["name"] for item in page["items"]]
            if page["next"] is None:
                connection.close()
                return found[::-1]
            query = f"?before={page['next']}"


class Writers:
    """Several writers, each a thread, and what they have seen."""

    def __init__(self, site: Site, count: int, pause: float) -> None:
        self.site, self.pause = site, pause
        self.sent, self.longest = 0, 0.0
        self.failed, self.acknowledged, self.uncertain = [], [], []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.write) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> dict:
        """Let each writer finish its request, and return the results."""
        self.ended.set()
        for thread in self.threads:
            thread.join()
        names = ("sent", "failed", "acknowledged", "uncertain", "longest")
        return {name: getattr(self, name) for name in names}

    def write(self) -> None:
        while not self.ended.is_set():
            name = f"row {START} {next(numbers)}"
            accepted = self.send("POST", "/hello/", 303, {"name": name})
            with self.lock:
                (self.acknowledged if accepted else self.uncertain).append(name)
            self.send("GET", "/hello/", 200)
            self.send("GET", "/items/", 200)

    def send(self, method: str, path: str, expected: int, form: dict | None = None) -> bool:
        """Send a request, and return whether the expected status has arrived."""
        start, clock = time.monotonic(), time.strftime("%H:%M:%S")
        try:
            result, _ = self.site.request(method, path, form)
        except (OSError, http.client.HTTPException) as error:
            result = repr(error)
        with self.lock:
            self.sent += 1
            self.longest = max(self.longest, time.monotonic() - start)
            if result != expected:
                self.failed.append([clock, method, path, result])
        self.ended.wait(self.pause)
        return result == expected


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("ca_file")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--proxy", default="", metavar="HOST")
    parser.add_argument("--read", action="store_true")
    options = parser.parse_args()
    site = Site(options.url, options.ca_file, options.proxy)
    if options.read:
        print(json.dumps(site.names()))
        return
    writers = Writers(site, options.writers, options.pause)
    sys.stdin.read()
    print(json.dumps(writers.stop()))


if __name__ == "__main__":
    main()
