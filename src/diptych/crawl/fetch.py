"""The stage "fetch": rows get their pictures, from the network or from the source that holds them.

What a run gets depends on the network; the order of rows and of the ledger is that of the input, whatever comes first.
"""

import asyncio
import contextlib
import functools
import hashlib
import importlib.util
import io
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
from PIL import Image

from diptych.crawl.fetch_causes import FetchError
from diptych.crawl.fetch_options import Fetch
from diptych.data.decoding import decode, read_header
from diptych.errors import ImageError, ShardError, missing_extra
from diptych.rows.columns import PICTURE
from diptych.rows.stage import DROPPED, Judged, Whole

if TYPE_CHECKING:
    from diptych.crawl.crawler import Turns
    from diptych.pairs.sources import Pairs, Source


_MADE_AT_ONCE = min(8, os.cpu_count() or 1)  # pictures, each of which is decoded whole


@dataclass(frozen=True, kw_only=True)
class FetchedPicture:
    """The bytes that a row gets."""

    data: bytes
    sha256: str
    fetched_sha256: str  # of what came, where `data` was made anew from it


Fetched = Mapping[str, FetchedPicture | FetchError]  # by address


@dataclass(frozen=True, kw_only=True)
class FetchPictures:
    """Rows with `url` are fetched, rows with `place` read from their source; kept rows gain `sha256` and `picture`."""

    name: ClassVar[str] = "fetch"
    waits: ClassVar[bool] = True  # for others: threads of one process judge its parts, so that limits hold for all

    options: Fetch = field(default_factory=Fetch)
    sources: "tuple[Source | None, ...]" = ()  # by the rows' number; None where a source holds no pictures

    @property
    def part_rows(self) -> int:
        return self.options.part_rows

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        """Fetch the pictures of one part."""
        del whole
        columns = [rows[name].to_pylist() for name in ("url", "place", "source", "listed_sha256")]
        wanted = list(zip(*columns, strict=True))
        pages = dict.fromkeys(url for url, *_ in wanted if url is not None)
        fetched = self._fetch_all(list(pages)) if pages else {}
        outcomes = [
            self._as_listed(fetched[url] if url is not None else self._read(source, place), listed)
            for url, place, source, listed in wanted
        ]
        return _judged(rows, outcomes)

    def _as_listed(self, outcome: FetchedPicture | FetchError, listed: str | None) -> FetchedPicture | FetchError:
        if isinstance(outcome, FetchError) or not listed or self.options.keep_other_bytes:
            return outcome
        if outcome.fetched_sha256 != listed.strip().lower():
            return FetchError("other bytes", outcome.fetched_sha256, listed)
        return outcome

    def _read(self, source: int, place: int) -> FetchedPicture | FetchError:
        held = self.sources[source] if source < len(self.sources) else None
        if held is None or place is None:
            return FetchError("bad address", "neither url nor place")
        try:
            data = _opened(held)[place].picture
            if not data:
                return FetchError("empty", "no picture")
            return self._picture(data)
        except (ImageError, ShardError) as error:
            return FetchError(error.cause, str(error)[:200])

    def _fetch_all(self, urls: Sequence[str]) -> Fetched:
        if importlib.util.find_spec("aiohttp") is None:
            raise missing_extra("fetching pictures", "curate")
        with _network(self.options) as network:
            work = asyncio.run_coroutine_threadsafe(self._fetch_part(urls, network), network.loop)
            try:
                return work.result()
            except BaseException:  # Ctrl-C reaches this thread and not the one that fetches
                work.cancel()
                raise

    async def _fetch_part(self, urls: Sequence[str], network: "_Network") -> Fetched:
        from diptych.crawl.crawler import Crawler, Turns  # aiohttp is loaded where something is fetched
        from diptych.crawl.http_client import HttpClient

        network.turns = network.turns or Turns(self.options)
        async with HttpClient(self.options) as client:
            crawler = Crawler(self.options, client, network.turns)

            async def one(url: str) -> FetchedPicture | FetchError:
                try:
                    data = await crawler.fetch(url)
                    if not self.options.reencode:
                        return self._picture(data)
                    async with network.making:
                        return await asyncio.to_thread(self._picture, data)
                except FetchError as failed:
                    return failed.bare()
                except ImageError as error:
                    return FetchError(error.cause, str(error)[:200])

            return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))

    def _picture(self, data: bytes) -> FetchedPicture:
        header = read_header(data, "the picture")
        digest = hashlib.sha256(data).hexdigest()
        if self.options.reencode == "all" or (self.options.reencode == "sideways" and header.orientation > 1):
            data = _made_anew(data, self.options)
            return FetchedPicture(data=data, sha256=hashlib.sha256(data).hexdigest(), fetched_sha256=digest)
        return FetchedPicture(data=data, sha256=digest, fetched_sha256=digest)


