import collections
import contextlib
import dataclasses
import functools
import http.server
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import diptych.pairs.remote as remote
from conftest import drawing, png
from diptych.errors import ConfigError, DataError, ShardError
from diptych.files import sha256
from diptych.pairs.augment import Augment
from diptych.pairs.pipeline import DataConfig
from diptych.pairs.remote import RemoteConfig, RemoteFolder
from diptych.pairs.shards import MANIFEST, ShardSet, ShardWriter
from diptych.pairs.sources import Source
from diptych.train import counts
from diptych.train.log import read_log
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from test_pairs_pipeline import stream

pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("aiohttp", reason="the extra remote is not installed")

SHARDS = 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Eight samples in four shards, each larger than two chunks as the tests set them."""
    folder = tmp_path_factory.mktemp("shards")
    picture = png(Image.new("RGB", (4, 4), "red"))
    with ShardWriter(folder, samples_per_shard=2) as writer:
        for number in range(2 * SHARDS):
            writer.add(f"{number}", {"png": picture, "txt": f"thing {number}".encode(), "bin": os.urandom(6000)})
    return folder


@pytest.fixture
def config(tmp_path, monkeypatch) -> RemoteConfig:
    monkeypatch.setattr(remote, "_CHUNK", 5000)
    return RemoteConfig(cache=str(tmp_path / "cache"), attempts=3, timeout=20.0, pause=0.0)


class Server:
    """Files of a folder over HTTP, with faults on order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = collections.defaultdict(list)  # by name, for one request after another
        self.requests: list[tuple[str, str]] = []  # name and range
        self.let_go = threading.Event()  # ends the stalls
        self.knows_ranges = True
        self.url = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.rsplit("/", 1)[-1]
        wanted = handler.headers.get("Range", "")
        self.requests.append((name, wanted))
        fault = self.faults[name].pop(0) if self.faults[name] else ""
        path = self.folder / name
        if fault == "stall":
            self.let_go.wait(30)
            handler.close_connection = True
            return
        if fault == "error" or not path.is_file():
            handler.send_error(503 if fault else 404)
            return
        content = path.read_bytes()
        if wanted and self.knows_ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
        if fault == "damage":
            content = bytes(len(content))
        sent = content[: len(content) // 2] if fault in ("cut", "short") else content
        handler.send_response(206 if wanted and self.knows_ranges else 200)
        handler.send_header("Content-Length", str(len(sent if fault == "short" else content)))
        handler.end_headers()
        handler.wfile.write(sent)
        handler.close_connection = fault == "cut"


@pytest.fixture
def server(shards) -> Iterator[Server]:
    files = Server(shards)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                files.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=functools.partial(listening.serve_forever, poll_interval=0.01))
        thread.start()
        files.url = f"http://127.0.0.1:{listening.server_port}/set"
        try:
            yield files
        finally:
            files.let_go.set()
            listening.shutdown()
            thread.join()


def read_all(pairs: ShardSet) -> list[tuple[str, bytes]]:
    return [(pairs[n].key, pairs[n].parts["bin"]) for n in range(len(pairs))]


def cached(config: RemoteConfig) -> list[str]:
    return sorted(path.name.split("-", 1)[1] for path in Path(config.cache).glob("[!.]*"))


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_shards_behind_a_url_are_the_shards_and_are_fetched_once(server, shards, config, knows_ranges):
    server.knows_ranges = knows_ranges
    here, there = ShardSet(shards), ShardSet(server.url, remote=config)
    assert there.fingerprint() == here.fingerprint()
    assert [name for name, _ in server.requests] == [MANIFEST]  # nothing else until a sample is asked for
    assert read_all(there) == read_all(here)
    count = len(server.requests)
    assert read_all(ShardSet(server.url, remote=config)) == read_all(here)
    assert [name for name, _ in server.requests[count:]] == [MANIFEST]


def test_any_scheme_of_fsspec_will_do(shards, config):
    assert read_all(ShardSet(f"file://{shards}", remote=config)) == read_all(ShardSet(shards))


@pytest.mark.parametrize("fault", ["error", "cut", "short", "damage"])
def test_a_fault_that_passes_is_got_over(server, shards, config, fault):
    server.faults["shard-00001.tar"] = [fault, fault]
    assert read_all(ShardSet(server.url, remote=config)) == read_all(ShardSet(shards))


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_said(server, shards, config):
    server.faults["shard-00001.tar"] = ["stall"]
    patient = dataclasses.replace(config, timeout=0.3)
    assert read_all(ShardSet(server.url, remote=patient)) == read_all(ShardSet(shards))


