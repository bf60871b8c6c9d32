"""crawl/crawler.py: what is asked for, how often, and what a site's rules say to it."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bad_server import BadServer, serving
from diptych.addresses import Resolve
from diptych.crawl.crawler import Crawler, Turns, _retry_after
from diptych.crawl.fetch_causes import FetchError
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.http_client import HttpAnswer, HttpClient

FILES = {"a": b"a picture, so to say"}
ROBOTS, TDM = "/robots.txt", "/.well-known/tdmrep.json"


async def everywhere_here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def fetch(server: BadServer, urls: Sequence[str], *, resolve: Resolve = everywhere_here, **options: Any) -> list[str]:
    """For each `HOST/PATH`, its body or the cause."""

    async def run() -> list[str]:
        hosts = (f"*.org:{server.port}",)
        values = Fetch(**{"allow_hosts": hosts, "back_off": 0.001, "seconds_silent": 20.0, **options})
        async with HttpClient(values, resolve=resolve) as client:
            crawler = Crawler(values, client, Turns(values))
            full = (f"http://{host}:{server.port}/{path}" for host, _, path in (url.partition("/") for url in urls))
            found = await asyncio.gather(*map(crawler.fetch, full), return_exceptions=True)
            return [one.cause if isinstance(one, FetchError) else one.decode() for one in found]  # type: ignore

    return asyncio.run(run())


def with_rules(**sites: str | tuple[int, str]) -> Mapping[tuple[str, str], tuple[int, str]]:
    return {(f"{name}.org", ROBOTS): said if isinstance(said, tuple) else (200, said) for name, said in sites.items()}


A = FILES["a"].decode()
NO = "User-agent: *\nDisallow: /"


def test_robots_txt_is_asked_for_once_and_first_and_followed():
    with serving(BadServer(FILES, with_rules(no=NO, some="User-agent: diptych\nDisallow: /file/b"))) as server:
        urls = ["no.org/file/a", "some.org/file/a", "some.org/file/b", "some.org/file/a?x", "none.org/file/a"]
        assert fetch(server, urls) == ["robots", A, "robots", A, A]
        assert [server.asked.count(f"{host}.org{ROBOTS}") for host in ("no", "some", "none")] == [1, 1, 1]
        assert "no.org/file/a" not in server.asked
        some = [asked for asked in server.asked if asked.startswith("some")]
        assert some[0] == f"some.org{ROBOTS}"
        assert fetch(server, urls[:1], respect_robots=False) == [A]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(404, A), (403, A), (410, A), (302, A), (429, "robots unreachable"), (500, "robots unreachable")],
)
def test_without_robots_txt_all_is_allowed_and_with_one_that_cannot_be_read_nothing(status, outcome):
    with serving(BadServer(FILES, with_rules(site=(status, "")))) as server:
        assert fetch(server, ["site.org/file/a"], retries=0) == [outcome]


def test_a_site_that_cannot_be_reached_is_told_as_what_it_is():
    with serving(BadServer(FILES)) as server:
        port = server.port
    gone = BadServer(FILES, port=port)
    assert fetch(gone, ["site.org/file/a"], retries=0) == ["connect"]


def test_robots_txt_is_asked_for_again_where_that_may_help():
    class Once(dict):
        """An error the first time, rules from then on."""

        def get(self, key, default=None):
            if key == ("site.org", ROBOTS):
                return self.pop("first", (200, NO))
            return default

    sites = Once({("site.org", ROBOTS): (200, NO), "first": (503, "")})
    with serving(BadServer(FILES, sites)) as server:
        assert fetch(server, ["site.org/file/a"]) == ["robots"]


def test_a_redirect_is_checked_by_the_rules_of_where_it_leads():
    with serving(BadServer(FILES, with_rules(no=NO))) as server:
        there = f"/to/http:%2F%2F{{}}.org:{server.port}%2Ffile%2Fa"
        assert fetch(server, ["one.org" + there.format("no"), "one.org" + there.format("two")]) == ["robots", A]
        assert "no.org/file/a" not in server.asked


@pytest.mark.parametrize(("most", "outcome"), [(2, A), (1, "redirect")])
def test_redirects_are_followed_as_far_as_it_is_allowed(most, outcome):
    with serving(BadServer(FILES)) as server:
        assert fetch(server, ["one.org/to/%2Fto%2F%252Ffile%252Fa"], redirects=most) == [outcome]


def test_a_file_of_reservations_is_respected():
    said = '[{"location": "/file/", "tdm-reservation": 1}]'
    with serving(BadServer(FILES, {("site.org", TDM): (200, said)})) as server:
        assert fetch(server, ["site.org/file/a", "site.org/chunked/a"]) == ["opt-out", A]
        assert fetch(server, ["site.org/file/a"], respect_opt_out=False) == [A]
        before = len(server.asked)
        assert fetch(server, ["site.org/file/a"], respect_opt_out=False, respect_robots=False) == [A]
        assert server.asked[before:] == ["site.org/file/a"]


def test_a_header_that_opts_out_is_seen_before_the_body_and_only_if_that_is_respected():
    with serving(BadServer(FILES)) as server:
        url = "site.org/tag/X-Robots-Tag: noai/a"
        assert fetch(server, [url]) == ["opt-out"]
        assert fetch(server, [url], respect_opt_out=False) == [A]


def test_what_the_headers_of_an_error_page_say_is_no_word_on_the_picture():
    with serving(BadServer(FILES)) as server:
        assert fetch(server, ["site.org/status/404/noindex", "site.org/status/200/noindex"]) == ["http 404", "opt-out"]


def test_hosts_do_not_wait_for_each_other():
    """One host answers nothing; the rows of the other come, though there are fewer connections than rows."""
    with serving(BadServer(FILES)) as server:
        urls = [f"dead.org/silence?{number}" for number in range(8)] + ["good.org/file/a"]
        options = {"connections": 3, "per_host": 2, "retries": 0, "respect_robots": False, "respect_opt_out": False}
        found = fetch(server, urls, max_host_failures=4, seconds_silent=1.0, **options)
        assert found[-1] == A
        assert sorted(set(found[:-1])) == ["host gave up", "timeout"]


def test_no_host_is_remembered_that_nobody_waits_for():
    async def run() -> tuple[int, int]:
        turns = Turns(Fetch(delay=0.05))
        for number in range(5):
            async with turns.turn(f"h{number}.org"):
                pass
        while_they_rest = len(turns._hosts)
        await asyncio.sleep(0.2)
        return while_they_rest, len(turns._hosts)

    assert asyncio.run(run()) == (5, 0)


def test_between_two_requests_to_a_host_is_the_delay():
    """By the loop's clock, which is the one that is waited by."""

    async def run() -> list[float]:
        turns, begun = Turns(Fetch(delay=0.05, per_host=4)), []

        async def one(host: str) -> None:
            async with turns.turn(host):
                begun.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(one("a.org") for _ in range(4)))
        return begun

    begun = asyncio.run(run())
    assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(begun))


