"""What each pair does with requests that are malformed, forged, slow or too large."""

import contextlib
import socket
import threading
import time

import httpx2
import pytest
from support.serve import FORGED, http_client, raw


@pytest.mark.parametrize("header", [None, *FORGED])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_app_sees_the_true_client(site, header, address):
    """The address is the one that nginx saw; no header of a client changes it."""
    headers = {"Host": "example.com"}
    if header:
        headers[header] = FORGED[header]
    transport = httpx2.HTTPTransport(local_address=address)
    with http_client(site.port, headers=headers, transport=transport) as client:
        seen = client.get("/whoami").json()
    assert seen == {"address": address, "scheme": "http", "url": "http://example.com/"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "example.com.evil.example", ""])
def test_unknown_host_gets_no_page(site, host):
    with http_client(site.port, headers={"Host": host}) as client:
        try:
            response = client.get("/")
        except httpx2.RemoteProtocolError:
            return
    assert response.status_code == 400
    assert "It works!" not in response.text


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
def test_bad_request_is_rejected(site, request_bytes):
    response = raw(site.port, request_bytes)
    assert response == b"" or response.split()[1].startswith(b"4"), response[:200]
    assert site.client.get("/healthz").status_code == 200


ODD_REQUESTS = {
    "header without colon": HEAD + b"Oops\r\n",
    "many headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(150)),
    "odd cookie": HEAD + b"Cookie: session=\xff.garbage; \x80=; ;;=\r\n",
    "odd header": HEAD + b"X: \xff\xfe\r\nUser-Agent: \xe4\r\n",
    "upgrade to h2c": HEAD + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
}


@pytest.mark.parametrize("headers", ODD_REQUESTS.values(), ids=ODD_REQUESTS)
def test_odd_request_gets_a_response(site, headers):
    response = raw(site.port, b"GET /hello/ HTTP/1.1\r\n" + headers + b"\r\n")
    assert response.split()[1] in (b"200", b"400", b"431"), response[:200]


@pytest.mark.slow
def test_slow_clients_do_not_delay_others(site):
    """Slow headers and bodies time out; all other clients are served meanwhile."""
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
        # Headers time out after ten seconds, even if bytes keep coming.
        with contextlib.suppress(ConnectionError):
            assert sockets[0].recv(1) in (b"", b"H")


def test_form_in_an_unknown_encoding_gets_a_response(site):
    form = b"name=%ff%fe&x=\xff"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = site.client.post("/hello/", content=form, headers=headers)
    assert response.status_code in (303, 400, 422)


def test_post_with_an_upgrade_header_is_a_post(site):
    request = (
        b"POST /hello/ HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nContent-Length: 8\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nname=Ada"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as sock:
        sock.sendall(request)
        assert sock.recv(1000).split()[1] == b"303"


def test_static_path_cannot_be_escaped(site):
    for path in ("/static/../config.py", "/static/%2e%2e/config.py", "/static../config.py"):
        request = f"GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
        response = raw(site.port, request.encode())
        assert b"secret_key" not in response
        assert response.split()[1] in (b"400", b"404")


def test_large_upload_is_rejected(site):
    response = site.client.post("/count", content=b"x" * 10_500_000)
    assert response.status_code == 413


@pytest.mark.parametrize("path", ["/ignore", "/nowhere"])
def test_unread_bodies_lose_no_response(site, path):
    statuses = []

    def post(address: str) -> None:
        transport = httpx2.HTTPTransport(local_address=address)
        with http_client(site.port, transport=transport) as client:
            for _ in range(10):
                statuses.append(client.post(path, content=b"x" * 200_000).status_code)

    threads = [threading.Thread(target=post, args=[f"127.2.0.{n}"]) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {404 if path == "/nowhere" else 200}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://example.com"},
        {"Sec-Fetch-Site": "same-site"},  # a subdomain
        {"Origin": "http://evil.example"},
        {"Origin": "https://example.com.evil.example"},
        {"Origin": "null"},
    ],
)
def test_form_of_another_site_is_refused(client, headers):
    """With a page, also if it is large: the server has to drain it."""
    form = {"name": "Ada", "more": "x" * 200_000}
    response = client.post("/hello/", data=form, headers=headers)
    assert response.status_code == 403
    assert "<h1>Not allowed</h1>" in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl, uptime monitors
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://example.com"},
    ],
)
def test_form_of_this_site_is_accepted(client, headers):
    response = client.post("/hello/", data={"name": "Ada"}, headers=headers)
    assert response.status_code == 303


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_links_from_other_sites_work(client, method):
    response = client.request(method, "/hello/Ada", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code in (200, 204, 405)
