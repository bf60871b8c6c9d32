import dataclasses
import json
from pathlib import Path

import pytest
import torch

from diptych.classify import ZeroShotClassifier
from diptych.errors import ConfigError, DataError
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import Split, measure_probe, measure_retrieval, measure_zero_shot
from diptych.eval.outcomes import Outcomes
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.measures.few_shot import few_shot_curve, probe_learner, tip_adapter_learner
from diptych.measures.linear_probe import hold_out, train_linear_probe
from diptych.measures.retrieval import retrieval
from diptych.sets.captioned import read_retrieval
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle


@pytest.fixture
def features(tiny_bundle: Bundle) -> ModelFeatures:
    return ModelFeatures(tiny_bundle)


def split(features: ModelFeatures, folder: Path, name: str) -> Split:
    data = read_labelled(folder, split=name)
    return Split(data=data, pictures=features.pictures(data))


def test_zero_shot_equals_the_plain_evaluation(features: ModelFeatures, labelled_sets: Path):
    test = split(features, labelled_sets / "shades", "test")
    found = measure_zero_shot(features, test.data, test.pictures, templates=["a {}"], seed=2)
    twin = evaluate_zero_shot(features.bundle, test.data, templates=["a {}"], seed=2)
    assert {name: found[name] for name in twin.to_dict()} == twin.to_dict()
    outcomes = Outcomes.from_dict(found["pictures"])
    assert outcomes.predictions.tolist() == twin.predictions.tolist()
    classifier = ZeroShotClassifier(features.bundle, test.data.classnames, ["a {}"])
    sure = classifier([test.data.open(index) for index in test.pictures.kept]).amax(dim=1)
    torch.testing.assert_close(outcomes.confidences, sure, atol=1e-3, rtol=0)
    json.dumps(found)


def test_a_class_may_have_other_names_than_the_set_says(features: ModelFeatures, labelled_sets: Path):
    test = split(features, labelled_sets / "colours", "test")
    labels = [["blue"], ["green", "lime"], ["red"]]
    found = measure_zero_shot(features, test.data, test.pictures, templates=["{}"], labels=labels, seed=0)
    classifier = ZeroShotClassifier(features.bundle, labels)
    guesses = classifier.probabilities(test.pictures.image_features).argmax(dim=1).tolist()
    assert Outcomes.from_dict(found["pictures"]).predictions.tolist() == guesses
    assert found["classnames"] == ["blue", "green", "red"]


def test_a_probe_is_the_probe_of_its_features(features: ModelFeatures, labelled_sets: Path):
    train, test = (split(features, labelled_sets / "colours", name) for name in ("train", "test"))
    found = measure_probe(features, train, test, templates=["{}"], seed=0)
    kept, aside = hold_out(train.pictures.examples(train.data), share=0.2, seed=0)
    probe, chosen = train_linear_probe(kept, aside)
    right = probe.scores(test.pictures.trunk).argmax(dim=1) == torch.tensor(test.data.targets)
    assert found["top1"] == right.double().mean().item()
    assert found["probe"]["l2"] == probe.l2
    assert list(map(float, found["probe"]["tried"])) == pytest.approx(list(chosen.tried), rel=1e-5)
    assert found["zero_shot"]["top1"] == evaluate_zero_shot(features.bundle, test.data).top1
    assert (found["few_shot"], found["zero_shot_is_worth"]) == ([], None)
    assert Outcomes.from_dict(found["pictures"]).correct.tolist() == right.tolist()


def test_each_learner_gets_the_features_it_is_made_for(features: ModelFeatures, labelled_sets: Path):
    train, test, other = (split(features, labelled_sets / "colours", name) for name in ("train", "test", "test"))
    found = measure_probe(
        features, train, test, other, templates=["{}"], seed=1, shots=[2, 1], repeats=2,
        learners=["probe", "prompt-weights", "tip-adapter"],
    )  # fmt: skip
    weights, scale = features.class_weights(test.data.classnames, ["{}"]), features.bundle.logit_scale
    projected, trunk = (
        [getattr(one.pictures, kind)(one.data) for one in (train, test, other)]
        for kind in ("projected_examples", "examples")
    )
    for name, learner, (pool, measured, _) in (
        ("probe", probe_learner(trunk[2]), trunk),
        ("prompt-weights", probe_learner(projected[2], prior=scale * weights), projected),
        ("tip-adapter", tip_adapter_learner(weights, scale, projected[2]), projected),
    ):
        twin = few_shot_curve(learner, pool, measured, seed=1, shots=[1, 2], repeats=2)
        mine = [point for point in found["few_shot"] if point["learner"] == name]
        assert [(point["shots"], point["scores"]) for point in mine] == [(point.shots, point.scores) for point in twin]


def test_retrieval_leaves_captions_with_their_pictures(features: ModelFeatures, labelled_sets: Path):
    data = read_retrieval(labelled_sets / "captioned")
    pictures = features.pictures(data)
    fewer = dataclasses.replace(
        pictures, image_features=pictures.image_features[1:], trunk=pictures.trunk[1:], kept=pictures.kept[1:],
        skipped={"truncated": 1},
    )  # fmt: skip
    found = measure_retrieval(features, data, fewer, template="see a {}", seed=0)
    texts = [f"see a {caption}" for some in data.captions[1:] for caption in some]
    twin = retrieval(fewer.image_features, features.bundle.encode_texts(texts), torch.arange(22) // 2)
    assert {name: found[name] for name in twin.to_dict()} == twin.to_dict()
    assert (found["images"], found["texts"], found["shortened"], found["skipped"]) == (11, 22, 0, {"truncated": 1})


def test_splits_that_do_not_fit_and_learners_that_are_none_are_said(features: ModelFeatures, labelled_sets: Path):
    train, test = (split(features, labelled_sets / "colours", name) for name in ("train", "test"))
    renamed = Split(data=dataclasses.replace(test.data, classnames=("a", "b", "c")), pictures=test.pictures)
    with pytest.raises(DataError, match="train, test of colours must have the same classes"):
        measure_probe(features, train, renamed, templates=["{}"], seed=0)
    with pytest.raises(ConfigError, match=r"must be probe, prompt-weights or tip-adapter\. Got 'magic'"):
        measure_probe(features, train, test, templates=["{}"], seed=0, shots=[1], learners=["magic"])  # type: ignore[list-item]
