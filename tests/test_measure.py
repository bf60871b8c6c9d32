import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.classify import ZeroShotClassifier
from diptych.data.prompts import TEMPLATES
from diptych.errors import ConfigError, DataError
from diptych.eval.features import ModelFeatures
from diptych.eval.kinds import EncoderWords
from diptych.eval.measure import Split, evaluate_zero_shot, measure_probe, open_task, score_pictures
from diptych.eval.picture_features import encode_pictures
from diptych.eval.result_file import read_result, write_result
from diptych.eval.tasks import FewShot
from diptych.measures.few_shot import few_shot_curve, probe_learner, tip_adapter_learner
from diptych.measures.linear_probe import hold_out, train_linear_probe
from diptych.measures.retrieval import retrieval
from diptych.sets.captioned import read_retrieval
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from test_eval_tasks import task
from test_kinds import Encoder
from toys import draw


@pytest.fixture
def features(tiny_bundle: Bundle) -> ModelFeatures:
    return ModelFeatures(tiny_bundle)


@pytest.fixture
def colours(tmp_path: Path) -> LabelledImages:
    """Four good pictures, of which the class folder is wrong for one, and two broken ones."""
    draw(tmp_path / "set", red__0="red", red__1="blue", green__0="lime", blue__0="blue")
    (tmp_path / "set" / "green" / "1.png").write_bytes(b"")
    (tmp_path / "set" / "blue" / "1.png").write_bytes((tmp_path / "set" / "red" / "0.png").read_bytes()[:50])
    return read_labelled(tmp_path / "set")


def test_evaluation_counts_a_broken_picture_and_leaves_it_out(colours):
    result = evaluate_zero_shot(Encoder(), colours, batch_size=3)
    assert result.skipped == {"truncated": 1, "empty": 1}
    assert (result.n, len(result.prompts.labels)) == (4, 3)
    assert result.rows.keys == ("blue/0.png", "green/0.png", "red/0.png", "red/1.png")
    assert result.rows.targets is not None
    assert result.rows.predictions is not None
    assert (result.rows.targets.tolist(), result.rows.predictions.tolist()) == ([0, 1, 2, 2], [0, 1, 2, 0])
    assert (result.metric, result.value) == ("accuracy", 3 / 4)
    assert result.numbers == {"top-1": 3 / 4, "mean per class": pytest.approx((1 + 1 + 1 / 2) / 3)}


def test_two_classes_of_one_name_tie_and_count_as_missed(colours):
    twins = dataclasses.replace(colours, classnames=("blue", "green", "green"))
    assert evaluate_zero_shot(Encoder(), twins).value == 1 / 4  # of blue, green, red, red only the first


def test_a_set_without_a_readable_picture_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 \(empty 1\)"):
        evaluate_zero_shot(Encoder(), read_labelled(tmp_path))


def test_prompts_are_those_asked_for_then_the_row_s_then_the_set_s_then_the_bare_name(colours):
    own = dataclasses.replace(colours, templates=("own {}",))
    known = dataclasses.replace(own, name="CIFAR-10")
    for data, templates, used, source in [
        (known, ["a {c}"], ("a {}",), "as asked for"),
        (known, None, TEMPLATES["cifar"], "of the row cifar10 of the table of tasks"),
        (own, None, ("own {}",), "the set's own"),
        (colours, None, ("{}",), "the bare name"),
    ]:
        encoder = Encoder()
        prompts = evaluate_zero_shot(encoder, data, templates=templates).prompts
        assert (prompts.templates, prompts.source) == (used, source)
        assert encoder.text_batches[0][0] == used[0].replace("{}", "blue")


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 3 / 4), ("mean per class", (1 + 1 + 1 / 2) / 3)])
def test_the_number_and_its_interval_are_of_the_metric_of_the_row(colours, metric, value):
    row = task(metric=metric)
    result = evaluate_zero_shot(Encoder(), colours, task=row)
    assert (result.metric, result.task, result.value) == (metric, "t", pytest.approx(value))
    assert result.interval
    highest = {"accuracy": 1.0, "mean per class": 1.0}[metric]
    assert result.interval.low < result.value < result.interval.high <= highest


