"""Archives of the web that tests write, with warcio, and what comes of reading them."""

import io
import json
from collections.abc import Sequence
from typing import Any

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

HTML = (("Content-Type", "text/html; charset=utf-8"),)
PAGE = "https://site.example/blog/page.html"


def answer(body: str | bytes, *headers: tuple[str, str], url: str = PAGE, status: str = "200 OK") -> tuple[Any, ...]:
    """One page of an archive: its address, status, headers and body."""
    told = headers if any(name == "Content-Type" for name, _ in headers) else (*HTML, *headers)
    return url, status, list(told), body.encode() if isinstance(body, str) else body


def warc(answers: Sequence[tuple[Any, ...]], *, gzip: bool = True) -> bytes:
    """A WARC file with requests before answers, as crawlers write them."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzip)
    _write(writer, writer.create_warcinfo_record("test.warc.gz", {"software": "tests"}))
    for url, status, headers, body in answers:
        for kind, line, told, payload in (("request", "GET / HTTP/1.1", [], b""), ("response", status, headers, body)):
            protocol = "" if kind == "request" else "HTTP/1.1"
            http = StatusAndHeaders(line, told, protocol=protocol)
            _write(writer, writer.create_warc_record(url, kind, payload=io.BytesIO(payload), http_headers=http))
    return buffer.getvalue()


def wat(pages: Sequence[tuple[str, Any]], *, gzip: bool = True) -> bytes:
    """A WAT file as Common Crawl writes it: of each page its address, and what is told of its answer."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gzip)
    for url, told in pages:
        envelope = {
            "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
            "Payload-Metadata": {"HTTP-Response-Metadata": told},
        }
        content = told if isinstance(told, bytes) else json.dumps({"Envelope": envelope}).encode()
        record = writer.create_warc_record(
            url, "metadata", payload=io.BytesIO(content), warc_content_type="application/json"
        )
        _write(writer, record)
    return buffer.getvalue()


def _write(writer: WARCWriter, record: Any) -> None:
    writer.write_record(record)
    record.raw_stream.close()  # a temporary file of warcio's own
