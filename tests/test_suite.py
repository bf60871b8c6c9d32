import shutil
from pathlib import Path

import pytest

import diptych
from diptych.errors import ConfigError, DataError
from diptych.eval import suite as module
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import find_sets, one_set
from diptych.eval.measure import evaluate_zero_shot
from diptych.eval.result import Result, interval_of
from diptych.eval.result_file import read_result, read_results
from diptych.eval.result_tables import sets_table
from diptych.eval.suite import Asked, Measured, measure_one, run_suite
from diptych.files import folder_lock
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from toys import nine_kinds

NAMES = [
    "captioned.retrieval",
    "colours.linear-probe",
    "colours.zero-shot",
    "shades.linear-probe",
    "shades.zero-shot",
]


def run(bundle: Bundle, data: Path, out: Path, *, seed: int = 0, **options) -> list[Measured]:
    features = ModelFeatures(bundle, cache=out / "features")
    return list(run_suite(features, find_sets(data), out, Asked(model="tiny", seed=seed), **options))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.json"))}


def test_each_set_gives_a_file_of_each_measurement(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    done = run(tiny_bundle, labelled_sets, tmp_path / "out", seed=4)
    assert sorted(f"{one.data}.{one.measurement}" for one in done) == NAMES
    assert sorted(contents(tmp_path / "out")) == [f"{name}.json" for name in NAMES]
    found = {name: read_result(tmp_path / "out" / f"{name}.json") for name in NAMES}
    twin = evaluate_zero_shot(tiny_bundle, read_labelled(labelled_sets / "shades"), seed=4)
    zero_shot = found["shades.zero-shot"]
    assert (zero_shot.metric, zero_shot.value, zero_shot.interval) == ("accuracy", twin.value, twin.interval)
    assert (zero_shot.skipped, zero_shot.data.name) == ({"not an image": 1}, "shades")
    assert zero_shot.rows.keys == twin.rows.keys
    assert (zero_shot.model.name, zero_shot.model.fingerprint) == ("tiny", tiny_bundle.fingerprint())
    assert zero_shot.conditions
    assert (zero_shot.conditions.seed, zero_shot.conditions.precision) == (4, "float32")
    assert zero_shot.conditions.versions["diptych"] == diptych.__version__
    assert {"torch", "python", "pillow"} < zero_shot.conditions.versions.keys()
    assert {"cpu", "cores"} <= zero_shot.conditions.hardware.keys()
    probe = found["colours.linear-probe"].probe
    assert probe
    assert (probe.train.split, probe.train.name, found["colours.linear-probe"].n) == ("train", "colours", 12)
    retrieval = found["captioned.retrieval"].retrieval
    assert retrieval
    assert len(retrieval.text_to_image.ranks) == 24
    given = [one.result.value for one in done if one.result]
    assert given == [found[f"{one.data}.{one.measurement}"].value for one in done]


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
    plain, written = module.write_result, []

    def write(result: Result, path: Path) -> None:
        if len(written) % 2:
            written.append(None)
            raise KeyboardInterrupt
        plain(result, path)
        written.append(path)

    monkeypatch.setattr(module, "write_result", write)
    out = tmp_path / "out"
    for _ in range(len(whole) - 1):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_bundle, labelled_sets, out)
        for path in out.glob("*.json"):
            read_result(path)
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
    for done in run(tiny_bundle, tmp_path / "few", tmp_path / "out"):
        result = done.result
        assert result, done.error
        assert result.prompts.templates == one.task.templates
        assert (result.metric, result.value) == ("mean per class", result.numbers["mean per class"])
        assert result.interval == interval_of(result.rows, "mean per class", seed=0)


