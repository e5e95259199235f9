"""A steady load on one site over https, until its standard input ends.

Usage: python load.py HOST CA_FILE [--fresh] [--calm | --shared]
       python load.py HOST ADDRESS --proxy [--fresh] [--calm | --shared]

The second one is a proxy in front of the site: it connects to ADDRESS over http, and names
the visitor and https in headers.

Four connections request a page, JSON and a form in turn; with --fresh, on a new connection
each time, because a reload of nginx closes idle ones; with --calm, a few times a second,
which leaves most of the machine to what is tested; with --shared, so often that five sites
can be loaded at the same time. After 40 forms, a connection is replaced by one from
another address, because nginx limits the forms of each address. At the end, prints a JSON
object with the number of requests `sent`, and the `failed`: each with its method, path,
status or error, and time.
"""

import http.client
import itertools
import json
import os
import random
import ssl
import sys
import threading
import time

HOST, CA_FILE = sys.argv[1:3]
PROXY = "--proxy" in sys.argv
FRESH = "--fresh" in sys.argv
# Seconds between two requests of a connection.
PAUSE = 0.1 if "--calm" in sys.argv else 0.02 if "--shared" in sys.argv else 0.004
REQUESTS = [
    ("GET", "/", None, 200),
    ("GET", "/items/42?q=tea", None, 200),
    ("POST", "/hello/", "name=Ada", 303),
]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

FORMS = 40  # from an address; nginx allows 50 at once

context = None if PROXY else ssl.create_default_context(cafile=CA_FILE)
ended = threading.Event()
sent = []
failed = []


# Those of another process are different: several may load the same site one after another.
# In a container, the id of a process says nothing.
numbers = itertools.count((random.randrange(15000) if PROXY else os.getpid()) * 1000)


def connect() -> tuple[http.client.HTTPConnection, dict[str, str]]:
    """Return a connection for an address that was not used before, and headers to send."""
    number = next(numbers)
    rest = f"{number // 62500 % 250 + 1}.{number // 250 % 250}.{number % 250 + 1}"
    if PROXY:
        headers = {"Host": HOST, "X-Forwarded-For": f"20.{rest}", "X-Forwarded-Proto": "https"}
        return http.client.HTTPConnection(CA_FILE, timeout=60), headers
    return http.client.HTTPSConnection(
        HOST, timeout=60, context=context, source_address=(f"127.{rest}", 0)
    ), {}


def send_requests() -> None:
    connection = None
    forms = 0
    while not ended.is_set():
        for method, path, body, expected in REQUESTS:
            if connection is None:
                (connection, visitor), forms = connect(), 0
            try:
                headers = visitor | (FORM if body else {})
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                response.read()
                result = response.status
                forms += method == "POST"
                if response.will_close or FRESH or forms == FORMS:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                result = repr(error)
                connection.close()
                connection = None
            sent.append(path)
            if result != expected:
                failed.append([method, path, result, round(time.time(), 2)])
            time.sleep(PAUSE)


threads = [threading.Thread(target=send_requests) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"sent": len(sent), "failed": failed}))
