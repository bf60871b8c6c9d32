"""curate/remove.py: what must go is gone from everywhere."""

import json
import shutil

import pytest

from curating import curated, digests
from diptych.curate.remove import Removal, all_removed, remove_samples
from diptych.errors import ConfigError
from diptych.pairs.sources import Source, open_pairs
from test_curate_pipeline import whole_pipeline


def told(out):
    pairs = open_pairs(Source(path=str(out / "shards")))
    return {pairs[i].key: json.loads(pairs[i].parts["json"]) for i in range(len(pairs))}


def test_a_domain_goes_out_of_shards_work_and_later_runs(tmp_path):
    before = curated(whole_pipeline(tmp_path), tmp_path / "out")
    there = told(tmp_path / "out")
    meant = {key for key, facts in there.items() if "//h2.example/" in facts["url"]}
    assert 0 < len(meant) < len(there)
    assert remove_samples(tmp_path / "out", Removal(domains=("H2.example",), note="asked by their owner")) == len(meant)
    assert told(tmp_path / "out") == {key: facts for key, facts in there.items() if key not in meant}
    after = digests(tmp_path / "out")
    assert curated(whole_pipeline(tmp_path), tmp_path / "out") == after
    assert after != before
    note = json.loads((tmp_path / "out/removed.json").read_text())
    assert note == [{"keys": sorted(meant), "domains": ["H2.example"], "note": "asked by their owner"}]
    changed = curated(whole_pipeline(tmp_path, letters=9), tmp_path / "out")
    assert changed
    assert not [facts for facts in told(tmp_path / "out").values() if "//h2." in facts["url"]]


def test_only_shards_that_hold_it_are_rewritten_and_pictures_are_blanked(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    out = tmp_path / "out"
    pairs = open_pairs(Source(path=str(out / "shards")))
    pictures = [pairs[i].picture or b"" for i in range(len(pairs))]
    first = next(pairs[i] for i in range(10) if sum(pictures[i] in other for other in pictures) == 1)
    assert first.picture
    before = digests(out)
    assert remove_samples(out, Removal(keys=(first.key, "unknown"))) == 1
    after = digests(out)
    changed = {name for name in before if before[name] != after[name]}
    assert {name for name in changed if name.startswith("shards")} == {"shards/shard-00000.tar", "shards/manifest.json"}
    assert [name.rpartition("/")[2] for name in changed if name.startswith("work")] == ["pictures.parquet"]
    held = [path for path in out.rglob("*") if path.is_file() and first.picture in path.read_bytes()]
    assert held == []
    assert remove_samples(out, Removal(keys=(first.key,))) == 0
    assert all_removed(out).keys == (*sorted([first.key, "unknown"]),)


def test_shards_without_their_work_lose_what_must_go_too(tmp_path):
    curated(whole_pipeline(tmp_path), tmp_path / "out")
    shutil.rmtree(tmp_path / "out/work")
    key = next(iter(told(tmp_path / "out")))
    assert remove_samples(tmp_path / "out", Removal(keys=(key,))) == 1
    assert key not in told(tmp_path / "out")


def test_a_domain_is_itself_and_what_lies_below_it():
    removal = Removal(domains=("example.org",))
    assert removal.wants("k", ["https://img.example.org:8080/a.jpg"])
    assert removal.wants("k", ["https://other.net/a.jpg", "https://example.org./page"])
    assert not removal.wants("k", ["https://badexample.org/a.jpg", "https://other.net/example.org/a.jpg"])


def test_nothing_named_or_no_shards_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="keys or domains"):
        remove_samples(tmp_path, Removal())
    with pytest.raises(ConfigError, match="must hold shards"):
        remove_samples(tmp_path, Removal(keys=("a",)))
