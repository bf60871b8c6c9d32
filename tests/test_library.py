import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import untrained_bundle
from diptych.data.images import open_image
from diptych.errors import ConfigError, DataError
from diptych.search.filters import Filters
from diptych.search.library import Library
from diptych.search.writing import Entry, Writer
from diptych.weights.bundle import Bundle
from diptych.where import Locator
from libraries import assert_true, draw, draw_ten, stored


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    draw_ten(folder)
    return folder


@pytest.fixture
def library(pictures, tmp_path, tiny_bundle) -> Library:
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    library.update()
    return library


def reopened(library: Library, bundle: Bundle | None = None, **options) -> Library:
    return Library.open(library.folder, bundle or library.bundle, index=library.index_folder, **options)


def test_a_new_library_holds_every_picture(library):
    assert len(library) == 10
    assert_true(library)


def test_search_is_the_cosine_with_every_picture(library):
    results = library.search("a red kite", count=4)
    query = library.bundle.encode_texts(["a red kite"])[0]
    scores = {path: float(features @ query) for path, features in stored(library).items()}
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:4]
    assert [row.path.relative_to(library.folder).as_posix() for row in results] == best
    np.testing.assert_allclose([row.score for row in results], [scores[path] for path in best], atol=1e-6)
    assert (results[0].width, results[0].height, results[0].path.is_absolute()) == (80, 60, True)


def test_a_picture_finds_itself_and_like_finds_the_others(library):
    path = library.folder / "7.png"
    first = library.search(str(path), count=1)[0]
    assert (first.path, round(first.score, 3)) == (path, 1.0)
    others = library.like("7.png", count=99)
    assert len(others) == 9
    assert path not in [row.path for row in others]
    with pytest.raises(DataError, match="must be a picture in the index"):
        library.like("70.png")


def test_no_count_is_all_that_pass(library):
    query = "a red kite"
    assert len(library.search(query, count=None)) == len(library.search(query, count=1000)) == 10
    assert len(library.search(query, count=None, filters=Filters(folder="2023"))) == 4
    with pytest.raises(ConfigError, match="count must be at least 1"):
        library.search(query, count=0)


def test_files_are_listed_without_a_query_and_told_by_name(library):
    assert len(library.latest(count=None)) == 10
    assert [hit.path.name for hit in library.latest(count=2, filters=Filters(folder="2023"))] == ["0.png", "1.png"]
    assert (library.facts("2023/1.png").width, library.facts(library.folder / "2023" / "1.png").height) == (80, 60)
    for name in ("none.png", "2023"):
        with pytest.raises(DataError, match="must be a picture in the index"):
            library.facts(name)


def test_filters_choose_who_may_answer(library):
    found = library.search("a red kite", count=99, filters=Filters(folder="2023"))
    assert sorted(row.path.name for row in found) == ["0.png", "1.png", "2.png", "3.png"]
    assert len(library.search("a red kite", filters=Filters(min_side=81))) == 0
    assert len(library.search("a red kite", filters=Filters(max_side=80))) == 10
    assert len(library.like("2023/0.png", filters=Filters(folder="2023/"))) == 3


def test_copies_are_duplicates_and_a_chain_is_one_group(library):
    shutil.copy(library.folder / "5.png", library.folder / "copy.png")
    library.update()
    groups = library.duplicates(threshold=0.99999)
    assert [[row.path.name for row in group] for group in groups] == [["5.png", "copy.png"]]
    (library.folder / "link.png").symlink_to("5.png")
    (library.folder / "4 too.png").hardlink_to(library.folder / "4.png")
    library.update()
    ((best, other),) = library.duplicates(threshold=0.99999)  # no link is a copy
    assert (best.path.name, [path.name for path in best.also], other.path.name) == ("5.png", ["link.png"], "copy.png")
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        library.duplicates(threshold=0)


def test_readers_answer_while_one_writes(library):
    """Every answer is of one moment: its files are there and the scores are theirs."""
    query = library.bundle.encode_texts(["a red kite"])[0]
    stop, faults, answers = threading.Event(), [], 0

    def read() -> None:
        nonlocal answers
        reader = reopened(library)
        while not stop.is_set():
            try:
                results = reader.nearest(query, count=99)
                assert len({row.path for row in results}) == len(results) >= 8
                answers += 1
            except Exception as error:
                faults.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for round_ in range(6):
        draw(library.folder / f"extra{round_}.png", 100 + round_)
        (library.folder / f"extra{round_ - 1}.png").unlink(missing_ok=True)
        library.update()
        library.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert answers > 0
    assert_true(library)


