import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import untrained_bundle
from diptych.errors import ConfigError, DataError
from diptych.search.library import Library, Update
from diptych.search.query import Filters
from diptych.weights.bundle import Bundle
from processes import started


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for i in range(10):
        draw(folder / ("2023/" if i < 4 else "") / f"{i}.png", i)
    return folder


@pytest.fixture
def library(pictures, tmp_path, tiny_bundle) -> Library:
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    library.update()
    return library


def reopened(library: Library, bundle: Bundle | None = None, **options) -> Library:
    return Library.open(library.folder, bundle or library.bundle, index=library.place, **options)


def stored(library: Library) -> dict[str, np.ndarray]:
    return {path: features for path, _, features in library.rows()}


def counts(update: Update) -> tuple[int, int, int, int]:
    return update.added, update.changed, update.moved, update.deleted


def assert_true(library: Library) -> None:
    """Every readable picture of the folder has the features that the bundle gives it, and nothing else has any."""
    readable = [path for path in sorted(library.folder.rglob("*.png")) if path.stat().st_size > 100]
    rows = stored(library)
    assert sorted(rows) == [path.relative_to(library.folder).as_posix() for path in readable]
    expected = library.bundle.encode_images(readable)
    found = torch.from_numpy(np.stack([rows[path.relative_to(library.folder).as_posix()] for path in readable]))
    assert (expected * found).sum(dim=1).min() > 0.999
    assert library.check() == []


def test_a_new_library_holds_every_picture(library):
    assert len(library) == 10
    assert_true(library)


def test_search_is_the_cosine_with_every_picture(library):
    results = library.search("a red kite", count=4)
    query = library.bundle.encode_texts(["a red kite"])[0].numpy()
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


def test_an_update_notices_what_is_new_changed_moved_and_deleted(library):
    folder = library.folder
    draw(folder / "new.png", 50)
    draw(folder / "8.png", 51)
    (folder / "0").mkdir()
    (folder / "2023" / "0.png").rename(folder / "0" / "moved.png")
    (folder / "9.png").unlink()
    shutil.copy(folder / "5.png", folder / "copy.png")
    assert counts(library.update()) == (2, 1, 1, 1)
    assert_true(library)
    assert counts(library.update()) == (0, 0, 0, 0)


def test_a_moved_file_and_a_copy_are_not_encoded_again(library, monkeypatch):
    (library.folder / "5.png").rename(library.folder / "55.png")
    shutil.copy(library.folder / "6.png", library.folder / "copy.png")
    monkeypatch.setattr(Bundle, "encode_pixels", None)
    assert counts(library.update()) == (1, 0, 1, 0)


def test_two_pictures_that_change_places_keep_their_own_features(library):
    a, b, aside = (library.folder / name for name in ("5.png", "6.png", "x"))
    a.rename(aside), b.rename(a), aside.rename(b)
    os.utime(a, ns=(1, 1)), os.utime(b, ns=(2, 2))
    library.update()
    assert_true(library)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_broken_file_is_named_once_and_shifts_nothing(pictures, tmp_path, tiny_bundle, batch_size):
    for name in ("3.5.png", "2023/2.5.png"):
        (pictures / name).write_bytes(b"no picture")
    library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
    update = library.update(batch_size=batch_size)
    assert sorted(update.broken) == ["2023/2.5.png", "3.5.png"]
    assert "must be a picture" in update.broken["3.5.png"]
    assert (update.total, library.update().broken) == (10, {})
    assert sorted(library.faults()) == ["2023/2.5.png", "3.5.png"]
    assert_true(library)
    draw(pictures / "3.5.png", 77)
    assert counts(library.update()) == (0, 1, 0, 0)
    assert_true(library)


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
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        library.duplicates(threshold=0)


def test_progress_is_told_and_a_stop_keeps_what_is_done(pictures, tmp_path, tiny_bundle):
    library, seen = Library.open(pictures, tiny_bundle, index=tmp_path / "index"), []
    update = library.update(batch_size=3, on_progress=seen.append, should_stop=lambda: len(seen) == 2)
    assert (update.complete, update.total, len(library)) == (False, 6, 6)
    assert [(p.done, p.total) for p in seen] == [(3, 10), (6, 10)]
    assert seen[1].seconds_left == pytest.approx(seen[1].seconds * 4 / 6)
    assert counts(library.update()) == (4, 0, 0, 0)
    assert_true(library)


