"""Archives of the web: the pages of WARC files, and what Common Crawl's WAT files tell of them. [extra: curate]

Each picture tag is a row that is kept or dropped. A page that cannot be read has a row of the ledger, too: its cause
begins with "page: ", and its key is that of its address and no text. What ends before its time has one that begins with
"file: ". All other causes are of tags, so that tags read = kept + dropped, causes with "page: " and "file: " left out.

A WAT file lists of each page what a parser found: addresses and alt texts of `<img src>`, meta tags, the language of
`<html>`, licence links, headers. It knows no `srcset` and no `data-src`: of a picture that is loaded late it has the
placeholder, or nothing. Nor does it know declared sizes, captions of figures, `<noscript>`, `<template>`, or which
picture a licence stands beside. So its rows are fewer and partly other ones than those of its WARC file.
"""

import functools
import json
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from diptych.crawl.collected import Collected, as_text
from diptych.crawl.page_text import body_of, utf8_of
from diptych.crawl.picture_tags import (
    PageFacts,
    PageRules,
    Tag,
    collect,
    missing_text,
    opt_out_of,
    read_address,
    read_page,
    rights_of,
)
from diptych.errors import DataError, missing_extra

_HTML = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta)\b", re.IGNORECASE)
_TOP = 1024  # bytes in which a page without a type must look like one


def read_warc(file: BinaryIO, name: str, collected: Collected, rules: PageRules) -> None:
    """Collect the picture tags of all pages of a WARC file, compressed or not, as a stream.

    Pages are records of type `response` or `resource`; requests, metadata and the like are passed over.

    Args:
        file: open for reading; need not seek.
        name: of the file, for the ledger.
        collected: where the rows go.
        rules: how pages are read.

    Raises:
        DataError: the file can no longer be read; what only ends early or is damaged is counted.
        MissingExtraError: fastwarc or selectolax is not installed.
    """
    for record, kind in _records(file, name, collected, ("response", "resource", "revisit")):
        address = (record.headers.get("WARC-Target-URI") or "").strip("<>")
        try:
            content, headers, content_type = _page(record, kind, rules)
        except DataError as error:
            collected.drop(address, "", f"page: {error}")
            continue
        read_page(utf8_of(content, content_type), address, headers, collected, rules)


def read_wat(file: BinaryIO, name: str, collected: Collected, rules: PageRules) -> None:
    """Collect the picture tags that a WAT file lists, as a stream; see the top of this file for what it cannot know.

    Args:
        file: as for `read_warc`, and so on.
        name: likewise.
        collected: likewise.
        rules: likewise; of the texts it has `alt` and `title`.

    Raises:
        DataError: the file can no longer be read.
        MissingExtraError: fastwarc is not installed.
    """
    for record, _ in _records(file, name, collected, ("metadata",)):
        address = record.headers.get("WARC-Target-URI") or ""
        if "json" not in (record.headers.get("Content-Type") or "json"):
            continue
        try:
            envelope = _table(_table(json.loads(_content(record))).get("Envelope"))
        except DataError as error:
            collected.drop(address, "", f"page: {error}")
            continue
        except (ValueError, RecursionError):
            collected.drop(address, "", "page: metadata unreadable")
            continue
        about = _table(envelope.get("WARC-Header-Metadata"))
        if about.get("WARC-Type") in ("response", "resource"):
            answer = _table(_table(envelope.get("Payload-Metadata")).get("HTTP-Response-Metadata"))
            _read_listed(answer, _text(about, "WARC-Target-URI") or address, collected, rules)


def _page(record: Any, kind: str, rules: PageRules) -> tuple[bytes, Sequence[tuple[str, str]], str]:
    """Content, headers and type of a page.

    Raises:
        DataError: it is none, or cannot be read; the message is the cause.
    """
    if kind == "revisit":
        raise DataError("seen before")
    headers, content_type, status = list[tuple[str, str]](), record.headers.get("Content-Type") or "", 200
    if kind == "response":
        try:
            record.parse_http()
            headers = [(key.lower(), value) for key, value in record.http_headers.to_tuples()]
            status = record.http_headers.status_code
        except (OSError, ValueError, AttributeError):  # it has none where nothing could be parsed
            status = None
        if status is None:
            raise DataError("HTTP headers unreadable")
        content_type = next((value for key, value in headers if key == "content-type"), "")
    if status != 200:
        raise DataError(f"status {status}")
    told = content_type.partition(";")[0].strip().lower()
    if told and told not in _HTML:
        raise DataError("not HTML")
    if record.content_length > rules.largest:
        raise DataError("too large")
    content = body_of(_content(record), headers, rules.largest)
    if len(content) > rules.largest:
        raise DataError("too large")
    if not told and not _LOOKS_LIKE_HTML.search(content, 0, _TOP):
        raise DataError("not HTML")
    return content, headers, content_type