def test_a_library_answers_while_it_is_updated_in_another_thread(library):
    query = library.bundle.encode_texts(["a red kite"])[0]
    faults: list[Exception] = []

    def update() -> None:
        try:
            for round_ in range(6):
                draw(library.folder / f"extra{round_}.png", 100 + round_)
                (library.folder / f"extra{round_ - 1}.png").unlink(missing_ok=True)
                library.update()
                library.compact()
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=update)
    thread.start()
    while thread.is_alive():
        assert len(library.nearest(query, count=99)) >= 10
    thread.join()
    assert faults == []
    assert_true(library)


def test_compacting_clears_removed_rows_away(library):
    for name in ("4.png", "6.png"):
        (library.folder / name).unlink()
    library.update()
    before = stored(library)
    reader = reopened(library)
    reader.search("a red kite")
    assert (library.status()["removed rows"], library.compact(), library.status()["removed rows"]) == (2, 2, 0)
    assert len(list(library.index_folder.rglob("features-*.f32"))) == 1
    for other in (reader, reopened(library)):
        assert {path: row.tolist() for path, row in stored(other).items()} == {p: r.tolist() for p, r in before.items()}
    assert_true(library)


def test_another_model_is_refused_and_reindexing_takes_over_when_it_is_through(library):
    other = untrained_bundle(1)
    message = r"was made with another model .*: diptych index update \S+ --index \S+ --reindex\."
    with pytest.raises(ConfigError, match=message):
        reopened(library, other)
    new = reopened(library, other, reindex=True)
    seen = []
    new.update(batch_size=4, on_progress=seen.append, should_stop=lambda: len(seen) == 1)
    assert len(library.search("a red kite")) == 10  # the old one still answers
    with pytest.raises(ConfigError, match="still being made with this model"):
        new.search("a red kite")
    again = reopened(library, other, reindex=True)
    assert again.update().added == 6
    assert len(again.search("a red kite")) == 10
    assert_true(again)
    assert len(library.search("a red kite")) == 10  # who had the old one open
    with pytest.raises(ConfigError, match="was made with another model"):
        reopened(library)
    assert [path.name for path in library.index_folder.iterdir() if path.is_dir()] == [other.fingerprint()[:16]]


