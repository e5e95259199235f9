"""A steady load on one site over https, until its standard input ends.

Usage: python load.py HOST CA_FILE [--fresh] [--calm]

Four connections ask one after the other, in turn for a page, for JSON and with a form;
with --fresh, on a new connection each time, as nginx closes idle ones at its own reload;
with --calm, a few times a second, which leaves most of the machine to what is tested.
At the end a JSON object says how many requests were `sent`, and lists the `failed`: each
as the path with the status or error, and the second in which it happened.
"""

import http.client
import json
import ssl
import sys
import threading
import time

HOST, CA_FILE = sys.argv[1:3]
FRESH = "--fresh" in sys.argv
PAUSE = 0.1 if "--calm" in sys.argv else 0.004  # seconds
REQUESTS = [
    ("GET", "/", None, 200),
    ("GET", "/items/42?q=tea", None, 200),
    ("POST", "/hello/", "name=Ada", 303),
]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

context = ssl.create_default_context(cafile=CA_FILE)
ended = threading.Event()
sent = []
failed = []


def ask_in_turn() -> None:
    connection = None
    while not ended.is_set():
        for method, path, body, expected in REQUESTS:
            if connection is None:
                connection = http.client.HTTPSConnection(HOST, timeout=60, context=context)
            try:
                headers = FORM if body else {}
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                result = answer.status
                if answer.will_close or FRESH:
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


threads = [threading.Thread(target=ask_in_turn) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"sent": len(sent), "failed": failed}))