@pytest.mark.parametrize(
    ("fault", "reason", "cause"),
    [
        ("error", "503", "cannot be fetched"),
        ("short", r"the answer has 2,500 of 5,000 bytes", "ended early"),
        ("stall", r"no answer within 0\.2 s", "timed out"),
        ("damage", "its SHA-256 differs, 3 times", "has a wrong checksum"),
    ],
)
def test_a_fault_that_stays_is_one_sentence_with_a_cause(server, config, fault, reason, cause):
    server.faults["shard-00001.tar"] = [fault] * 100
    pairs = ShardSet(server.url, remote=dataclasses.replace(config, timeout=0.2 if fault == "stall" else 20.0))
    with pytest.raises(ShardError, match=rf"set/shard-00001\.tar .*{reason}") as caught:
        pairs[2]
    assert caught.value.cause == f"shard-00001.tar {cause}"
    count = len(server.requests)
    with pytest.raises(ShardError, match=reason):  # remembered: ten thousand samples must not wait each
        pairs[3]
    assert len(server.requests) == count
    assert pairs[0].key == "0"
    assert cached(config) == ["shard-00000.tar"]


def test_what_was_fetched_is_gone_on_with(server, config, shards):
    size = (shards / "shard-00000.tar").stat().st_size
    server.faults["shard-00000.tar"] = ["", "", *["error"] * 3]
    with pytest.raises(ShardError, match=r"503"):
        ShardSet(server.url, remote=config)[0]
    count = len(server.requests)
    assert ShardSet(server.url, remote=config)[0].key == "0"
    ranges = [wanted for name, wanted in server.requests[count:] if name != MANIFEST]
    assert ranges[0] == f"bytes=10000-{min(size, 15000) - 1}"


def test_a_file_that_is_not_there_is_asked_for_once(server, config):
    with pytest.raises(ShardError, match=r"/elsewhere\.json must be there, and is not") as caught:
        RemoteFolder(server.url, config).read("elsewhere.json")
    assert caught.value.cause == "elsewhere.json is missing"
    assert len(server.requests) == 1


def test_samples_that_cannot_be_fetched_are_counted_and_the_run_goes_on(server, config, tokenizer):
    server.faults["shard-00002.tar"] = ["stall"] * 100
    impatient = dataclasses.replace(config, timeout=2.0, attempts=1)  # a whole answer is in time, on a busy machine too
    data = DataConfig(sources=(Source(path=server.url, shuffle_shards=2),), augment=Augment(), remote=impatient)
    bad: collections.Counter[str] = collections.Counter()
    keys: list[str] = []
    for batch in stream(data, tokenizer, 0, 4):
        bad.update(batch.bad)
        keys += batch.keys
    assert bad == {"shard-00002.tar timed out": 4}  # 2 samples, 2 epochs
    assert sorted(keys) == sorted(2 * [str(n) for n in range(8) if n not in (4, 5)])


@pytest.fixture
def faulty(server, config, tiny_recipe, tmp_path) -> TrainRecipe:
    """Two sources of 8 samples, one of them behind a URL, with all that can go wrong; two epochs of each."""
    with ShardWriter(tmp_path / "faulty", samples_per_shard=4) as writer:
        for n in range(8):
            picture = b"<html>not found</html>" if n == 1 else png(drawing("red", "bar", 4 + n))
            writer.add(str(n), {"png": picture, "txt": "caf\xe9".encode("latin-1" if n == 2 else "utf-8")})
    cut = tmp_path / "faulty" / "shard-00001.tar"
    cut.write_bytes(cut.read_bytes()[:1000])
    server.faults["shard-00002.tar"] = ["stall"] * 100
    impatient = dataclasses.replace(config, timeout=2.0, attempts=1)
    sources = (Source(path=server.url), Source(path=str(tmp_path / "faulty")))
    data = dataclasses.replace(tiny_recipe.data, sources=sources, remote=impatient, max_bad=0.5)
    return dataclasses.replace(tiny_recipe, data=data, train=dataclasses.replace(tiny_recipe.train, steps=4))