def _content(record: Any) -> bytes:
    """What a record holds.

    Raises:
        DataError: not all of it can be read; the message is the cause.
    """
    try:
        content = record.reader.read()
    except Exception as error:  # damage; where the file itself failed, `_records` says so
        raise DataError("record damaged") from error
    if len(content) < record.content_length:
        raise DataError("record cut short")
    return content


def _read_listed(answer: Mapping[str, Any], address: str, collected: Collected, rules: PageRules) -> None:
    """Collect what a WAT file lists of one page."""
    status = str(_table(answer.get("Response-Message")).get("Status", "200"))
    html = answer.get("HTML-Metadata")
    if status != "200" or not isinstance(html, dict):
        collected.drop(address, "", f"page: status {status}" if status != "200" else "page: not HTML")
        return
    head = _table(html.get("Head"))
    headers = [
        (key.lower(), value)
        for key, values in _table(answer.get("Headers")).items()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, str)
    ]
    metas = [
        ((_text(meta, "name") or _text(meta, "http-equiv") or _text(meta, "property")).strip().lower(), content)
        for meta in _tables(head.get("Metas"))
        if (content := _text(meta, "content"))
    ]
    languages = [content for name, content in metas if name in ("html@/lang", "html@/xml:lang")]
    languages += [content for name, content in (*metas, *headers) if name == "content-language"]
    links = list(_tables(html.get("Links")))
    facts = PageFacts(
        address,
        base=_text(head, "Base"),
        language=languages,
        opt_out=opt_out_of(rules.opt_outs, metas, headers),
        licence=rights_of(metas),
    )
    marks = (_text(link, "url") for link in (*_tables(head.get("Link")), *links) if _is_licence(link))
    facts.licence = facts.licence or next(map(facts.resolve, filter(None, marks)), None)
    for link in links:
        if link.get("path") == "IMG@/src":
            url, fault = read_address([_text(link, "url")], facts)
            text = as_text(_text(link, name) for name in rules.texts)
            if not fault and not text:
                fault = missing_text(rules.texts, has_alt="alt" in link)
            collect(Tag(url, text, fault), facts, collected)


def _is_licence(link: Mapping[str, Any]) -> bool:
    return "license" in _text(link, "rel").lower().split()


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    return value if isinstance(value, str) else ""


class _Stream:
    """A file as fastwarc reads it; tells damage within from a file that can no longer be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self.fault: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            content = self._file.read(size)
        except Exception as error:  # each file system raises its own
            self.fault = error
            raise
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position


def _records(file: BinaryIO, name: str, collected: Collected, kinds: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Records of some types, each with its type; where a file ends early or is damaged, the ledger says so."""
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError:
        raise missing_extra(f"reading {name}", "curate") from None
    types = [getattr(WarcRecordType, kind) for kind in kinds]
    stream: Any = _Stream(file)
    count = start = 0
    try:
        for record in ArchiveIterator(stream, record_types=functools.reduce(operator.or_, types), parse_http=False):
            start = record.stream_pos
            if record.headers.get("Content-Length") is None:
                collected.drop(name, "", "file: cut short", f"after {count:,} records, in that at byte {start:,}")
                return
            yield record, kinds[types.index(record.record_type)]
            if stream.fault is not None:  # while the record was read
                raise stream.fault
            count += 1
    except Exception as error:
        if stream.fault is not None:
            raise DataError(f"{name} cannot be read after {count:,} records: {_words(error)}. Try again.") from error
        if not isinstance(error, OSError | ValueError):
            raise
        place = f"after {count:,} records, behind that at byte {start:,}: {_words(error)}"
        collected.drop(name, "", "file: damaged", place)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
