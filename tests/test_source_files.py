"""crawl/source_files.py: files of a source, here and behind URLs."""

import contextlib
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from diptych.crawl.source_files import found_files, mark_of, open_file
from diptych.errors import DataError

pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("aiohttp", reason="the extra remote is not installed")


class _Handler(http.server.SimpleHTTPRequestHandler):
    knows_ranges = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, wanted = path.read_bytes(), self.headers.get("Range")
        start, stop = 0, len(content)
        if wanted and self.knows_ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
        self.send_response(206 if stop - start < len(content) else 200)
        if self.knows_ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.send_header("ETag", f'"{hash(content)}"')
            self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content[start:stop] if self.command == "GET" else b"")

    def do_HEAD(self):
        self.do_GET()


@contextlib.contextmanager
def served(folder: Path, *, knows_ranges: bool = True) -> Iterator[str]:
    """The files of a folder behind a URL."""
    kind = type("Handler", (_Handler,), {"knows_ranges": knows_ranges})
    handler = functools.partial(kind, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def in_memory(files: dict[str, bytes]) -> Iterator[str]:
    """Files of fsspec's own memory."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for name, content in files.items():
        memory.pipe(f"/source/{name}", content)
    try:
        yield "memory://source"
    finally:
        memory.rm("/source", recursive=True)


def names(path: object) -> list[str]:
    return [file.name for file in found_files(str(path))]


def test_files_stand_in_natural_order_and_hidden_ones_are_passed_over(tmp_path):
    for name in ("b/10.csv", "b/9.csv", "a.csv", ".hidden.csv", ".git/x.csv", "B/1.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(tmp_path) == ["a.csv", "B/1.csv", "b/9.csv", "b/10.csv"]
    assert names(f"{tmp_path}/b/*.csv") == ["9.csv", "10.csv"]
    assert names(f"{tmp_path}/**/1*.csv") == ["B/1.csv", "b/10.csv"]
    assert names(tmp_path / "a.csv") == ["a.csv"]


def test_nothing_at_a_path_is_told(tmp_path):
    for path in (tmp_path / "x", tmp_path / "*.csv", "memory://nothing/*", "memory://nothing"):
        with pytest.raises(DataError, match=r"must be (a file, a folder|there, and is not)"):
            found_files(str(path))
    with pytest.raises(DataError, match="cannot be read"):
        mark_of(str(tmp_path / "x"))
    with pytest.raises(DataError, match="no-such-scheme"):
        found_files("no-such-scheme://x/y")


def test_files_of_a_store_are_found_known_and_read():
    with in_memory({"b/10.csv": b"ten", "b/9.csv": b"nine", "a.csv": b"a", ".x/y.csv": b""}) as url:
        assert names(url) == ["a.csv", "b/9.csv", "b/10.csv"]
        assert names(f"{url}/b/*.csv") == ["9.csv", "10.csv"]
        assert names(f"{url}/a.csv") == ["a.csv"]
        (file,) = found_files(f"{url}/b/9.csv")
        with open_file(file.path, seeks=True) as opened:
            assert (opened.read(2), opened.seek(1), opened.read()) == (b"ni", 1, b"ine")


def test_a_file_is_known_again_until_it_changes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one")
    before = mark_of(str(path))
    assert mark_of(str(path)) == before
    os.utime(path, ns=(1, 2))
    touched = mark_of(str(path))
    path.write_text("three")
    assert len({before, touched, mark_of(str(path))}) == 3


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_web_server_is_read_as_a_stream_and_at_random(tmp_path, knows_ranges):
    content = os.urandom(300_000)
    (tmp_path / "a.bin").write_bytes(content)
    with served(tmp_path, knows_ranges=knows_ranges) as url:
        (file,) = found_files(f"{url}/a.bin")
        with open_file(file.path, seeks=False) as stream:
            assert b"".join(iter(lambda: stream.read(10_000), b"")) == content
        with open_file(file.path, seeks=True) as opened:
            assert (opened.seek(200_000), opened.read(5)) == (200_000, content[200_000:200_005])
            assert opened.seek(0, os.SEEK_END) == len(content)
        if knows_ranges:
            before = mark_of(file.path)
            (tmp_path / "a.bin").write_bytes(content[::-1])
            assert mark_of(file.path) != before
        with pytest.raises(DataError, match="is not"):
            mark_of(f"{url}/b.bin")
