"""Requests as they stand on the wire, which no client library would send."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serving import Server, running, tiny_bundle

HOST = b"Host: localhost\r\n"
TEXT = b'{"input": "a red kite"}'
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_bundle().save(folder)
    quick = "from diptych.serve import connections\nconnections.HEAD_SECONDS, connections.MOST_CONNECTIONS = 1.0, 20"
    with running("--model", folder, first=quick) as server:
        yield server


def connected(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname
    return socket.create_connection((address.hostname, address.port or 80), timeout=30)


def exchanged(server: Server, *parts: bytes) -> bytes:
    """Send, and read until the server hangs up."""
    with connected(server) as line:
        for part in parts:
            line.sendall(part)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while more := line.recv(65_536):
                found += more
        return found


def head_of(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Its first line, its headers and what follows."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}, rest


def post(path: bytes, body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/" + version + b"\r\n" + HOST + JSON + length + b"".join(headers) + b"\r\n" + body


CLOSE = b"Connection: close\r\n"


def test_http_1_0_is_answered(server: Server):
    first, headers, body = head_of(exchanged(server, post(b"/v1/embeddings", TEXT, version=b"1.0")))
    assert first.endswith(b" 200 OK")
    assert headers[b"content-length"] == b"%d" % len(body)
    assert len(json.loads(body)["data"]) == 1


def test_requests_in_a_row_on_one_line_are_answered_in_their_order(server: Server):
    gets = [b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n", post(b"/v1/embeddings", TEXT)]
    last = b"GET /health HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    answer = exchanged(server, b"".join([*gets, last]))
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    places = [answer.index(mark) for mark in (b'"owned_by"', b'"embedding"', b'"status":"ok"')]
    assert places == sorted(places)


def test_a_body_in_chunks_is_read(server: Server):
    head = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + JSON + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (TEXT[:5], TEXT[5:])) + b"0\r\n\r\n"
    assert head_of(exchanged(server, head, chunks))[0].endswith(b" 200 OK")


def test_who_asks_before_sending_is_told_to_go_on_or_why_not(server: Server):
    expect = b"Expect: 100-continue\r\n"
    with connected(server) as line:
        head, _, _ = post(b"/v1/embeddings", TEXT, expect, CLOSE).partition(b"{")
        line.sendall(head)
        assert line.recv(100).startswith(b"HTTP/1.1 100 ")
        line.sendall(TEXT)
        assert b" 200 OK" in line.recv(65_536)
    large = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + JSON + expect + b"Content-Length: 99999999999\r\n\r\n"
    first, _, body = head_of(exchanged(server, large))
    assert first.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.1\r\nHost: localhost\r\n Folded: x\r\n\x00: y\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_the_one_shape(server: Server, request_: bytes):
    first, headers, body = head_of(exchanged(server, request_))
    assert first == b"HTTP/1.1 400 Bad Request"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-content-type-options"] == b"nosniff"
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("invalid_http", "invalid_request_error")


def test_odd_headers_change_nothing(server: Server):
    odd = (b"X-Empty:\r\n", b"Accept: \xff\xfe\r\n", b"Range: bytes=0-3\r\n", b"Accept-Encoding: br;q=1\r\n", CLOSE)
    for path in (b"/v1/models", b"/v1/models/%74iny", b"/health?x=%ff", b"//health"):
        request = b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"".join(odd) + b"\r\n"
        first, headers, _ = head_of(exchanged(server, request))
        assert first == (b"HTTP/1.1 404 Not Found" if path == b"//health" else b"HTTP/1.1 200 OK")
        assert b"content-encoding" not in headers
    upgrade = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert head_of(exchanged(server, upgrade))[0] == b"HTTP/1.1 200 OK"


def test_a_head_that_does_not_end_and_a_connection_without_one_are_closed(server: Server):
    """They would each keep a file descriptor, and there are as many as the system lets a process have."""
    for begun in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
        assert exchanged(server, begun) == b""
    answered = exchanged(server, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n", b"GET /hea")
    assert answered.count(b"HTTP/1.1") == 1


def test_nothing_of_it_is_said_to_who_runs_it(tmp_path: Path):
    tiny_bundle().save(tmp_path / "tiny")
    with running("--model", tmp_path / "tiny") as server:
        exchanged(server, b"GARBAGE\r\n\r\n")
        exchanged(server, b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n")
        assert server.stop() == (0, "")


def test_an_answer_that_its_client_does_not_fetch_is_not_kept(server: Server):
    """Each may have megabytes, and no limit of bodies or requests counts them."""
    many = post(b"/v1/embeddings", json.dumps({"input": ["a red kite"] * 1024}).encode())
    address = urlsplit(server.url)
    with socket.socket() as line:
        line.settimeout(30)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((address.hostname, address.port))
        line.sendall(many * 12)  # more than the system itself keeps
        found = line.recv(15)
        time.sleep(10)  # in which it is cut: two looks are a second apart
        with contextlib.suppress(ConnectionResetError):
            while more := line.recv(2**20):
                found += more
    assert 1 <= found.count(b"HTTP/1.1 200 OK") < 12


def test_a_slow_client_gets_its_answer_whole(server: Server):
    many = json.dumps({"input": ["a red kite"] * 1024}).encode()
    with connected(server) as line:
        line.sendall(post(b"/v1/embeddings", many, CLOSE))
        found = b""
        while more := line.recv(2**18):
            found += more
            time.sleep(0.2)
    _, headers, body = head_of(found)
    assert len(body) == int(headers[b"content-length"])


def test_of_too_many_connections_the_one_that_is_idle_longest_gives_way(server: Server):
    """Files are as many as the system lets a process have: without one neither a picture nor a request can be read."""
    get = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(connected(server)) for _ in range(40)]
        lines[-1].sendall(get)
        assert lines[-1].recv(15) == b"HTTP/1.1 200 OK"
        with contextlib.suppress(ConnectionResetError):
            assert lines[0].recv(1) == b""
