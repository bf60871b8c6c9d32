"""curate/pipeline.py: stages one after the other, kept, gone on with, and made again."""

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from curating import Common, Draw, Dull, Fails, SameWord, Short, curated, digests, pipeline_of, write_rows
from diptych.curate.ledger import read_ledger
from diptych.errors import ConfigError, DataError
from diptych.pairs.sources import Source, open_pairs
from processes import started, wait_until


def whole_pipeline(tmp_path, **options):
    down = tmp_path / "down.json"
    if not down.exists():
        down.write_text(json.dumps([f"https://h{i % 4}.example/{i}.jpg" for i in range(0, 300, 7)]))
    path = tmp_path / "rows.jsonl"
    if not path.exists():
        write_rows(path, 300)
    return pipeline_of(
        path, Short(letters=options.get("letters", 8)), Common(most=45), SameWord(), Draw(down=str(down)), Dull(),
        part_rows=options.get("part_rows", 60),
    )  # fmt: skip


def plain_twin(letters=8):
    """The texts that are left, by a loop over all rows at once."""
    rows = []
    for i in range(300):
        text = f"{'ab'[i % 2]}{'xyz'[i % 3] * (i % 5)} word{i // 2 % 97}"
        if i % 10 and len(text) >= letters:
            rows.append((text, f"https://h{i % 4}.example/{i}.jpg", i))
    firsts = [text.split()[0] for text, _, _ in rows]
    rows = [row for row in rows if firsts.count(row[0].split()[0]) <= 45]
    seen, once = set(), []
    for row in rows:
        if row[0].split()[-1] not in seen:
            once.append(row)
        seen.add(row[0].split()[-1])
    return [text for text, _, i in once if i % 7 and "a" in text]


def texts_of(out: Path) -> list[str]:
    pairs = open_pairs(Source(path=str(out / "shards")))
    return [pairs.captions(index)[0] for index in range(len(pairs))]


def test_what_is_left_is_what_a_plain_loop_leaves(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    assert 20 < len(plain_twin()) < 90
    assert texts_of(tmp_path / "out") == plain_twin()
    pairs = open_pairs(Source(path=str(tmp_path / "out" / "shards")))
    assert pairs[0].picture == b"\xff\xd8\xff" + plain_twin()[0].encode()
    assert json.loads(pairs[0].parts["json"])["url"].startswith("https://h")


def test_the_ledger_accounts_for_every_row(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    stages = read_ledger(tmp_path / "out" / "work")
    assert [stage.name for stage in stages] == ["read", "short", "common", "same", "fetch", "dull"]
    assert stages[0].read == 300
    assert stages[0].dropped == {"no address": 30}
    assert all(stage.adds_up for stage in stages)
    assert stages[-1].kept == len(plain_twin())
    counts = tmp_path / "out/work/01-short/parts/000000/counts.json"
    counts.write_text(counts.read_text().replace('"kept": ', '"kept": 1'))
    with pytest.raises(DataError, match="at the stage short"):
        read_ledger(tmp_path / "out" / "work")


def test_neither_workers_nor_parts_change_the_shards(tmp_path):
    one = curated(whole_pipeline(tmp_path), tmp_path / "one", workers=1)
    assert curated(whole_pipeline(tmp_path), tmp_path / "four", workers=4) == one
    other = curated(whole_pipeline(tmp_path, part_rows=37), tmp_path / "other")
    assert {name: digest for name, digest in other.items() if name.startswith("shards")} == {
        name: digest for name, digest in one.items() if name.startswith("shards")
    }


def test_a_second_run_makes_nothing_and_a_changed_option_what_follows_it(tmp_path):
    out = tmp_path / "out"
    curated(whole_pipeline(tmp_path), out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    curated(whole_pipeline(tmp_path), out)
    assert {path.relative_to(out).as_posix() for path, t in times.items() if path.stat().st_mtime_ns != t} == {
        "shards/manifest.json"
    }
    curated(whole_pipeline(tmp_path, letters=9), out)
    assert texts_of(out) == plain_twin(letters=9)
    kept = {path for path, t in times.items() if path.exists() and path.stat().st_mtime_ns == t}
    assert {path.relative_to(out).parts[1] for path in kept if "work" in path.parts} == {"00-read"}


def test_a_changed_source_is_read_again(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"text": "a unique text", "url": "https://new.example/1.jpg"}\n')
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    assert texts_of(tmp_path / "out") == [*plain_twin(), "a unique text"]


def test_an_error_is_the_stages_own_and_what_is_done_stays(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    path = write_rows(tmp_path / "rows.jsonl", 60)
    pipeline = pipeline_of(path, Short(), Fails(file=str(flag)), Draw())
    for workers in (0, 2):
        with pytest.raises(DataError, match="the moon must be full"):
            curated(pipeline, tmp_path / "out", workers=workers)
    before = digests(tmp_path / "out")
    assert any(name.startswith("work/01-short") for name in before)
    flag.unlink()
    after = curated(pipeline, tmp_path / "out")
    assert before.items() <= after.items()
    assert after == curated(pipeline, tmp_path / "other")


def test_what_failed_is_tried_again_and_takes_its_place(tmp_path):
    whole_pipeline(tmp_path)
    down, out = tmp_path / "down.json", tmp_path / "out"
    curated(whole_pipeline(tmp_path), out)
    half = json.loads(down.read_text())[::2]
    down.write_text(json.dumps(half))
    curated(whole_pipeline(tmp_path), out, retry=("down",))
    fresh = curated(whole_pipeline(tmp_path), tmp_path / "fresh")
    assert digests(out) == fresh
    down.write_text("[]")
    curated(whole_pipeline(tmp_path), out)  # nobody asked to try again
    assert digests(out) == fresh
    curated(whole_pipeline(tmp_path), out, retry=("up",))  # nothing was dropped for it
    assert digests(out) == fresh


def test_trying_again_needs_something_that_waits(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 20)
    with pytest.raises(ConfigError, match="--retry"):
        curated(pipeline_of(path, Short()), tmp_path / "out", retry=("down",))


def test_nothing_left_is_a_set_without_shards(tmp_path):
    curated(whole_pipeline(tmp_path, letters=1000), tmp_path / "out")
    assert json.loads((tmp_path / "out/shards/manifest.json").read_text())["samples"] == 0
    assert read_ledger(tmp_path / "out/work")[-1].read == 0


def test_shards_of_another_work_are_not_touched(tmp_path):
    (tmp_path / "out" / "shards").mkdir(parents=True)
    with pytest.raises(ConfigError, match="Move it away"):
        curated(whole_pipeline(tmp_path), tmp_path / "out")


def count_parts(out: Path) -> int:
    return sum(1 for _ in out.glob("work/*/*/[!.]*"))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from curating import curated
from test_curate_pipeline import whole_pipeline
if __name__ == "__main__":
    curated(whole_pipeline(Path(sys.argv[1])), Path(sys.argv[1]) / "out", workers=2)
"""


def test_killed_at_any_moment_it_comes_to_the_same_shards(tmp_path):
    undisturbed = curated(whole_pipeline(tmp_path), tmp_path / "undisturbed")
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    words = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)]
    for moment in random.Random(0).sample(range(12), 6):
        with started(words, start_new_session=True) as process:
            wait_until(lambda: process.poll() is not None or count_parts(tmp_path / "out") >= 4 * moment)  # noqa: B023
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert curated(whole_pipeline(tmp_path), tmp_path / "out", workers=2) == undisturbed
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.name.endswith((".part", ".old"))]
