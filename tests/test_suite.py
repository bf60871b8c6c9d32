import json
import shutil
from pathlib import Path

import pytest

from diptych.errors import ConfigError, DataError
from diptych.eval import suite as module
from diptych.eval.features import ModelFeatures
from diptych.eval.outcomes import read_results
from diptych.eval.suite import SuiteResult, find_sets, run_suite
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.files import folder_lock
from diptych.runtime import generator
from diptych.weights.bundle import Bundle

NAMES = [
    "captioned.retrieval",
    "colours.linear-probe",
    "colours.zero-shot",
    "shades.linear-probe",
    "shades.zero-shot",
]


def run(bundle: Bundle, data: Path, out: Path, **options) -> list[SuiteResult]:
    features = ModelFeatures(bundle, cache=out / "features")
    return list(run_suite(features, find_sets(data), out, model="tiny", **options))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.json"))}


def test_each_set_gives_a_file_of_each_measurement(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    results = run(tiny_bundle, labelled_sets, tmp_path / "out", seed=4)
    assert sorted(f"{result.data}.{result.task}" for result in results) == NAMES
    assert sorted(contents(tmp_path / "out")) == [f"{name}.json" for name in NAMES]
    found = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in NAMES}
    data = find_sets(labelled_sets)[2]
    twin = evaluate_zero_shot(tiny_bundle, module.read_labelled(data.folder), seed=4)
    zero_shot = found["shades.zero-shot"]
    assert (zero_shot["top1"], zero_shot["skipped"]) == (twin.top1, {"not an image": 1})
    assert (zero_shot["metric"], zero_shot["value"], zero_shot["seed"]) == ("accuracy", twin.top1, 4)
    assert found["colours.linear-probe"]["train_data"]["split"] == "train"
    assert found["colours.linear-probe"]["examples"]["test"] == 12
    assert found["captioned.retrieval"]["text_to_image"]["queries"] == 24
    given = [json.loads(json.dumps(result.values)) for result in results]
    assert given == [found[f"{result.data}.{result.task}"] for result in results]


def test_a_second_run_keeps_what_was_measured_alike(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    started: list[str] = []
    out = tmp_path / "out"
    run(tiny_bundle, labelled_sets, out)
    before = contents(out)
    assert all(result.kept for result in run(tiny_bundle, labelled_sets, out, on_start=started.append))
    assert started == []
    (out / "colours.zero-shot.json").unlink()
    (out / "shades.zero-shot.json").write_text('{"half": ')  # as another program might leave it
    picture = labelled_sets / "shades" / "train" / "red" / "0.png"
    results = run(tiny_bundle, labelled_sets, out, on_start=started.append)
    assert started == ["colours, zero-shot", "shades, zero-shot"]
    assert contents(out) == before
    picture.write_bytes(picture.with_name("1.png").read_bytes())  # only the probe has seen it
    results = run(tiny_bundle, labelled_sets, out)
    assert [result.title for result in results if not result.kept] == ["shades, linear-probe"]
    assert not any(result.kept for result in run(tiny_bundle, labelled_sets, out, seed=1))


def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(tiny_bundle, labelled_sets, tmp_path, monkeypatch):
    whole = run(tiny_bundle, labelled_sets, tmp_path / "whole")
    plain, written = module.write_json, []

    def write(path: Path, values) -> None:
        if len(written) % 2:
            written.append(None)
            raise KeyboardInterrupt
        plain(path, values)
        written.append(path)

    monkeypatch.setattr(module, "write_json", write)
    out = tmp_path / "out"
    for _ in range(len(whole) - 1):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_bundle, labelled_sets, out)
        for path in out.glob("*.json"):
            json.loads(path.read_text())
    assert len(run(tiny_bundle, labelled_sets, out)) == len(whole)
    assert contents(out) == contents(tmp_path / "whole")


def test_results_from_stored_features_are_those_of_a_fresh_run(tiny_bundle, labelled_sets, tmp_path, monkeypatch):
    run(tiny_bundle, labelled_sets, tmp_path / "fresh")
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "fresh" / "features", tmp_path / "again" / "features")
    monkeypatch.setattr(Bundle, "encode_pixels_and_trunk", None)  # would fail
    monkeypatch.setattr(Bundle, "encode_texts", None)
    run(tiny_bundle, labelled_sets, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "fresh")


def test_pictures_are_encoded_once_for_words_and_probe(tiny_bundle, labelled_sets, tmp_path, monkeypatch):
    seen, plain = [], Bundle.encode_pixels_and_trunk
    monkeypatch.setattr(
        Bundle, "encode_pixels_and_trunk", lambda bundle, pixels: (seen.append(len(pixels)), plain(bundle, pixels))[1]
    )
    run(tiny_bundle, labelled_sets, tmp_path / "out")
    assert sum(seen) == 12 + 24 + 23  # captioned, colours, shades without the broken one


