"""Pictures behind addresses, asked for politely: few requests at once to a host, its rules first, redirects by hand.

How often a host is asked, and how often it may fail, holds for all parts that a process fetches at once (`Turns`); its
addresses and rules are kept for one part and no longer.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from diptych.crawl.fetch_causes import FAULTS_OF_HOST, TRIED_AGAIN, FetchError
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.http_client import Headers, HttpAnswer, HttpClient, Wanted
from diptych.crawl.robots import MOST_BYTES, Rules, opt_out_of
from diptych.crawl.web_address import WebAddress

_REDIRECTS = (301, 302, 303, 307, 308)
_PAUSES = ("http 429", "http 503")  # speak for the whole host
_UNREADABLE = ("truncated", "content encoding", "bad answer", "host gave up")  # of a robots.txt


@dataclass
class _Host:
    slots: asyncio.Semaphore
    users: int = 0
    failures: int = 0  # in a row
    not_before: float = 0.0  # by the loop's clock


class Turns:
    """Whose turn it is: so many requests at once in all, and so many to a host. For one event loop.

    Args:
        options: `connections`, `per_host`, `delay` and `max_host_failures`.
    """

    def __init__(self, options: Fetch) -> None:
        self._options = options
        self._all = asyncio.Semaphore(options.connections)
        self._hosts: dict[str, _Host] = {}

    @contextlib.asynccontextmanager
    async def turn(self, name: str, *, again: bool = False) -> AsyncIterator[None]:
        """Wait for a turn at a host. Who waits for one host takes no turn from another.

        Args:
            name: of the host.
            again: the request has failed before, which was counted then. Requests that are made again come together
                once all others are answered: counted, a few of them would shut out a host that answers the rest.

        Raises:
            FetchError: requests to the host have failed too often, also while this one waited.
        """
        host = self._hosts.setdefault(name, _Host(asyncio.Semaphore(self._options.per_host)))
        host.users += 1
        loop = asyncio.get_running_loop()
        try:
            async with host.slots:
                self._check(host)
                while (wait := host.not_before - loop.time()) > 0:
                    await asyncio.sleep(wait)
                    self._check(host)
                host.not_before = loop.time() + self._options.delay
                async with self._all:
                    try:
                        yield
                    except FetchError as failed:
                        self._blame(host, failed, again)
                        raise
                    host.failures = 0
        finally:
            host.users -= 1
            if not host.users:
                loop.call_later(max(0.0, host.not_before - loop.time()), self._forget, name)

    def _check(self, host: _Host) -> None:
        if host.failures >= self._options.max_host_failures:
            limit = f"{self._options.max_host_failures} in a row (max_host_failures)"
            raise FetchError("host gave up", limit=limit)

    def _blame(self, host: _Host, failed: FetchError, again: bool) -> None:
        if failed.cause not in FAULTS_OF_HOST:
            host.failures = 0
            return
        host.failures += not again
        if failed.wait is not None and failed.cause in _PAUSES:
            if failed.wait > self._options.max_wait:
                host.failures = self._options.max_host_failures
            wait = min(failed.wait, self._options.max_wait)
            host.not_before = max(host.not_before, asyncio.get_running_loop().time() + wait)

    def _forget(self, name: str) -> None:
        """A run sees millions of hosts; one that nobody waits for needs no room."""
        host = self._hosts.get(name)
        if host and not host.users and host.not_before <= asyncio.get_running_loop().time():
            del self._hosts[name]


@dataclass(frozen=True, kw_only=True)
class _Site:
    robots: Rules | FetchError = field(default_factory=Rules)
    reserved: Rules = field(default_factory=Rules)


class Crawler:
    """Fetches the files of one part, each with all that politeness asks for.

    Args:
        options: how often a request is made again, what is respected.
        client: makes the requests.
        turns: when each is made.
    """

    def __init__(self, options: Fetch, client: HttpClient, turns: Turns) -> None:
        self._options = options
        self._client = client
        self._turns = turns
        self._sites: dict[str, asyncio.Task[_Site]] = {}

    async def fetch(self, url: str) -> bytes:
        """The file behind an address.

        Raises:
            FetchError: it is not to be had, or not to be asked for.
        """
        address = WebAddress.read(url)
        wanted = Wanted(max_bytes=self._options.max_bytes, refuse=self._check_head)
        return (await self._follow(address, wanted, self._check_rules)).body

    async def _follow(
        self, address: WebAddress, wanted: Wanted, check: Callable[[WebAddress], Awaitable[None]] | None = None
    ) -> HttpAnswer:
        """Ask, and again where an answer leads, each time checked anew."""
        seen = {address}
        for _ in range(1 + self._options.redirects):
            if check:
                await check(address)
            answer = await self._ask(address, wanted)
            location = answer.header("location")
            if answer.status not in _REDIRECTS or not location:
                if answer.status != 200:
                    raise FetchError(f"http {answer.status}")
                return answer
            address = WebAddress.read(location, address)
            if address in seen:
                raise FetchError("redirect", "in a circle")
            seen.add(address)
        raise FetchError("redirect", "more", f"at most {self._options.redirects} (redirects)")

    async def _ask(self, address: WebAddress, wanted: Wanted) -> HttpAnswer:
        """One request, made again where its fault may pass."""
        for attempt in range(self._options.retries):
            try:
                return await self._ask_once(address, wanted, again=attempt > 0)
            except FetchError as failed:
                if failed.cause not in TRIED_AGAIN or (failed.wait or 0) > self._options.max_wait:
                    raise
                wait = min(self._options.back_off * 2**attempt * _spread(address.url), self._options.max_wait)
                wait = max(wait, failed.wait or 0)
            await asyncio.sleep(wait)
        return await self._ask_once(address, wanted, again=self._options.retries > 0)

    async def _ask_once(self, address: WebAddress, wanted: Wanted, *, again: bool) -> HttpAnswer:
        await self._client.locate(address)  # a slow name server holds no connection back
        async with self._turns.turn(address.host, again=again):
            answer = await self._client.get(address, wanted)
            if answer.status in (408, 425, 429) or answer.status >= 500:
                wait = _retry_after(answer)
                value = "" if wait is None else f"Retry-After {wait:.0f} s"
                raise FetchError(f"http {answer.status}", value, wait=wait)
            return answer

    async def _check_rules(self, address: WebAddress) -> None:
        if not self._options.respect_robots and not self._options.respect_opt_out:
            return
        if address.site not in self._sites:
            self._sites[address.site] = asyncio.create_task(self._rules_of(address))
        site = await asyncio.shield(self._sites[address.site])
        if isinstance(site.robots, FetchError):
            raise site.robots.bare()
        if not site.robots.allow(address.target):
            raise FetchError("robots", address.site)
        if not site.reserved.allow(address.target):
            raise FetchError("opt-out", "tdmrep.json")

    def _check_head(self, headers: Headers) -> None:
        if self._options.respect_opt_out and (said := opt_out_of(headers, self._options.agent)):
            raise FetchError("opt-out", said)

    async def _rules_of(self, address: WebAddress) -> _Site:
        robots = await self._robots(address) if self._options.respect_robots else Rules()
        if isinstance(robots, FetchError) or not self._options.respect_opt_out:
            return _Site(robots=robots)
        try:
            text = await self._text(address.at("/.well-known/tdmrep.json"))
        except FetchError:  # there is none, as nearly everywhere: nothing is reserved by it
            return _Site(robots=robots)
        return _Site(robots=robots, reserved=Rules.read_reservations(text))

    async def _robots(self, address: WebAddress) -> Rules | FetchError:
        """What robots.txt says: all is allowed where there is none, nothing where it cannot be read (RFC 9309, 2.3)."""
        try:
            return Rules.read_robots(await self._text(address.at("/robots.txt")), self._options.agent)
        except FetchError as failed:
            status = failed.cause.removeprefix("http ")
            if failed.cause == "redirect" or (status.isdigit() and int(status) < 500 and status != "429"):
                return Rules()
            if status.isdigit() or failed.cause in _UNREADABLE:
                return FetchError("robots unreachable", failed.cause)
            return FetchError(failed.cause, f"robots.txt: {failed.value}", failed.limit)

    async def _text(self, address: WebAddress) -> str:
        """A file of rules, which itself is under none."""
        return (await self._follow(address, Wanted(max_bytes=MOST_BYTES, cut=True))).body.decode("utf-8", "replace")


def _spread(url: str) -> float:
    """A factor from 0.5 to 1.5 by which rows that failed together come back apart, the same in each run."""
    return 0.5 + hashlib.blake2b(url.encode(), digest_size=1).digest()[0] / 256


def _retry_after(answer: HttpAnswer) -> float | None:
    """Seconds that a server wants us to wait; a date is taken from the server's own clock."""
    told = (answer.header("retry-after") or "").strip()
    if told.isdecimal() and told.isascii():
        return float(told[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        until, now = parsedate_to_datetime(told), parsedate_to_datetime(answer.header("date") or "")
        return max(0.0, (until - now).total_seconds())
    return None