@dataclass(frozen=True, kw_only=True)
class HostSummary:
    """What became of the pictures of one host."""

    host: str
    asked: int
    fetched: int
    causes: dict[str, int]  # of the others, the most frequent first


@dataclass(frozen=True, kw_only=True)
class FetchSummary:
    """What became of the pictures of a run."""

    asked: int
    fetched: int
    causes: dict[str, int]  # of the others, the most frequent first
    hosts: tuple[HostSummary, ...]  # those that lost most


def summary(parts: Iterable[tuple[pa.Table, pa.Table]], *, hosts: int = 20) -> FetchSummary:
    """Success by cause and by host.

    Args:
        parts: of each part the rows that came into the stage and those of the ledger that it dropped.
        hosts: how many are told, those that lost most first. Pictures of sources that hold them are under "".
    """
    asked: Counter[str] = Counter()
    lost: dict[str, Counter[str]] = {}
    for rows, gone in parts:
        causes = dict(zip(gone["key"].to_pylist(), gone["cause"].to_pylist(), strict=True))
        for key, url in zip(rows["key"].to_pylist(), rows["url"].to_pylist(), strict=True):
            host = _host(url)
            asked[host] += 1
            if key in causes:
                lost.setdefault(host, Counter())[causes[key]] += 1
    ranked = sorted(lost, key=lambda host: (-lost[host].total(), host))[:hosts]
    causes = sum(lost.values(), Counter())
    return FetchSummary(
        asked=asked.total(),
        fetched=asked.total() - causes.total(),
        causes=_ranked(causes),
        hosts=tuple(
            HostSummary(
                host=host, asked=asked[host], fetched=asked[host] - lost[host].total(), causes=_ranked(lost[host])
            )
            for host in ranked
        ),
    )


def _ranked(causes: Counter[str]) -> dict[str, int]:
    return dict(sorted(causes.items(), key=lambda item: (-item[1], item[0])))


def _host(url: str | None) -> str:
    try:
        return (urlsplit((url or "").strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _judged(rows: pa.Table, outcomes: Sequence[FetchedPicture | FetchError]) -> Judged:
    there = [isinstance(outcome, FetchedPicture) for outcome in outcomes]
    pictures = [outcome for outcome in outcomes if isinstance(outcome, FetchedPicture)]
    kept = rows.filter(pa.array(there, pa.bool_()))
    kept = kept.append_column("sha256", pa.array([picture.sha256 for picture in pictures], pa.string()))
    kept = kept.append_column(PICTURE, pa.array([picture.data for picture in pictures], pa.binary()))
    failed = [
        {"key": key, "cause": outcome.cause, "value": outcome.value or None, "limit": outcome.limit}
        for key, outcome in zip(rows["key"].to_pylist(), outcomes, strict=True)
        if isinstance(outcome, FetchError)
    ]
    return Judged(kept=kept, dropped=pa.Table.from_pylist(failed, schema=DROPPED))


def _made_anew(data: bytes, options: Fetch) -> bytes:
    """A picture encoded again: upright, in sRGB, at most as large as asked for."""
    image = decode(io.BytesIO(data), "the picture", options.max_pixels)
    side = options.longest_side
    if side and max(image.size) > side:
        scale = side / max(image.size)
        size = tuple(max(1, round(length * scale)) for length in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=3.0)
    out = io.BytesIO()
    extra: dict[str, Any] = {} if options.format == "png" else {"quality": options.quality}
    image.save(out, options.format.upper(), **extra)
    return out.getvalue()


@functools.lru_cache(maxsize=8)
def _opened(source: "Source") -> "Pairs":
    from diptych.pairs.sources import open_pairs  # and torch with it, where a source holds pictures

    return open_pairs(source)


class _Network:
    """An event loop on a thread of its own, which all parts share that are under way in this process."""

    def __init__(self) -> None:
        self.users = 0
        self.making = asyncio.Semaphore(_MADE_AT_ONCE)
        self.turns: Turns | None = None  # made on the loop by the first part
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="fetch", daemon=True)
        self._thread.start()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.loop.shutdown_default_executor()

    def close(self) -> None:
        """Throw away what is under way: of a part that was cancelled, and look-ups that nobody waits for."""
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_LOCK = threading.Lock()
_NETWORKS: dict[Fetch, _Network] = {}  # while they are used


@contextlib.contextmanager
def _network(options: Fetch) -> Iterator[_Network]:
    """The network of all parts with these options, so that their limits are those of the process."""
    with _LOCK:
        network = _NETWORKS.get(options) or _NETWORKS.setdefault(options, _Network())
        network.users += 1
    try:
        yield network
    finally:
        with _LOCK:
            network.users -= 1
            last = not network.users
            if last:
                del _NETWORKS[options]
        if last:
            network.close()