def test_what_fails_is_said_and_the_others_go_on(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    (labelled_sets / "captioned" / "test" / "0.tar").write_bytes(b"no tar")
    for path in (labelled_sets / "colours" / "train").rglob("*.png"):
        path.write_text("broken")
    results = run(tiny_bundle, labelled_sets, tmp_path / "out")
    failed = {result.title: result.error for result in results if result.error}
    assert failed.keys() == {"captioned, retrieval", "colours, linear-probe"}
    assert "0.tar" in failed["captioned, retrieval"]
    assert "It has none of 12 (not an image 12)" in failed["colours, linear-probe"]
    assert all("\n" not in sentence for sentence in failed.values())
    assert sorted(contents(tmp_path / "out")) == [f"{name}.json" for name in NAMES if name not in
                                                  ("captioned.retrieval", "colours.linear-probe")]  # fmt: skip


def test_known_tasks_have_the_words_and_the_metric_of_the_table(tiny_bundle, labelled_sets: Path, tmp_path: Path):
    shutil.move(labelled_sets / "colours", tmp_path / "few" / "Caltech-101")
    [one] = find_sets(tmp_path / "few")
    assert one.task
    assert (one.task.name, one.train_split) == ("caltech101", "train")
    first, _ = run(tiny_bundle, tmp_path / "few", tmp_path / "out")
    zero_shot = first.values
    assert zero_shot, first.error
    assert zero_shot["templates"] == list(one.task.templates)
    assert (zero_shot["metric"], zero_shot["value"]) == ("mean per class", zero_shot["mean_per_class"])


def test_sets_are_found_by_their_layout_and_by_name(labelled_sets: Path):
    (labelled_sets / "results").mkdir()
    (labelled_sets / "results" / "a.json").write_text("{}")
    (labelled_sets / ".hidden" / "test").mkdir(parents=True)
    plain = labelled_sets / "plain"
    shutil.copytree(labelled_sets / "colours" / "test", plain)  # CLASS/picture, without splits
    found = {one.name: (one.kind, one.split, one.train_split) for one in find_sets(labelled_sets)}
    assert found == {
        "captioned": ("retrieval", "test", None),
        "colours": ("classification", "test", "train"),
        "plain": ("classification", "test", None),
        "shades": ("classification", "test", "train"),
    }
    assert [one.name for one in find_sets(labelled_sets, ["shades", "plain"])] == ["shades", "plain"]
    assert [one.name for one in find_sets(labelled_sets / "colours")] == ["colours"]  # one set itself
    (labelled_sets / "captioned" / "test").rename(labelled_sets / "captioned" / "val")
    assert find_sets(labelled_sets, ["captioned"])[0].split == "val"


def test_a_validation_split_chooses_the_strength(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    shutil.copytree(labelled_sets / "colours" / "test", labelled_sets / "colours" / "val")
    [one] = find_sets(labelled_sets, ["colours"])
    assert (one.split, one.validation_split) == ("test", "val")
    features = ModelFeatures(tiny_bundle)
    probe = list(run_suite(features, [one], tmp_path / "out", model="tiny"))[1].values
    assert probe
    assert (probe["train_data"]["validation"], probe["examples"]["validation"]) == ("val", 12)


def test_what_cannot_be_is_said(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    with pytest.raises(DataError, match="must be a folder of data sets"):
        find_sets(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="must hold a folder for each data set"):
        find_sets(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"shads is not a data set in .*Did you mean shades\?"):
        find_sets(labelled_sets, ["shads"])
    out = tmp_path / "out"
    run(tiny_bundle, labelled_sets, out)
    other = Bundle(
        model=type(tiny_bundle.model)(tiny_bundle.model.config, generator(7)).eval(),
        preprocess=tiny_bundle.preprocess,
        tokenizer=tiny_bundle.tokenizer,
    )
    with pytest.raises(ConfigError, match=r"must hold results of this model\. captioned\.retrieval\.json is of tiny"):
        run(other, labelled_sets, out)
    with folder_lock(out), pytest.raises(ConfigError, match="another process works in it"):
        run(tiny_bundle, labelled_sets, out)


def test_files_are_those_that_reports_and_comparisons_read(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    run(tiny_bundle, labelled_sets, tmp_path / "out")
    found = read_results(tmp_path / "out")
    assert [(result.data, result.task) for result in found] == [
        ("colours", "linear-probe"),
        ("colours", "zero-shot"),
        ("shades", "linear-probe"),
        ("shades", "zero-shot"),
    ]