def test_features_from_a_cache_give_the_same(tmp_path, colours):
    one = task()
    pictures = open_task(one, tmp_path / "set")
    encoded = encode_pictures(Encoder().encode_images, pictures)
    cached = score_pictures(EncoderWords(Encoder()), pictures, encoded, task=one)
    for name, result in (("a", cached), ("b", evaluate_zero_shot(Encoder(), colours, task=one))):
        write_result(result, tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def split(features: ModelFeatures, folder: Path, name: str) -> Split:
    data = read_labelled(folder, split=name)
    return Split(data=data, pictures=features.pictures(data))


def test_stored_features_score_as_the_plain_evaluation(features: ModelFeatures, labelled_sets: Path, tmp_path: Path):
    test = split(features, labelled_sets / "shades", "test")
    found = score_pictures(features, test.data, test.pictures, templates=["a {}"], seed=2)
    twin = evaluate_zero_shot(features.bundle, test.data, templates=["a {}"], seed=2)
    assert (found.value, found.interval, found.numbers) == (twin.value, twin.interval, twin.numbers)
    classifier = ZeroShotClassifier(features.bundle, test.data.classnames, ["a {}"])
    chances = classifier([test.data.open(index) for index in test.pictures.kept])
    assert found.rows.predictions is not None
    assert found.rows.predictions.tolist() == chances.argmax(axis=1).tolist()
    write_result(found, tmp_path / "a.json")
    confidences = read_result(tmp_path / "a.json").rows.confidences
    torch.testing.assert_close(confidences, torch.from_numpy(chances.max(axis=1)).double(), atol=1e-3, rtol=0)


def test_a_class_may_have_other_names_than_the_set_says(features: ModelFeatures, labelled_sets: Path):
    test = split(features, labelled_sets / "colours", "test")
    row = task(renamed={"green": ("green", "lime")})
    found = score_pictures(features, test.data, test.pictures, task=row, templates=["{}"])
    classifier = ZeroShotClassifier(features.bundle, [["blue"], ["green", "lime"], ["red"]])
    guesses = classifier.probabilities(test.pictures.image_features.numpy()).argmax(axis=1).tolist()
    assert found.rows.predictions is not None
    assert found.rows.predictions.tolist() == guesses
    assert (found.prompts.names, found.prompts.classnames[1]) == (("blue", "green", "red"), ("green", "lime"))


def test_texts_are_encoded_once_whatever_the_metric(features: ModelFeatures, labelled_sets: Path, monkeypatch):
    test = split(features, labelled_sets / "colours", "test")
    seen, plain = [], Bundle.encode_texts
    monkeypatch.setattr(
        Bundle, "encode_texts", lambda bundle, texts, **more: (seen.extend(texts), plain(bundle, texts, **more))[1]
    )
    score_pictures(features, test.data, test.pictures, task=task(metric="mean per class"), templates=["a {}", "{}"])
    assert len(seen) == len(set(seen)) == 6


def test_a_probe_is_scored_by_the_metric_of_the_row(features: ModelFeatures, labelled_sets: Path):
    train, test = (split(features, labelled_sets / "shades", name) for name in ("train", "test"))
    wrong = dataclasses.replace(test.data, targets=np.where(np.arange(len(test.data)) < 2, 2, test.data.targets))
    probe = measure_probe(
        features, train, Split(data=wrong, pictures=test.pictures), task=task(metric="mean per class"), seed=0
    )
    assert (probe.metric, probe.value) == ("mean per class", probe.numbers["mean per class"])
    assert probe.value != probe.numbers["top-1"]
    folds = measure_probe(features, train, test, task=task(metric="mean of 10 folds"), seed=0)
    assert (folds.metric, folds.value) == ("accuracy", folds.numbers["top-1"])


def test_a_probe_is_the_probe_of_its_features(features: ModelFeatures, labelled_sets: Path):
    train, test = (split(features, labelled_sets / "colours", name) for name in ("train", "test"))
    found = measure_probe(features, train, test, templates=["{}"], seed=0)
    kept, aside = hold_out(train.pictures.examples(train.data), share=0.2, seed=0)
    probe, chosen = train_linear_probe(kept, aside)
    right = probe.scores(test.pictures.trunk).argmax(dim=1) == torch.tensor(test.data.targets)
    assert found.value == found.numbers["top-1"] == right.double().mean().item()
    assert found.probe
    assert (found.probe.l2, found.probe.tried) == (probe.l2, chosen.tried)
    assert found.probe.zero_shot == evaluate_zero_shot(features.bundle, test.data).value
    assert (found.probe.few_shot, found.probe.worth) == ((), None)
    assert found.rows.correct is not None
    assert found.rows.correct.tolist() == right.tolist()


def test_each_learner_gets_the_features_it_is_made_for(features: ModelFeatures, labelled_sets: Path):
    train, test, other = (split(features, labelled_sets / "colours", name) for name in ("train", "test", "test"))
    asked = FewShot(shots=(2, 1), repeats=2, learners=("probe", "prompt-weights", "tip-adapter"))
    found = measure_probe(features, train, test, other, templates=["{}"], few_shot=asked, seed=1)
    weights, scale = features.class_weights(test.data.classnames, ["{}"]), features.bundle.logit_scale
    projected, trunk = (
        [getattr(one.pictures, kind)(one.data) for one in (train, test, other)]
        for kind in ("projected_examples", "examples")
    )
    assert found.probe
    for name, learner, (pool, measured, _) in (
        ("probe", probe_learner(trunk[2]), trunk),
        ("prompt-weights", probe_learner(projected[2], prior=scale * weights), projected),
        ("tip-adapter", tip_adapter_learner(weights, scale, projected[2]), projected),
    ):
        twin = few_shot_curve(learner, pool, measured, seed=1, shots=[1, 2], repeats=2)
        mine = [one.point for one in found.probe.few_shot if one.learner == name]
        assert [(point.shots, point.scores) for point in mine] == [(point.shots, point.scores) for point in twin]


def test_retrieval_leaves_captions_with_their_pictures(features: ModelFeatures, labelled_sets: Path):
    data = read_retrieval(labelled_sets / "captioned")
    pictures = features.pictures(data)
    fewer = dataclasses.replace(
        pictures, image_features=pictures.image_features[1:], trunk=pictures.trunk[1:], kept=pictures.kept[1:],
        skipped={"truncated": 1},
    )  # fmt: skip
    found = score_pictures(features, data, fewer, templates=["see a {}"], seed=0)
    texts = [f"see a {caption}" for some in data.captions[1:] for caption in some]
    text_features = torch.from_numpy(features.bundle.encode_texts(texts))
    twin = retrieval(fewer.image_features, text_features, torch.arange(22) // 2)
    assert found.retrieval
    assert found.retrieval.to_dict() == twin.to_dict()
    assert (found.n, found.shortened, found.skipped) == (22, 0, {"truncated": 1})
    assert (found.value, found.interval) == (twin.text_to_image.recall[1], twin.text_to_image.intervals[1])


def test_splits_that_do_not_fit_and_learners_that_are_none_are_said(features: ModelFeatures, labelled_sets: Path):
    train, test = (split(features, labelled_sets / "colours", name) for name in ("train", "test"))
    renamed = Split(data=dataclasses.replace(test.data, classnames=("a", "b", "c")), pictures=test.pictures)
    with pytest.raises(DataError, match="train, test of colours must have the same classes"):
        measure_probe(features, train, renamed, seed=0)
    asked = FewShot(shots=(1,), learners=("magic",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"must be probe, prompt-weights or tip-adapter\. Got 'magic'"):
        measure_probe(features, train, test, few_shot=asked, seed=0)
