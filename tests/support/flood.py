"""Floods a site from some addresses while visitors from others request its pages.

Usage: python flood.py KIND SITE CA_FILE [--count N] [--addresses N] [--seconds N] [--sites NAME,...]

KIND is what each of the `count` connections does, which come from `addresses` addresses:
    forms         sends a form of 10 MB with one field, at the same time as all others
    fields        sends a form of 10 MB with five million fields, likewise
    slow-posts    sends the body of a form one byte at a time
    slow-headers  sends one request header after the other
    slow-readers  requests hundreds of files and reads them a few bytes at a time
The slow ones go on for `seconds`, and connect again when they are disconnected.

Meanwhile four visitors, each with an address of its own, request a page and the health
check of all `sites` on new connections. At the end, prints a JSON object: the number of
`probes` that they sent, those that `failed`, their `p99` and `slowest` in seconds, and
what the flood got: `answers`, the number of each status, or of each error.
"""

import argparse
import asyncio
import collections
import itertools
import json
import multiprocessing
import resource
import socket
import ssl
import time

FORM = (
    "POST /hello/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n"
)
SIZE = 10 * 2**20 - 8  # nginx accepts 10 MB
STEP = 4  # seconds between the bytes of a slow connection
TIMEOUT = 10  # seconds that a visitor waits


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=BEHAVIOURS)
    parser.add_argument("site")
    parser.add_argument("ca_file")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--addresses", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--sites", default="")
    return parser.parse_args()


async def connect(options: argparse.Namespace, host: str, address: str, narrow: bool = False):
    """Return a TLS connection from a local address; a narrow one has a small buffer."""
    sock = socket.socket()
    sock.setblocking(False)
    if narrow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    try:
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", 443))
        return await asyncio.open_connection(
            sock=sock, ssl=options.context, server_hostname=host, limit=2**14
        )
    except BaseException:
        sock.close()
        raise


async def status(reader: asyncio.StreamReader) -> str:
    """Return the status of a response."""
    line = await reader.readline()
    return line.decode("latin-1").split(" ")[1] if line else "closed"


# What a connection of a flood does. Each returns the status that it got.


async def forms(options, reader, writer, filler: bytes = b"a") -> str:
    body = b"name=" + filler * (SIZE // len(filler))
    writer.write(FORM.format(options.site, len(body)).encode() + body[:-1])
    await writer.drain()
    options.waiting += 1
    while options.waiting < options.count:  # nginx passes all of them on at once
        await asyncio.sleep(0.01)
    writer.write(body[-1:])
    return await status(reader)


async def fields(options, reader, writer) -> str:
    return await forms(options, reader, writer, b"a&")


async def trickle(writer, start: str, drops: itertools.cycle) -> None:
    """Send a text, then a little more again and again, until the connection is closed."""
    writer.write(start.encode())
    for drop in drops:
        await writer.drain()
        await asyncio.sleep(STEP)
        writer.write(drop)


async def until_answer(reader, sending) -> str:
    task = asyncio.create_task(sending)
    try:
        return await status(reader)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def slow_posts(options, reader, writer) -> str:
    start = FORM.format(options.site, 100_000) + "name="
    return await until_answer(reader, trickle(writer, start, itertools.cycle([b"a"])))


async def slow_headers(options, reader, writer) -> str:
    start = f"GET / HTTP/1.1\r\nHost: {options.site}\r\n"
    return await until_answer(reader, trickle(writer, start, itertools.cycle([b"X-A: b\r\n"])))


async def slow_readers(options, reader, writer) -> str:
    writer.write(
        f"GET /static/style.css HTTP/1.1\r\nHost: {options.site}\r\n\r\n".encode() * 200
    )
    first = await status(reader)
    while await reader.read(64):
        await asyncio.sleep(STEP)
    return first


BEHAVIOURS = {
    "forms": forms,
    "fields": fields,
    "slow-posts": slow_posts,
    "slow-headers": slow_headers,
    "slow-readers": slow_readers,
}


async def attack(options, number: int, end: float, answers: collections.Counter) -> None:
    """Be one connection of the flood: once, or again and again until the end."""
    address = (
        f"127.1.{number % options.addresses // 250}.{number % options.addresses % 250 + 1}"
    )
    narrow = options.kind == "slow-readers"
    once = not options.kind.startswith("slow")
    while once or time.monotonic() < end:
        writer = None
        try:
            reader, writer = await connect(options, options.site, address, narrow)
            left = 120 if once else end - time.monotonic()
            act = BEHAVIOURS[options.kind](options, reader, writer)
            result = await asyncio.wait_for(act, left)
        except asyncio.TimeoutError:
            result = "open at the end"
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            result = type(error).__name__
        answers[result] += 1
        if writer:
            writer.transport.abort()
        if once:
            return
        await asyncio.sleep(0.5)


async def flood(options, end: float, answers: collections.Counter) -> None:
    await asyncio.gather(*(attack(options, i, end, answers) for i in range(options.count)))


async def visit(options, address: str, stop, found: list) -> None:
    """Request the pages of all sites in turn, until `stop` is set."""
    pages = itertools.cycle(itertools.product(["/healthz", "/"], options.sites))
    while not stop.is_set():
        path, host = next(pages)
        begin = time.monotonic()
        try:
            result = await asyncio.wait_for(request(options, host, path, address), TIMEOUT)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            result = repr(error)
        found.append((host, path, result, round(time.monotonic() - begin, 4)))
        await asyncio.sleep(0.05)


async def request(options, host: str, path: str, address: str) -> str:
    reader, writer = await connect(options, host, address)
    try:
        text = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        writer.write(text.encode())
        result = await status(reader)
        await reader.read()
        return result
    finally:
        writer.transport.abort()


def prepare(options: argparse.Namespace) -> None:
    """Prepare a process: its own TLS context, and room for its connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    options.context = ssl.create_default_context(cafile=options.ca_file)
    options.waiting = 0


def visitors(options: argparse.Namespace, stop, results) -> None:
    """Be all visitors, in a process of their own, so that the flood does not delay them."""
    prepare(options)
    found = []

    async def visit_all() -> None:
        await asyncio.gather(
            *(visit(options, f"127.2.0.{n}", stop, found) for n in (1, 2, 3, 4))
        )

    asyncio.run(visit_all())
    results.put(found)


def main() -> None:
    options = parse()
    options.sites = options.sites.split(",") if options.sites else [options.site]
    answers = collections.Counter()
    stop, results = multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=visitors, args=(options, stop, results))
    process.start()
    time.sleep(1)
    prepare(options)
    asyncio.run(flood(options, time.monotonic() + options.seconds, answers))
    time.sleep(1)
    stop.set()
    found = results.get()
    process.join()
    times = sorted(seconds for *_, seconds in found)
    print(
        json.dumps(
            {
                "probes": len(found),
                "failed": [probe for probe in found if probe[2] != "200"],
                "p99": times[int(len(times) * 0.99)],
                "slowest": times[-1],
                "answers": dict(answers),
            }
        )
    )


if __name__ == "__main__":
    main()
