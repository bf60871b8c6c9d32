"""Writes a crawl as WARC files of pages whose picture tags are known, and the files behind them.

Each tag is noted in `tags.parquet`: what it is an example of, the key that it must get, for what cause it must fall
when pages are read, and whether it shows an evaluation picture. The same arguments write the same bytes, with the same
Pillow and the same package `emoji`, which names emoji in ten languages; without it all sites are English.
"""

import gzip
import html
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import made_crawl_pictures as drawn
from diptych.rows.columns import pair_key
from made_crawl_texts import Texts, names_in_languages

TAGS_OF_A_PAGE = 3  # of what it is about, on average; logos, buttons, pixels and banners come beside them
FILES, PAGES_OF_A_SITE = 8, 100
PHOTOGRAPHS, HIDDEN = 6_000, 400  # different ones; evaluation pictures that are hidden
SHARES = {  # of the tags that a page is about
    "clean": 0.28,
    "in noise": 0.06,  # the right name among other words
    "wrong": 0.10,  # the name of another picture
    "file name": 0.12,
    "words of a site": 0.08,  # "click here"
    "unrelated": 0.20,  # photographs with texts on people, places and goods
    "loaded late": 0.02,
    "redirected": 0.01,
    "copy in noscript": 0.01,
    "gone": 0.025,  # http 404
    "broken": 0.008,  # http 500
    "page for a picture": 0.008,
    "cut short": 0.004,
    "no bytes": 0.002,
    "silent": 0.001,
    "forbidden by robots.txt": 0.01,
    "opts out by header": 0.01,
    "empty alt": 0.02,
    "no alt": 0.01,
    "data URL": 0.008,
    "not http": 0.002,
    "evaluation picture": 0.012,
}
HIDDEN_WRONG = 0.3  # of evaluation pictures: with the name of another one
OTHER_LANGUAGE = 0.15  # of sites
OPTS_OUT = 0.03  # of pages
NO_PAGES = 0.02  # records beside the pages that are none, or cannot be read
_CHANGES = list(drawn.CHANGES)
_TRUE = ("clean", "loaded late", "redirected", "copy in noscript", "gone", "broken", "page for a picture", "cut short",
         "no bytes", "silent", "forbidden by robots.txt", "opts out by header", "data URL", "not http")  # fmt: skip