def test_the_index_lies_in_the_cache_by_folder_and_not_among_the_pictures(pictures, tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(pictures.rglob("*"))
    library = Library.open(pictures, tiny_bundle)
    library.update()
    assert library.index_folder.parent == tmp_path / "cache" / "diptych" / "indexes"
    assert library.index_folder.name.startswith("pictures-")
    assert sorted(pictures.rglob("*")) == before


def test_an_index_is_of_one_folder(library, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"is the index of .*pictures, not of .*other"):
        Library.open(tmp_path / "other", library.bundle, index=library.index_folder)
    with pytest.raises(DataError, match="must be a folder of pictures"):
        Library.open(tmp_path / "none", library.bundle)


def test_thumbnails_are_small_upright_jpegs_of_the_folder_alone(library):
    image = Image.open(io.BytesIO(library.thumbnail("5.png", side=40)))
    assert (image.format, image.size) == ("JPEG", (40, 30))
    with pytest.raises(DataError, match="must lie in"):
        library.thumbnail("../secret.png")


def test_why_is_a_map_of_a_file_of_the_folder_alone(library):
    maps = library.why("5.png", "a red kite")
    assert maps.texts == ("a red kite",)
    assert maps.picture.size == open_image(library.folder / "5.png").size
    expected = Locator(library.bundle, ["a red kite"])(library.folder / "5.png")
    assert torch.equal(maps.heat, expected.heat)
    with pytest.raises(DataError, match="must lie in"):
        library.why("../secret.png", "a red kite")


def test_nothing_is_sent_to_anyone(pictures, tmp_path):
    """Index and search in a network namespace without a route, with every use of a socket forbidden on top."""
    unshare = shutil.which("unshare")
    command = [unshare, "-rn"] if unshare else []
    if not unshare or subprocess.run([*command, "true"], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("needs `unshare -n`, which is not there or not permitted")
    script = f"""
import sys
def refuse(event, _):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.bind"):
        raise AssertionError(event)
sys.addaudithook(refuse)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import untrained_bundle
from diptych.search.library import Library
library = Library.open({str(pictures)!r}, untrained_bundle(0), index={str(tmp_path / "index")!r})
print(library.update().total, len(library.search("a red kite", count=3)))
"""
    command = [*command, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.stdout.strip(), done.returncode) == ("10 3", 0), done.stderr


READS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import untrained_bundle
from diptych.errors import DataError
from diptych.search.library import Library
library = Library.open(sys.argv[2], untrained_bundle(0), index=sys.argv[3])
print(len(library.search("a red kite", count=99)), library.check())
try:
    library.update()
except DataError as error:
    print(str(error).removeprefix(sys.argv[3]))
"""


@pytest.mark.parametrize("in_use", [False, True])
def test_an_index_that_may_not_be_written_answers(library, tmp_path, in_use):
    """Also one with a write-ahead log that its last writer could not bring into the file."""
    copy = tmp_path / "copy"
    if in_use:
        draw(library.folder / "new.png", 50)
        reader = sqlite3.connect(next(library.index_folder.rglob("files.sqlite")))
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM files").fetchone()
        library.update()
        shutil.copytree(library.index_folder, copy)
        assert next(copy.rglob("files.sqlite-wal")).stat().st_size > 0
        next(copy.rglob("files.sqlite-shm")).unlink()
        reader.close()
    else:
        library.close()
        shutil.copytree(library.index_folder, copy)
    command = [sys.executable, "-c", READS, str(Path(__file__).parent), str(library.folder), str(copy)]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root writes everywhere, and setpriv is not there")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    for path in (*copy.rglob("*"), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    cannot = " cannot be written, so the index stays as it is. Choose another --index."
    assert done.stdout.splitlines() == [f"{11 if in_use else 10} []", cannot], done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "diptych-index-9"}, r"of the kind 'diptych-index-9'.*Update diptych"),
        ({"part": 3}, "is damaged"),
    ],
)
def test_a_newer_or_damaged_index_is_named(library, change, message):
    file = library.index_folder / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        reopened(library)


def test_rows_are_of_one_moment_while_another_writes(library):
    stop = threading.Event()

    row = np.eye(library.bundle.model.config.embed_dim, dtype=np.float32)[:1]

    def write() -> None:
        with Writer(next(library.index_folder.glob("*/files.sqlite")).parent, row.shape[1]) as writer:
            while not stop.is_set():
                writer.write([Entry(path="x.png", size=1, modified=1, digest=b"x", features=row)])
                writer.forget(["x.png"])

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(60):
            assert len(list(library.rows())) in (10, 11)
    finally:
        stop.set()
        writing.join()


def test_check_finds_rows_that_are_damaged_or_gone(library):
    (features,) = library.index_folder.rglob("features-*.f32")
    whole = features.read_bytes()
    features.write_bytes(whole[:40] + b"\0" * 100 + whole[140:])
    assert library.check() == ["rows 0 to 9 are not what was written."]
    with pytest.raises(DataError, match="rows 0 to 9 are not what was written"):
        reopened(library).search("a red kite")
    features.write_bytes(whole[:-1])
    assert "must hold 10 rows" in library.check()[0]


def test_like_and_within_take_links_and_other_forms_of_a_name(library):
    (library.folder / "link.png").symlink_to("2023/1.png")
    library.update()
    for name in ("link.png", library.folder / "link.png", "./2023/../link.png"):
        assert len(library.like(name, count=99)) == 10
    for folder in ("./2023", f"{library.folder}/2023/", "2023/"):
        assert len(library.search("a red kite", filters=Filters(folder=folder))) == 4
    with pytest.raises(DataError, match="must be a folder in"):
        library.search("a red kite", filters=Filters(folder="2024"))


def test_an_index_that_cannot_be_opened_is_a_sentence(pictures, tmp_path, tiny_bundle):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be read: Not a directory\. Choose another --index"):
        Library.open(pictures, tiny_bundle, index=tmp_path / "file" / "index")
