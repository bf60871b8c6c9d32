import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from diptych.audit.overlap import OVERLAP_FORMAT, Overlap, conditions_of, find_overlap, shown_pairs, write_overlap
from diptych.curate.copies import THRESHOLD, detector_sha256
from diptych.errors import ConfigError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import EvaluationSet, find_sets
from diptych.eval.result import ModelId, Result
from diptych.eval.suite import Asked, run_suite
from diptych.measures.contamination import overlap_score
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Pairs, Source, open_pairs
from diptych.weights.bundle import Bundle
from scenes import CHANGES, jpeg, scene

PLANTED = {"day/1": ("mirrored", 1), "night/11": ("crop 75 %", 11), "night/13": ("grey", 13)}


@pytest.fixture
def sets(tmp_path: Path) -> list[EvaluationSet]:
    for name, numbers in (("day", range(6)), ("night", range(10, 16))):
        folder = tmp_path / "data" / "sky" / "test" / name
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"{number}.jpg").write_bytes(jpeg(scene(number)))
    bare = tmp_path / "data" / "bare" / "test" / "thing"
    bare.mkdir(parents=True)
    (bare / "0.jpg").write_bytes(jpeg(scene(70)))
    return find_sets(tmp_path / "data")


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    with ShardWriter(tmp_path / "train") as writer:
        for number in range(100, 112):
            writer.add(f"t{number}", {"jpg": jpeg(scene(number)), "txt": b"a sky"})
        for key, (change, number) in PLANTED.items():
            writer.add(
                f"copy of {key.replace('/', '-')}", {"jpg": jpeg(CHANGES[change](scene(number))), "txt": b"a sky"}
            )
        writer.add("broken", {"jpg": b"no picture", "txt": b"a sky"})
    return open_pairs(Source(path=str(tmp_path / "train")))


def overlapping(found: Overlap, name: str) -> dict[str, str]:
    one = next(one for one in found.sets if one.data.name == name)
    rows = np.flatnonzero(one.nearest.scores.numpy() >= found.threshold)
    return {one.nearest.keys[row].removesuffix(".jpg"): one.nearest.train_keys[row] for row in rows}


def test_planted_copies_are_found_and_nothing_else(sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path):
    found = find_overlap(pairs, sets, tmp_path / "kept")
    assert overlapping(found, "sky") == {key: f"copy of {key.replace('/', '-')}" for key in PLANTED}
    assert overlapping(found, "bare") == {}
    sky = next(one for one in found.sets if one.data.name == "sky")
    assert (sky.n, sky.overlap, sky.contamination, sky.score) == (12, 3, 0.25, None)
    row = sky.nearest.keys.index("day/1.jpg")
    assert sky.nearest.mirrored[row]
    assert pairs[int(sky.nearest.train_numbers[row])].key == "copy of day-1"
    assert sky.nearest.hash_bits[row] <= 10
    assert (found.train_pictures, found.train_skipped) == (16, {"not an image": 1})
    assert (found.threshold, found.detector) == (THRESHOLD, detector_sha256())


def test_the_size_of_parts_changes_nothing(sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path):
    whole = find_overlap(pairs, sets, tmp_path / "kept")
    parts = find_overlap(pairs, sets, tmp_path / "kept", part_size=5)
    for a, b in zip(whole.sets, parts.sets, strict=True):
        assert (a.nearest.keys, a.nearest.train_keys, a.overlap) == (b.nearest.keys, b.nearest.train_keys, b.overlap)
        for name in ("train_numbers", "scores", "hash_bits", "mirrored"):
            np.testing.assert_array_equal(getattr(a.nearest, name), getattr(b.nearest, name))


def test_another_threshold_looks_at_no_picture_again(
    sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find_overlap(pairs, sets, tmp_path / "kept")
    monkeypatch.setattr("diptych.audit.stored_sketches.small_grey", lambda *_: pytest.fail("looked at"))
    assert find_overlap(pairs, sets, tmp_path / "kept", threshold=1.0).sets[-1].overlap == 0


def test_a_score_is_split_by_the_pictures_that_overlap(
    sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path, tiny_bundle: Bundle
):
    results = measured(sets, tmp_path, tiny_bundle)
    found = find_overlap(pairs, sets, tmp_path / "kept", results=results)
    sky = next(one for one in found.sets if one.data.name == "sky")
    result = next(result for result in results if result.data.name == "sky")
    assert result.rows.correct is not None
    is_overlap = np.array([key.removesuffix(".jpg") in PLANTED for key in result.rows.keys])
    assert sky.score == overlap_score(result.rows.correct.numpy(), is_overlap)
    assert sky.score is not None
    assert sky.score.all_ == pytest.approx(result.value)
    assert (sky.measured, found.model) == ("zero-shot", result.model)
    assert sky.corrected == sky.score.p_value  # of two sets one has an overlap, and is tested
    bare = next(one for one in found.sets if one.data.name == "bare")
    assert bare.score is not None
    assert (bare.score.p_value, bare.corrected, bare.score.gain) == (None, None, 0.0)


def test_the_file_says_all_and_is_the_same_again(sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path):
    for name in ("a", "b"):
        write_overlap(find_overlap(pairs, sets, tmp_path / "kept"), tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["format"] == OVERLAP_FORMAT
    sky = next(one for one in content["sets"] if one["data"]["name"] == "sky")
    assert sky["overlap"] == 3
    assert len(sky["nearest"]["scores"].split()) == len(sky["nearest"]["keys"]) == 12
    assert content["train_sha256"] == pairs.fingerprint()


def test_pairs_about_the_threshold_are_shown_nearest_first(sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path):
    found = find_overlap(pairs, sets, tmp_path / "kept")
    above, below = shown_pairs(found, sets, pairs, 2)
    scores = sorted(score for one in found.sets for score in one.nearest.scores.tolist())
    assert [float(pair.note.split()[1].strip(",;")) for pair in above] == pytest.approx(scores[-3:-1], abs=1e-3)
    assert len(below) <= 2
    assert above[0].right_label.startswith("training: copy of ")
    assert above[0].left_label.startswith("sky: ")
    assert conditions_of(found)["training pictures"].endswith("train, 16")


def test_what_does_not_fit_is_refused(sets: list[EvaluationSet], pairs: Pairs, tmp_path: Path, tiny_bundle: Bundle):
    with pytest.raises(ConfigError, match=r"threshold must lie between 0 and 1\. Got 0"):
        find_overlap(pairs, sets, tmp_path / "kept", threshold=0)
    result = measured(sets, tmp_path, tiny_bundle)[0]
    other = dataclasses.replace(result, model=ModelId(name="another"))
    with pytest.raises(ConfigError, match=r"results must be of one model\. Got another, tiny"):
        find_overlap(pairs, sets, tmp_path / "kept", results=[result, other])


def measured(sets: list[EvaluationSet], tmp_path: Path, bundle: Bundle) -> list[Result]:
    features = ModelFeatures(bundle, cache=tmp_path / "features")
    return [one.result for one in run_suite(features, sets, tmp_path / "results", Asked(model="tiny")) if one.result]