_ANSWERS = {
    "broken": {"status": 500},
    "page for a picture": {"type": "text/html", "page": True},
    "cut short": {"cut": True},
    "no bytes": {"length": 0},
    "silent": {"silent": True},
    "opts out by header": {"headers": ["X-Robots-Tag: noai"]},
}


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A picture tag as it was written."""

    kind: str
    key: str
    fault: str  # for which it must fall when the page is read; empty where it must not
    subject: str  # key of the drawing that is shown
    named: bool  # the text names what is shown
    change: str  # of an evaluation picture


def write_crawl(folder: Path, *, pages: int, seed: int, port: int, data: Path | None) -> None:
    """Write it, unless it is there.

    Args:
        folder: for crawl/*.warc.gz, tags.parquet, pictures.bin and .json, and crawl.json, which is written last.
        pages: how many.
        seed: of all chance.
        port: of the server of pictures.
        data: folder of the shared sets, for photographs; None draws patches.
    """
    asked = {"pages": pages, "seed": seed, "port": port, "data": str(data)}
    done = folder / "crawl.json"
    if done.exists() and json.loads(done.read_text())["asked"] == asked:
        return
    (folder / "crawl").mkdir(parents=True, exist_ok=True)
    crawl = _Crawl(folder, seed, port, data, pages)
    each = -(-pages // FILES)
    for number in range(FILES):
        crawl.write_file(number, range(number * each, min((number + 1) * each, pages)))
    crawl.pictures.close()
    columns = {name: [getattr(tag, name) for tag in crawl.tags] for name in Tag.__dataclass_fields__}
    pq.write_table(pa.table(columns), folder / "tags.parquet")
    counts = {"tags": len(crawl.tags), "kinds": dict(Counter(tag.kind for tag in crawl.tags).most_common())}
    counts |= {"pages": dict(crawl.pages), "hidden": crawl.hidden, "languages": crawl.languages}
    done.write_text(json.dumps({"asked": asked, **counts}, indent=1))


class _Crawl:
    """What is written so far."""

    def __init__(self, folder: Path, seed: int, port: int, data: Path | None, pages: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.pictures = drawn.Pictures(folder, port, seed)
        self.tags: list[Tag] = []
        self.pages: Counter[str] = Counter()
        names = names_in_languages()
        self.languages = ["en", *names]
        self._texts = Texts(self.draw, names)
        self._folder, self._seed, self._port = folder, seed, port
        self._shown = drawn.training_pictures()
        self.draw.shuffle(self._shown)  # pyright: ignore[reportArgumentType]
        wanted = pages * TAGS_OF_A_PAGE * SHARES["unrelated"]
        self._photos = drawn.photographs(data, min(PHOTOGRAPHS, int(wanted) + 1), seed)
        held_out = drawn.evaluation_pictures()
        chosen = self.draw.permutation(len(held_out))[: max(1, min(HIDDEN, pages // 50))]
        self._hidden = [held_out[i] for i in chosen.tolist()]
        self._next = self._next_hidden = 0
        self.hidden = len(self._hidden)

    def write_file(self, number: int, pages: range) -> None:
        path = self._folder / "crawl" / f"CC-MADE-{number:05}.warc.gz"
        with path.open("wb") as file:
            file.write(
                _record("warcinfo", f"{path.name}", b"software: made by a benchmark\r\n", "application/warc-fields")
            )
            for page in pages:
                if self.draw.random() < NO_PAGES:
                    file.write(self._no_page(page))
                file.write(self._page(page))

    def _no_page(self, page: int) -> bytes:
        kind = self._texts.one_of(("status 404", "not HTML", "status 301"))
        self.pages[f"page: {kind}"] += 1
        status = kind.removeprefix("status ") if kind.startswith("status") else "200"
        media = "application/pdf" if kind == "not HTML" else "text/html"
        body = b'<p><img src="/never.png" alt="never to be read"></p>'
        return _response(f"http://{_host(0)}:{self._port}/no/{page}", status, body, [f"Content-Type: {media}"])

    def _page(self, number: int) -> bytes:
        """A page with its tags, which are noted."""
        self.pages["read"] += 1
        site = number // PAGES_OF_A_SITE
        abroad = np.random.default_rng((self._seed, site)).random(2)
        others = self.languages[1:]
        language = others[int(abroad[1] * len(others))] if others and abroad[0] < OTHER_LANGUAGE else "en"
        address = f"http://{_host(site)}:{self._port}/site-{site}/page-{number}.html"
        opt_out, headers = "", ["Content-Type: text/html; charset=utf-8"]
        meta = ""
        if self.draw.random() < OPTS_OUT:
            if self.draw.random() < 0.5:
                opt_out, meta = "noai", '<meta name="robots" content="noai">'
            else:
                opt_out, headers = "tdm-reservation", [*headers, "TDM-Reservation: 1"]
        body = [self._frame(site, address, opt_out)]
        count = int(self.draw.poisson(TAGS_OF_A_PAGE))
        body += [f"<p>{self._content(language, address, opt_out)}</p>" for _ in range(count)]
        page = f'<!doctype html><html lang="{language}"><head><title>Page {number}</title>{meta}</head><body>'
        return _response(address, "200", (page + "\n".join(body) + "</body></html>").encode(), headers)

    def _frame(self, site: int, address: str, opt_out: str) -> str:
        """What all pages of a site have."""
        pictures, texts = self.pictures, self._texts
        logo = pictures.fixed(f"/site-{site}/logo.png", drawn.site_logo(site), "image/png")
        said = texts.one_of((f"site {site}", "logo", f"welcome to site {site}"))
        buttons = [pictures.fixed(f"/{letter}.png", drawn.small_icon(letter), "image/png") for letter in "fq"]
        pixel = pictures.fixed("/pixel.png", drawn.plain(1), "image/png")
        spacer = pictures.fixed("/spacer.png", drawn.plain(8), "image/png")
        parts = [
            self._tag("logo", logo, said, address, opt_out),
            self._tag("button", buttons[0], "Facebook", address, opt_out),
            self._tag("button", buttons[1], "search icon", address, opt_out),
            self._tag("tracking pixel", pixel, "", address, opt_out),
        ]
        if self.draw.random() < 0.3:
            number = int(self.draw.integers(40))
            url = pictures.fixed(f"/banner/{number}.jpg", drawn.banner(number), "image/jpeg")
            parts.append(self._tag("banner", url, f"{texts.chat()} banner", address, opt_out))
        if self.draw.random() < 0.2:
            parts.append(self._tag("spacer", spacer, None, address, opt_out))
        return "".join(parts)

    def _content(self, language: str, address: str, opt_out: str) -> str:
        """One tag of what the page is about."""
        kind = list(SHARES)[int(np.searchsorted(np.cumsum(list(SHARES.values())), self.draw.random()))]
        if kind == "evaluation picture":
            return self._evaluation(address, opt_out)
        if kind == "unrelated":
            photo = self._photos[int(self.draw.integers(len(self._photos)))]
            url = self.pictures.url(photo, int(self.draw.integers(2)))
            return self._tag(kind, url, self._texts.chat(), address, opt_out)
        picture, variant = self._picked()
        named, text = self._told(kind, picture.caption, language)
        kind = "other language" if kind == "clean" and text is not None and named and self._abroad else kind
        told = dict(_ANSWERS.get(kind, {}))
        folder = "private" if kind.startswith("forbidden") else "gone" if kind == "gone" else "p"
        if folder == "p" and not told and self.draw.random() < 0.1:
            folder = "q"  # the same bytes at another address
        url = self.pictures.url(picture, variant, folder=folder, **told)
        if kind == "gone":
            url = url.replace("/gone/", f"/gone/{int(self.draw.integers(10**9))}-")
        elif kind == "redirected":
            url = self.pictures.fixed(f"/to/{variant}/{picture.key}", b"", "text/html", status=302,
                                      headers=[f"Location: {url}"])  # fmt: skip
        elif kind == "not http":
            url = f"ftp://files.example/{variant}/{picture.key}"
        elif kind == "data URL":
            url = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
        return self._tag(kind, url, text, address, opt_out, subject=picture.key, named=named)

    def _picked(self) -> tuple[drawn.Picture, int]:
        """A picture: by turns one that was not shown, plain, and one of the popular, in one of many copies."""
        if self.draw.random() < 0.6:
            self._next += 1
            return self._shown[self._next % len(self._shown)], 0
        rank = int(self.draw.zipf(1.1)) - 1
        return self._shown[rank % len(self._shown)], int(self.draw.integers(8))

    def _told(self, kind: str, caption: str, language: str) -> tuple[bool, str | None]:
        """Whether a text names what is shown, and the text."""
        texts = self._texts
        translated = texts.in_language(caption, language) if language != "en" else None
        self._abroad = translated is not None
        if kind in _TRUE:
            return True, translated or texts.true(caption)
        if kind == "in noise":
            return True, texts.seo(translated or caption)
        if kind == "wrong":
            return False, texts.true(self._shown[int(self.draw.integers(len(self._shown)))].caption)
        if kind == "file name":
            return False, texts.file_name()
        if kind == "words of a site":
            return False, texts.site(language)
        return False, "" if kind == "empty alt" else None

    def _evaluation(self, address: str, opt_out: str) -> str:
        picture = self._hidden[self._next_hidden % len(self._hidden)]
        change = _CHANGES[self._next_hidden % len(_CHANGES)]
        self._next_hidden += 1
        named = self.draw.random() >= HIDDEN_WRONG
        other = self._shown[int(self.draw.integers(len(self._shown)))]
        text = self._texts.true((picture if named else other).caption)
        url = self.pictures.url(picture, 0, change=change)
        return self._tag(
            "evaluation picture", url, text, address, opt_out, subject=picture.key, named=named, change=change
        )

    def _tag(
        self,
        kind: str,
        url: str,
        alt: str | None,
        page: str,
        opt_out: str,
        *,
        subject: str = "",
        named: bool = False,
        change: str = "",
    ) -> str:
        """Note a tag; returns its HTML."""
        text = " ".join((alt or "").split())
        fault = {"data URL": "data URL", "not http": "not http"}.get(kind, "")
        keyed = "" if fault else url
        if not fault and not text:
            fault = "no alt text" if alt is None else "empty alt text"
        if not fault and opt_out:
            fault = f"page opts out: {opt_out}"
        note = Tag(
            kind=kind, key=pair_key(keyed or page, text), fault=fault, subject=subject, named=named, change=change
        )
        self.tags.append(note)
        words = "" if alt is None else f' alt="{html.escape(alt)}"'
        if kind == "loaded late":
            return f'<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" data-src="{url}"{words}>'
        if kind == "copy in noscript":
            copy = asdict(note) | ({} if not text else {"fault": "noscript copy"})  # before the page's own faults
            self.tags.append(Tag(**copy))
            return f'<img src="{url}"{words}><noscript><img src="{url}"{words}></noscript>'
        return f'<img src="{url}"{words}>'


def _host(number: int) -> str:
    return drawn.HOSTS[number % len(drawn.HOSTS)]


def _response(address: str, status: str, body: bytes, headers: list[str]) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(body)}", "", ""]).encode()
    return _record("response", address, head + body, "application/http; msgtype=response")


def _record(kind: str, address: str, content: bytes, media: str) -> bytes:
    head = [
        "WARC/1.0", f"WARC-Type: {kind}", f"WARC-Target-URI: {address}", "WARC-Date: 2026-11-29T00:00:00Z",
        "WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-000000000000>", f"Content-Type: {media}",
        f"Content-Length: {len(content)}", "", "",
    ]  # fmt: skip
    return gzip.compress("\r\n".join(head).encode() + content + b"\r\n\r\n", mtime=0)
