from pathlib import Path

import pytest

from diptych.data.prompts import TEMPLATES
from diptych.errors import DataError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import one_set
from diptych.eval.prompt_search import choose_templates, score_templates, template_features
from diptych.eval.suite import Asked
from diptych.eval.workbench import search_prompts
from diptych.measures.linear_probe import halves
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from toys import nine_kinds

FOUR = ("{}", "a {} kite", "no {} at all", "the {}")


def test_the_search_is_the_choice_on_one_half_measured_on_the_other(tiny_bundle: Bundle, labelled_sets: Path):
    one = one_set(labelled_sets / "colours", "zero-shot")
    features = ModelFeatures(tiny_bundle)
    found = search_prompts(lambda: features, one, Asked(model="tiny", templates=FOUR, seed=3), most=2, collision=-1.0)
    data = read_labelled(labelled_sets / "colours")
    encoded = features.pictures(data).projected_examples(data)
    rows, rest = halves(encoded.targets, seed=3)
    part = (template_features(tiny_bundle, data.classnames, FOUR), encoded.features[rows], encoded.targets[rows])
    scores, steps = score_templates(*part), choose_templates(*part, most=2)
    assert [one.template for one in found.chosen] == [FOUR[step.template] for step in steps]
    assert {one.template: one.top1 for one in found.templates} == dict(zip(FOUR, scores.top1.tolist(), strict=True))
    assert (found.chosen_on, {one.n for one in found.measured.values()}) == (len(rows), {len(rest)})
    assert len(found.collisions) == 3  # from a cosine of -1 on all pairs collide
    assert found.conditions.seed == 3


def test_candidates_go_by_the_one_rule_and_else_are_the_80_of_imagenet(tiny_bundle: Bundle, tmp_path: Path):
    data, features = nine_kinds(tmp_path), ModelFeatures(tiny_bundle)
    of_row = search_prompts(lambda: features, one_set(data / "cifar10", "zero-shot"), Asked(model="m"), most=1)
    assert of_row.prompts.templates == TEMPLATES["cifar"]
    (data / "cifar10").rename(data / "mine")
    of_none = search_prompts(lambda: features, one_set(data / "mine", "zero-shot"), Asked(model="m"), most=1)
    assert (len(of_none.prompts.templates), of_none.prompts.source) == (80, "the 80 of ImageNet")


def test_sets_without_classes_and_splits_with_others_are_refused(tiny_bundle: Bundle, tmp_path: Path):
    data, features = nine_kinds(tmp_path), ModelFeatures(tiny_bundle)
    with pytest.raises(DataError, match=r"to choose prompts\. It is of kind ocr"):
        search_prompts(lambda: features, one_set(data / "iiit5k", "zero-shot"), Asked(model="m"))
    one = one_set(data / "cifar10", "zero-shot")
    with pytest.raises(DataError, match="has no split 'val'"):
        search_prompts(lambda: features, one, Asked(model="m"), choose_split="val")