def test_one_set_is_a_suite_of_one(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    (labelled_sets / "colours").rename(labelled_sets / "cifar10")
    run(tiny_bundle, labelled_sets, tmp_path / "suite", seed=2)
    features, out = ModelFeatures(tiny_bundle), tmp_path / "alone"
    for name, measurement in (("cifar10", "zero-shot"), ("cifar10", "linear-probe"), ("captioned", "retrieval")):
        measure_one(
            lambda: features, one_set(labelled_sets / name, measurement), measurement, Asked(model="tiny", seed=2), out
        )
        file = f"{name}.{measurement}.json"
        assert (out / file).read_bytes() == (tmp_path / "suite" / file).read_bytes()
    assert all(one.kept for one in run(tiny_bundle, labelled_sets, tmp_path / "suite", seed=2))


def test_a_result_of_one_command_in_the_folder_is_kept(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    path = tmp_path / "out" / "shades.zero-shot.json"
    one = one_set(labelled_sets / "shades", "zero-shot")
    result = measure_one(lambda: ModelFeatures(tiny_bundle), one, "zero-shot", Asked(model="tiny"), path)
    done = {one.title: one for one in run(tiny_bundle, labelled_sets, tmp_path / "out")}
    assert [title for title, one in done.items() if one.kept] == ["shades, zero-shot"]
    kept = done["shades, zero-shot"].result
    assert kept
    assert sets_table([kept])[1][0][:4] == ["shades", "accuracy", "11", f"{result.value:.2%}"]
    other = Asked(model="tiny", templates=("no {}",))  # other prompts are another measurement
    measure_one(lambda: ModelFeatures(tiny_bundle), one, "zero-shot", other, path)
    again = {one.title: one.kept for one in run(tiny_bundle, labelled_sets, tmp_path / "out")}
    assert [title for title, kept in again.items() if not kept] == ["shades, zero-shot"]


def test_two_rows_of_the_table_may_share_a_folder(tiny_bundle: Bundle, tmp_path: Path):
    data = nine_kinds(tmp_path / "data")
    found = find_sets(data, ["ucf101", "ucf101_frames"])
    assert [(one.name, one.folder.name) for one in found] == [("ucf101", "ucf101"), ("ucf101_frames", "ucf101")]
    done = list(run_suite(ModelFeatures(tiny_bundle), found, tmp_path / "out", Asked(model="tiny")))
    assert [one.result and one.result.data.name for one in done] == ["ucf101", "ucf101_frames"]
    assert sorted(contents(tmp_path / "out")) == ["ucf101.zero-shot.json", "ucf101_frames.zero-shot.json"]


def test_a_validation_split_chooses_the_strength(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    shutil.copytree(labelled_sets / "colours" / "test", labelled_sets / "colours" / "val")
    [one] = find_sets(labelled_sets, ["colours"])
    assert (one.split, one.validation_split) == ("test", "val")
    features = ModelFeatures(tiny_bundle)
    probe = list(run_suite(features, [one], tmp_path / "out", Asked(model="tiny")))[1].result
    assert probe
    assert probe.probe
    assert (probe.probe.validation, probe.probe.validation_examples) == ("val", 12)
    alone = one_set(labelled_sets / "colours", "linear-probe")
    assert (alone.split, alone.validation_split) == ("test", "val")


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
    found, notes = read_results(tmp_path / "out")
    assert notes == []
    assert [path.stem for path in found] == NAMES


def test_what_is_wrong_with_the_data_is_said_before_a_model_is_loaded(labelled_sets: Path, tmp_path: Path):
    def load() -> ModelFeatures:
        raise AssertionError

    colours = one_set(labelled_sets / "colours", "zero-shot", split="tset")
    with pytest.raises(DataError, match="has no split 'tset'"):
        measure_one(load, colours, "zero-shot", Asked(model="m"))
    for split in ("train", "test"):
        for folder in (labelled_sets / "colours" / split).iterdir():
            folder.rename(folder.with_name(f"n0000000{len(folder.name)}"))
    with pytest.raises(DataError, match="are WordNet ids"):
        measure_one(load, one_set(labelled_sets / "colours", "zero-shot"), "zero-shot", Asked(model="m"))
    shades = one_set(labelled_sets / "shades", "linear-probe", validation_split="vla")
    with pytest.raises(DataError, match="has no split 'vla'"):
        measure_one(load, shades, "linear-probe", Asked(model="m"))