def test_a_name_that_is_being_looked_up_takes_no_connection():
    """There is one, and the name is found when the other host has been asked."""
    with serving(BadServer(FILES)) as server:

        async def resolve(host: str, port: int) -> Sequence[str]:
            while host == "slow.org" and "good.org/file/a" not in server.asked:
                await asyncio.sleep(0.01)
            return ["127.0.0.1"]

        urls = ["slow.org/file/a", "good.org/file/a"]
        assert fetch(server, urls, resolve=resolve, connections=1, seconds_dns=20.0) == [A, A]


def test_a_success_in_between_forgives_a_host_its_faults():
    with serving(BadServer(FILES)) as server:
        urls = [f"site.org/{path}?{number}" for number in range(6) for path in ("always/500", "file/a")]
        found = fetch(server, urls, retries=0, per_host=1, max_host_failures=2)
        assert found == ["http 500", A] * 6


def test_a_request_that_is_made_again_counts_once_against_its_host():
    """Such requests come together once all others are answered, and would shut out a host that answers the rest."""
    with serving(BadServer(FILES)) as server:
        urls = [f"site.org/always/500?{number}" for number in range(6)]
        assert fetch(server, urls, retries=3, per_host=1, max_host_failures=8) == ["http 500"] * 6


def test_a_pause_that_a_server_asks_for_is_kept_by_all_rows_of_its_host(monkeypatch):
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0.001)

    monkeypatch.setattr("diptych.crawl.crawler.asyncio.sleep", noted)

    with serving(BadServer(FILES)) as server:
        options = {"retries": 1, "per_host": 1, "respect_robots": False, "respect_opt_out": False, "max_wait": 9.0}
        assert fetch(server, ["site.org/always/503/1"], **options) == ["http 503"]
    assert max(waits) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "soon", "Date": "never"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_wants_us_to_wait(headers, seconds):
    assert _retry_after(HttpAnswer(status=429, headers=list(headers.items()))) == seconds
