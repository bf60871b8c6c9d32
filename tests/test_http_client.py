"""crawl/http_client.py: whom it connects to, how long it waits, how much it reads."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bad_server import BadServer, serving
from diptych.crawl.fetch_causes import FetchError
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.http_client import HttpAnswer, HttpClient, Wanted
from diptych.crawl.web_address import WebAddress

FILES = {"a": b"a picture, so to say"}


class Names:
    """A name server: what each look-up of a name gives in turn."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self._names = {f"{name}.org": list(found) for name, found in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._names:
            raise socket.gaierror("no such name")
        found = self._names[host]
        return found.pop(0) if len(found) > 1 else found[0]


def get(urls: Sequence[str], names: Any = None, **options: Any) -> list[HttpAnswer | FetchError]:
    """What each address gives, one after the other."""

    async def run() -> list[HttpAnswer | FetchError]:
        outcomes: list[HttpAnswer | FetchError] = []
        async with HttpClient(Fetch(**options), resolve=names) as client:
            for url in urls:
                try:
                    outcomes.append(await client.get(WebAddress.read(url), Wanted(max_bytes=2_000_000)))
                except FetchError as failed:
                    outcomes.append(failed)
        return outcomes

    return asyncio.run(run())


def cause(outcome: HttpAnswer | FetchError) -> str:
    assert isinstance(outcome, FetchError)
    return outcome.cause


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"]])
def test_a_name_that_leads_to_this_network_is_not_connected_to(addresses):
    with serving(BadServer(FILES)) as server:
        assert (
            cause(get([f"http://inside.org:{server.port}/file/a"], Names(inside=[addresses]))[0]) == "private address"
        )
        assert server.asked == []


def test_a_name_that_answers_otherwise_the_second_time_gains_nothing():
    """It is looked up once; the connection goes to what was checked, which here is an address where nobody listens."""
    names = Names(turning=[["240.0.0.1"], ["127.0.0.1"]], other=[["127.0.0.1"]])
    with serving(BadServer(FILES)) as server:
        urls = [f"http://turning.org:{server.port}/file/a"] * 2
        options = {"seconds_connect": 0.2, "allow_hosts": (f"turning.org:{server.port}",)}
        assert {cause(outcome) for outcome in get(urls, names, **options)} <= {"timeout", "connect"}
        assert server.asked == []
    assert names.asked == ["turning.org"]


def test_the_connection_goes_to_the_address_that_was_checked_and_the_name_is_asked_for():
    with serving(BadServer(FILES)) as server:
        host = f"pictures.org:{server.port}"
        (answer,) = get([f"http://{host}/file/a"], Names(pictures=[["127.0.0.1"]]), allow_hosts=(host,))
        assert isinstance(answer, HttpAnswer)
        assert answer.body == FILES["a"]
        assert answer.header("content-length") == str(len(FILES["a"]))
        assert server.asked == ["pictures.org/file/a"]


def test_a_private_host_is_allowed_by_name_and_port_and_no_other():
    with serving(BadServer(FILES)) as server:
        urls = [f"http://{host}.org:{server.port}/file/a" for host in ("one", "two")]
        outcomes = get(
            urls, Names(one=[["127.0.0.1"]], two=[["127.0.0.1"]]), allow_hosts=("one.org", f"two.org:{server.port}")
        )
        assert cause(outcomes[0]) == "private address"
        assert isinstance(outcomes[1], HttpAnswer)


def test_a_name_is_looked_up_once_also_when_there_is_none():
    names = Names(pictures=[["10.0.0.1"]])
    urls = ["http://pictures.org/a", "http://nowhere.org/a"] * 3
    assert [cause(outcome) for outcome in get(urls, names)] == ["private address", "dns"] * 3
    assert names.asked == ["pictures.org", "nowhere.org"]


def test_a_slow_name_server_holds_up_only_its_own_names_and_not_the_end():
    """Two look-ups at once, one of which never ends: the others go through, each with its full time."""

    async def names(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60 if host == "slow.org" else 0.02)
        return ["10.0.0.1"]

    async def run() -> list[str]:
        async with HttpClient(Fetch(lookups=2, seconds_dns=1.0), resolve=names) as client:
            hosts = ["slow", *(f"quick{number}" for number in range(5))]
            asked = (client.get(WebAddress.read(f"http://{host}.org/"), Wanted(max_bytes=9)) for host in hosts)
            found = await asyncio.gather(*asked, return_exceptions=True)
            return [error.cause for error in found if isinstance(error, FetchError)]

    assert asyncio.run(run()) == ["dns"] + ["private address"] * 5


def test_our_own_queue_of_names_is_no_slow_name_server():
    """One look-up at a time, whose sum is longer than the time of each."""

    async def names(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(0.1)
        return ["10.0.0.1"]

    async def run() -> set[str]:
        async with HttpClient(Fetch(lookups=1, seconds_dns=0.7), resolve=names) as client:
            asked = (client.get(WebAddress.read(f"http://h{number}.org/"), Wanted(max_bytes=9)) for number in range(8))
            return {getattr(error, "cause", "") for error in await asyncio.gather(*asked, return_exceptions=True)}

    assert asyncio.run(run()) == {"private address"}


def test_a_look_up_that_hangs_in_the_system_is_not_waited_for(monkeypatch):
    free = threading.Event()

    def hangs(host: str, port: int) -> Sequence[str]:
        assert free.wait(60)
        return []

    monkeypatch.setattr("diptych.crawl.http_client.look_up", hangs)
    try:
        assert cause(get(["http://slow.org/"], seconds_dns=0.05)[0]) == "dns"  # and so it came to its end
    finally:
        free.set()


def test_the_times_are_told_apart():
    with serving(BadServer(FILES)) as server:
        allowed = {"allow_hosts": (f"127.0.0.1:{server.port}",)}
        here = f"http://127.0.0.1:{server.port}"
        (silent,) = get([f"{here}/silence"], seconds_silent=0.1, **allowed)
        (dripping,) = get([f"{here}/drip"], seconds_silent=5, seconds=0.3, **allowed)
        assert isinstance(silent, FetchError)
        assert isinstance(dripping, FetchError)
        assert (silent.cause, silent.value, silent.limit) == ("timeout", "seconds_silent", "0.1 s")
        assert (dripping.cause, dripping.value, dripping.limit) == ("timeout", "seconds", "0.3 s")


def test_a_file_of_rules_is_cut_and_not_refused():
    async def run(server: BadServer) -> HttpAnswer:
        async with HttpClient(Fetch(allow_hosts=(f"127.0.0.1:{server.port}",))) as client:
            address = WebAddress.read(f"http://127.0.0.1:{server.port}/endless")
            return await client.get(address, Wanted(max_bytes=100, cut=True))

    with serving(BadServer(FILES)) as server:
        assert asyncio.run(run(server)).body == b"x" * 100


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_certificate_of_nobody_is_refused_unless_that_is_wanted(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=60)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with serving(BadServer(FILES), tls=tls) as server:
        allowed = {"allow_hosts": (f"127.0.0.1:{server.port}",)}
        url = f"https://127.0.0.1:{server.port}/file/a"
        assert cause(get([url], **allowed)[0]) == "tls"
        (answer,) = get([url], check_certificates=False, **allowed)
        assert isinstance(answer, HttpAnswer)
        assert answer.body == FILES["a"]
        assert cause(get([url.replace("https", "http")], **allowed)[0]) in ("connect", "bad answer")