def test_a_stop_does_not_forget_files_that_may_only_have_moved(library, monkeypatch):
    for i in range(4, 10):
        (library.folder / f"{i}.png").rename(library.folder / f"moved{i}.png")
    assert library.update(batch_size=2, should_stop=lambda: True).deleted == 0
    monkeypatch.setattr(Bundle, "encode_pixels", None)
    assert library.update().moved == 4


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import untrained_bundle
from diptych.search import store
from diptych.search.library import Library
append = store.Store._append
def slow(*arguments):
    append(*arguments)
    print("appended", flush=True)
    if append.count == 2:
        time.sleep(60)  # rows are written, their transaction is not: the worst moment
    append.count += 1
class Counted:
    count = 0
    def __call__(self, *arguments): return original(*arguments)
original, append = append, Counted()
store.Store._append = slow
Library.open(sys.argv[2], untrained_bundle(0), index=sys.argv[3]).update(batch_size=3)
"""


def test_a_killed_update_loses_the_batch_in_hand_and_no_more(pictures, tmp_path, tiny_bundle):
    script = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(pictures), str(tmp_path / "index")]
    with started(script, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == "appended\n"
        library = Library.open(pictures, tiny_bundle, index=tmp_path / "index")
        with pytest.raises(ConfigError, match="another process works in it"):
            library.update()
        assert len(library.search("a red kite", count=99)) == 6  # a reader beside the writer
    assert library.check() == []
    assert len(library) == 6
    assert counts(library.update()) == (4, 0, 0, 0)
    assert_true(library)


def test_readers_answer_while_one_writes(library):
    """Every answer is of one moment: its files are there and the scores are theirs."""
    query = library.bundle.encode_texts(["a red kite"])[0].numpy()
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


def test_compacting_clears_removed_rows_away(library):
    for name in ("4.png", "6.png"):
        (library.folder / name).unlink()
    library.update()
    before = stored(library)
    reader = reopened(library)
    reader.search("a red kite")
    assert (library.status()["removed rows"], library.compact(), library.status()["removed rows"]) == (2, 2, 0)
    assert len(list((library.place).rglob("features-*.f32"))) == 1
    for other in (reader, reopened(library)):
        assert {path: row.tolist() for path, row in stored(other).items()} == {p: r.tolist() for p, r in before.items()}
    assert_true(library)


def test_another_model_is_refused_and_reindexing_takes_over_when_it_is_through(library):
    other = untrained_bundle(1)
    with pytest.raises(ConfigError, match=r"was made with another model .*: diptych index update \S+ --reindex\."):
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
    assert [path.name for path in library.place.iterdir() if path.is_dir()] == [other.fingerprint()[:16]]


def test_the_index_lies_in_the_cache_by_folder_and_not_among_the_pictures(pictures, tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(pictures.rglob("*"))
    library = Library.open(pictures, tiny_bundle)
    library.update()
    assert library.place.parent == tmp_path / "cache" / "diptych" / "indexes"
    assert library.place.name.startswith("pictures-")
    assert sorted(pictures.rglob("*")) == before


def test_an_index_is_of_one_folder(library, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"is the index of .*pictures, not of .*other"):
        Library.open(tmp_path / "other", library.bundle, index=library.place)
    with pytest.raises(DataError, match="must be a folder of pictures"):
        Library.open(tmp_path / "none", library.bundle)


def test_thumbnails_are_small_upright_jpegs_of_the_folder_alone(library):
    import io

    image = Image.open(io.BytesIO(library.thumbnail("5.png", side=40)))
    assert (image.format, image.size) == ("JPEG", (40, 30))
    with pytest.raises(DataError, match="must lie in"):
        library.thumbnail("../secret.png")


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


def test_a_read_only_index_answers(library, tmp_path):
    copy = tmp_path / "copy"
    library.close()
    shutil.copytree(library.place, copy)
    for path in (*copy.rglob("*"), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    real = os.access
    try:
        with pytest.MonkeyPatch.context() as patch:  # root may write anywhere
            patch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
            reader = Library.open(library.folder, library.bundle, index=copy)
            assert len(reader.search("a red kite", count=3)) == 3
            with pytest.raises(DataError, match="cannot be written"):
                reader.update()
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "diptych-index-9"}, r"of the kind 'diptych-index-9'.*Update diptych"),
        ({"part": 3}, "is damaged"),
    ],
)
def test_a_newer_or_damaged_index_is_named(library, change, message):
    file = library.place / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        reopened(library)


def test_check_finds_rows_that_are_damaged_or_gone(library):
    (place,) = library.place.rglob("features-*.f32")
    whole = place.read_bytes()
    place.write_bytes(whole[:40] + b"\0" * 100 + whole[140:])
    assert [line for line in library.check() if "are not of unit length" in line]
    place.write_bytes(whole[:-1])
    assert "must hold 10 rows" in library.check()[0]
