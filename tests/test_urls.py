import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpcore2
import pytest

from diptych.errors import BusyError, ImageError
from diptych.serve.urls import Fetcher

PUBLIC = "93.184.215.14"


class Net:
    """Names, and one small server on loopback that stands for every public address."""

    def __init__(self, names: Mapping[str, Sequence[Sequence[str]]], answers: Mapping[str, bytes]) -> None:
        self._names = {name: list(each) for name, each in names.items()}  # what each look-up in turn gives
        self._answers = answers  # by "METHOD target"
        self.connected: list[str] = []
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if host not in self._names:
            raise socket.gaierror("no such name")
        found = self._names[host]
        return found.pop(0) if len(found) > 1 else found[0]

    @contextlib.asynccontextmanager
    async def backend(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[httpcore2.AsyncNetworkBackend]:
        net, writers = self, []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                net.asked.append(head)
                answer = net._answers[head.split()[1]]
                if answer == b"silence":
                    await reader.read()
                writer.write(answer)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        there = server.sockets[0].getsockname()[1]

        class Backend(httpcore2.AnyIOBackend):
            async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> Any:
                net.connected.append(f"{host}:{port}")
                return await super().connect_tcp("127.0.0.1", there, *args, **options)

        try:
            yield Backend()
        finally:
            server.close()
            for writer in writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Content-Length": len(body), **headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


NAMES = {"pictures.org": [[PUBLIC]], "cdn.pictures.org": [[PUBLIC]], "inside.org": [["10.0.0.7"]]}


def fetch(url: str, net: Net, allowed: Sequence[str] = ("pictures.org", "inside.org"), **options: Any) -> bytes:
    async def run() -> bytes:
        async with net.backend() as backend:
            values = {"max_bytes": 1000, "seconds": 5, **options}
            return await Fetcher(allowed, resolve=net.resolve, network=backend, **values)(url)

    return asyncio.run(run())


def test_a_file_of_an_allowed_host_is_fetched_from_the_address_that_was_checked():
    net = Net(NAMES, {"/a.png?x=1": answer(b"file")})
    assert fetch("http://pictures.org/a.png?x=1#part", net) == b"file"
    assert net.connected == [f"{PUBLIC}:80"]
    assert "Host: pictures.org\r\n" in net.asked[0]
    assert "ookie" not in net.asked[0]


def test_a_name_that_turns_to_this_network_is_not_followed_there():
    """The second look-up of a name under attack gives a private address: there must be none."""
    net = Net({"pictures.org": [[PUBLIC], ["127.0.0.1"]]}, {"/": answer(b"file")})
    assert fetch("http://pictures.org/", net) == b"file"
    assert net.connected == [f"{PUBLIC}:80"]


@pytest.mark.parametrize(
    ("url", "must"),
    [
        ("http://inside.org/a.png", "leads to public addresses only"),
        ("http://mixed.org/a.png", "leads to public addresses only"),
        ("http://127.0.0.1/", "host on the allow-list"),
        ("http://other.org/", "host on the allow-list"),
        ("http://evil-pictures.org/", "host on the allow-list"),
        ("http://pictures.org.evil.org/", "host on the allow-list"),
        ("http://pictures.org:22/", "host on the allow-list"),
        ("http://pictures.org@other.org/", "holds no password"),
        ("http://user:word@pictures.org/", "holds no password"),
        ("http://pictures.org\\@other.org/", "holds no password"),
        ("file:///etc/passwd", "starts with https"),
        ("ftp://pictures.org/", "starts with https"),
        ("http:///a.png", "starts with https"),
        ("http://[::1/", "is a URL"),
        ("http://pictures.org:port/", "is a URL"),
        ("http://pictures.org/a b", "is ASCII"),
        ("http://pictures.org/ä.png", "is ASCII"),
        ("http://nowhere.org/", "can be found"),
    ],
)
def test_refused_urls_are_not_asked_for(url: str, must: str):
    net = Net({**NAMES, "mixed.org": [[PUBLIC, "192.168.0.1"]], "127.0.0.1": [["127.0.0.1"]]}, {})
    with pytest.raises(ImageError, match=must):
        fetch(url, net, ["pictures.org", "inside.org", "mixed.org", "nowhere.org"])
    assert net.connected == []


def test_a_private_address_on_the_list_is_refused_all_the_same():
    net = Net({"127.0.0.1": [["127.0.0.1"]]}, {})
    with pytest.raises(ImageError, match="public addresses only"):
        fetch("http://127.0.0.1/", net, ["127.0.0.1"])
    assert net.connected == []


def test_a_redirect_is_checked_like_the_first_url():
    answers = {
        "/moved": answer(status="302 Found", Location="/there"),
        "/there": answer(b"file"),
        "/out": answer(status="302 Found", Location="http://inside.org/"),
        "/file": answer(status="302 Found", Location="file:///etc/passwd"),
        "/round": answer(status="307 Temporary Redirect", Location="/round"),
    }
    assert fetch("http://pictures.org/moved", net := Net(NAMES, answers)) == b"file"
    assert len(net.connected) == 2
    for path, must in (("out", "public addresses"), ("file", "starts with https"), ("round", "at most 3 times")):
        net = Net(NAMES, answers)
        with pytest.raises(ImageError, match=must):
            fetch(f"http://pictures.org/{path}", net)
    assert len(net.connected) == 4


@pytest.mark.parametrize(
    ("content", "must"),
    [
        (answer(b"x" * 1001), "has at most 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "has at most 1,000 bytes"),  # no length told
        (answer(status="404 Not Found"), "answered 404"),
        (answer(b"x", Content_Encoding="gzip"), "packed it"),
        (b"what?\r\n\r\n", "can be fetched"),
        (b"", "can be fetched"),
        (b"silence", "answers within 0.2 s"),
    ],
)
def test_answers_that_are_no_file(content: bytes, must: str):
    with pytest.raises(ImageError, match=must):
        fetch("http://pictures.org/", Net(NAMES, {"/": content}), seconds=0.2 if content == b"silence" else 5)


@pytest.mark.parametrize(
    ("allowed", "url", "may"),
    [
        ("*.pictures.org", "http://cdn.pictures.org/", True),
        ("*.pictures.org", "http://pictures.org/", False),
        ("pictures.org", "http://cdn.pictures.org/", False),
        ("PICTURES.org", "http://Pictures.ORG./", True),
        ("pictures.org:8080", "http://pictures.org:8080/", True),
        ("pictures.org:8080", "http://pictures.org/", False),
    ],
)
def test_what_an_entry_of_the_list_allows(allowed: str, url: str, may: bool):
    net = Net(NAMES, {"/": answer(b"file")})
    expect: Callable[[], Any] = contextlib.nullcontext if may else lambda: pytest.raises(ImageError, match="allow-list")
    with expect():
        assert fetch(url, net, [allowed]) == b"file"


def test_few_are_fetched_at_once():
    async def run() -> list[Any]:
        net = Net(NAMES, {"/": b"silence"})
        async with net.backend() as backend:
            one = Fetcher(["pictures.org"], max_bytes=9, seconds=0.2, resolve=net.resolve, network=backend)
            asked = (one("http://pictures.org/") for _ in range(9))
            return await asyncio.gather(*asked, return_exceptions=True)

    kinds = [type(error) for error in asyncio.run(run())]
    assert (kinds.count(ImageError), kinds.count(BusyError)) == (8, 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    name = "-subj /CN=pictures.org -addext subjectAltName=DNS:pictures.org"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 {name}"
    files = ["-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=60)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    net = Net({"pictures.org": [[PUBLIC]], "other.org": [[PUBLIC]]}, {"/": answer(b"file")})

    async def run() -> list[Any]:
        async with net.backend(tls) as backend:
            one = Fetcher(["pictures.org", "other.org"], max_bytes=99, resolve=net.resolve, network=backend)
            strange = await asyncio.gather(one("https://pictures.org/"), return_exceptions=True)
            one._tls.load_verify_locations(certificate)
            urls = ("https://pictures.org/", "https://other.org/")
            return [*strange, *await asyncio.gather(*map(one, urls), return_exceptions=True)]

    strange, known, other = asyncio.run(run())
    assert isinstance(strange, ImageError)
    assert known == b"file"
    assert isinstance(other, ImageError)
    assert net.connected == [f"{PUBLIC}:443"] * 3
