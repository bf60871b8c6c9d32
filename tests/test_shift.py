import dataclasses
from pathlib import Path

import pytest
import torch

from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import find_sets
from diptych.eval.result import DataId, Result
from diptych.eval.shift import robustness, subset_accuracy, subset_numbers, subsets_of
from diptych.eval.suite import Asked, run_suite
from diptych.measures.robustness import TRENDS, effective_robustness, fit_trend, natural_shift
from diptych.weights.bundle import Bundle
from test_result import result
from toys import draw


def test_only_sets_whose_classes_are_all_there_are_subsets():
    found = subsets_of(["cat", "dog", "emu"], {"a": ["emu", "cat"], "other": ["emu", "gnu"], "none": []})
    assert found == {"top-1 among the classes of a": (0, 2)}


def test_a_subset_is_told_apart_among_its_own_classes():
    targets = torch.tensor([0, 1, 2, 2])
    scores = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.9, 0.2], [0.5, 0.9, 0.7], [0.9, 0.1, 0.7]])  # of cosines with axes
    one = result(rows=dataclasses.replace(result().rows, targets=targets))
    encoded = type("Encoded", (), {"image_features": scores})()
    found = subset_numbers(one, encoded, torch.eye(3), {"x": (0, 2)})
    assert found == {"x": pytest.approx(2 / 3)}  # the dog has no say: cat and the first emu are right


def models(count: int, names=tuple(TRENDS)) -> dict[str, list[Result]]:
    """Zero-shot of ImageNet and its shifts; model i has 0.5 + i / 10 on ImageNet and a little less elsewhere."""
    found = {}
    for model in range(count):
        subset = 0.5 + model / 10
        numbers = {f"top-1 among the classes of {name.replace('-', '_')}": subset for name in names}
        of_model = [result(task="imagenet", numbers=numbers, data=DataId(name="imagenet", split="test"))]
        for name in names:
            row = name.replace("-", "_")
            data = DataId(name=row, split="test")
            of_model.append(result(task=row, data=data, value=subset - 0.1 - model / 50))
        found[f"m{model}"] = of_model
    return found


def test_effective_robustness_is_beyond_the_published_trend_and_the_trend_of_three_models_at_hand():
    rows, means = robustness(models(3))
    assert [(one.model, one.data) for one in rows[:2]] == [("m0", "imagenet-v2"), ("m0", "imagenet-sketch")]
    assert rows[0].effective == effective_robustness(0.5, 0.4, TRENDS["imagenet-v2"])
    trend = fit_trend([0.5, 0.6, 0.7], [0.4, 0.48, 0.56])
    assert rows[0].beyond_fit == pytest.approx(effective_robustness(0.5, 0.4, trend))
    by_set = [dict.fromkeys(TRENDS, number) for number in (0.5, 0.4)]
    assert means["m0"].effective == pytest.approx(natural_shift(*by_set).effective)


def test_without_all_seven_sets_there_is_no_mean_and_of_two_models_no_trend():
    rows, means = robustness(models(2, ["imagenet-a"]))
    assert [(one.model, one.beyond_fit) for one in rows] == [("m0", None), ("m1", None)]
    assert means == {}
    assert robustness({"m": [result()]}) == ([], {})


def test_a_suite_with_imagenet_and_a_shift_of_it_measures_the_classes_of_the_shift(tiny_bundle: Bundle, tmp_path: Path):
    data = tmp_path / "data"
    colours = {"goldfish": "orange", "tench": "green", "ostrich": "black"}
    for name, colour in colours.items():
        draw(data / "imagenet" / "val", **{f"{name}__{i}": colour if i % 2 else "white" for i in range(4)})
    for name in ("goldfish", "ostrich"):
        draw(data / "imagenet_a" / "test", **{f"{name}__{i}": colours[name] for i in range(2)})
    out, features = tmp_path / "out", ModelFeatures(tiny_bundle)
    done = list(run_suite(features, find_sets(data, ["imagenet"]), out, Asked(model="m")))
    assert done[0].result
    assert subset_accuracy(done[0].result, "imagenet_a") is None
    done = list(run_suite(features, find_sets(data), out, Asked(model="m")))
    assert [one.kept for one in done] == [False, False]  # ImageNet has a number more now
    results = [one.result for one in done if one.result]
    subset = subset_accuracy(results[0], "imagenet_a")
    assert subset is not None
    if 0 < subset < 1:
        [row] = robustness({"m": results})[0]
        assert (row.data, row.subset, row.shifted) == ("imagenet-a", subset, results[1].value)
    assert all(one.kept for one in run_suite(features, find_sets(data), out, Asked(model="m")))