def test_a_run_leaves_out_and_counts_whatever_is_wrong_with_its_data_within_the_limit(faulty, tmp_path):
    result = train(faulty, tmp_path / "run")
    bad = {"shard-00002.tar timed out": 4, "shard-00001.tar ended early": 8, "not an image": 2, "caption not UTF-8": 2}
    assert result.counts["bad"] == bad
    assert result.counts["pairs"] == 4 * 8 - 16
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["bad"] == bad


@pytest.mark.parametrize("cause", ["shard-00002.tar timed out", "not an image", "caption not UTF-8"])
def test_a_run_stops_with_one_line_where_too_much_is_wrong(faulty, tmp_path, monkeypatch, cause):
    monkeypatch.setattr(counts, "_JUDGED_AS", 1)
    if cause == "shard-00002.tar timed out":
        sources = faulty.data.sources[:1]
    else:  # a set of its own, whose shards are whole
        with ShardWriter(tmp_path / "set") as writer:
            for n in range(8):
                picture = b"<html>" if n == 1 and cause == "not an image" else png(drawing("red", "bar", 4 + n))
                caption = b"caf\xe9" if n == 1 and cause == "caption not UTF-8" else b"cafe"
                writer.add(str(n), {"png": picture, "txt": caption})
        sources = (Source(path=str(tmp_path / "set")),)
    data = dataclasses.replace(faulty.data, sources=sources, max_bad=0.1)
    with pytest.raises(DataError) as caught:
        train(dataclasses.replace(faulty, data=data), tmp_path / "run")
    assert str(caught.value) == (
        "at most 10.00% of the samples may be bad (data.max_bad). "
        f"{2 if 'timed out' in cause else 1} of 8 are: {cause} {2 if 'timed out' in cause else 1}. "
        "Mend the data, or raise the limit."
    )


def test_a_shard_that_ended_early_stops_a_run_before_its_first_step_where_too_much_is_in_it(faulty, tmp_path):
    data = dataclasses.replace(faulty.data, sources=faulty.data.sources[1:], max_bad=0.4)
    with pytest.raises(ShardError, match=r"shard-00001\.tar is cut short or was changed: 1,000 bytes") as caught:
        train(dataclasses.replace(faulty, data=data), tmp_path / "run", on_progress=lambda _: pytest.fail("a step"))
    assert "\n" not in str(caught.value)


def test_the_cache_keeps_what_was_used_last_within_its_limit(server, config, shards):
    size = (shards / "shard-00000.tar").stat().st_size
    folder = RemoteFolder(server.url, dataclasses.replace(config, cache_gb=2.5 * size / 1e9))

    def fetch(number: int, moment: int) -> None:
        name = f"shard-{number:05d}.tar"
        path = folder.fetch(name, size, sha256(shards / name))
        os.utime(path, (moment, moment))

    for moment, number in enumerate((0, 1, 0, 2)):
        fetch(number, moment)
    assert cached(config) == ["shard-00000.tar", "shard-00002.tar"]


def test_two_who_want_a_shard_fetch_it_once(server, config, shards):
    name = "shard-00000.tar"
    folders = [RemoteFolder(server.url, config) for _ in range(3)]
    size, digest = (shards / name).stat().st_size, sha256(shards / name)
    threads = [threading.Thread(target=folder.fetch, args=(name, size, digest)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [where for _, where in server.requests]
    assert len(wanted) == len(set(wanted)) == -(-size // 5000)


def test_shards_are_fetched_before_they_are_asked_for(server, config):
    pairs = ShardSet(server.url, remote=config)
    pairs.fetch_ahead([1, 3])
    for _ in itertools.takewhile(lambda _: len(cached(config)) < 2, range(1000)):
        time.sleep(0.01)
    assert cached(config) == ["shard-00001.tar", "shard-00003.tar"]


def test_a_cache_that_cannot_be_written_is_one_sentence(server, config, tmp_path):
    (tmp_path / "file").write_text("")
    pairs = ShardSet(server.url, remote=dataclasses.replace(config, cache=str(tmp_path / "file" / "cache")))
    with pytest.raises(ShardError, match=r"file/cache must be a folder to keep shards in, and cannot be written"):
        pairs[0]


def test_a_url_that_nobody_reads_and_options_out_of_range_are_named():
    with pytest.raises(ShardError, match=r"gopher://a/b must be a URL that fsspec reads"):
        RemoteFolder("gopher://a/b", RemoteConfig())
    with pytest.raises(ConfigError, match=r"attempts must be at least 1.* Got 0, 100\.0, 60\.0 and 1\.0"):
        RemoteConfig(attempts=0)
