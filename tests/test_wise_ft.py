import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from diptych.errors import ConfigError, DataError
from diptych.eval.measure import evaluate_zero_shot
from diptych.eval.wise_ft import measure_wise_ft, read_curve_sets, wise_ft_curve
from diptych.model.clip import CLIP
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.average import interpolate
from diptych.weights.bundle import Bundle


@pytest.fixture
def sets(tmp_path) -> list[LabelledImages]:
    """Three labelled sets of five colours, each with a few pictures."""
    names = ("new", "old", "older")
    for number, name in enumerate(names):
        for colour in ("red", "green", "blue", "black", "orange"):
            (tmp_path / name / colour).mkdir(parents=True)
            for shade in range(3):
                picture = Image.new("RGB", (32, 32), colour)
                picture.paste("white", (0, 0, 8 * number, 8 * shade))
                picture.save(tmp_path / name / colour / f"{shade}.png")
    return [read_labelled(tmp_path / name) for name in names]


@pytest.fixture
def pair(tiny_recipe, tokenizer) -> tuple[Bundle, Bundle]:
    models = [CLIP(tiny_recipe.model, generator(seed)).eval() for seed in (1, 2)]
    a, b = (Bundle(model=model, preprocess=tiny_recipe.preprocess, tokenizer=tokenizer) for model in models)
    return a, b


def test_each_point_is_what_the_mean_of_both_scores(pair, sets):
    new, *old = sets
    points = wise_ft_curve(*pair, target=new, references=old, alphas=(1.0, 0.0, 0.4))
    assert [point.alpha for point in points] == [0.0, 0.4, 1.0]
    for point in points:
        bundle = interpolate(*pair, point.alpha)
        wanted = [evaluate_zero_shot(bundle, data).numbers["top-1"] for data in sets]
        assert (point.target, point.references) == (wanted[0], {"old": wanted[1], "older": wanted[2]})
        assert point.reference == pytest.approx((wanted[1] + wanted[2]) / 2)
    ends = [evaluate_zero_shot(bundle, new).numbers["top-1"] for bundle in pair]
    assert [points[0].target, points[-1].target] == ends


def test_a_curve_goes_with_its_conditions(pair, sets, tmp_path: Path):
    read = read_curve_sets(tmp_path / "new", [tmp_path / "old"], alphas=(0.5,))
    found = measure_wise_ft(*pair, read, names=("before", "after"))
    assert found.points == wise_ft_curve(*pair, target=sets[0], references=sets[1:2], alphas=(0.5,))
    assert (found.pretrained.name, found.model.fingerprint) == ("before", pair[1].fingerprint())
    assert [one.name for one in (found.data, *found.references)] == ["new", "old"]
    assert len({found.data.sha256, found.references[0].sha256, ""}) == 3
    assert [one.names[0] for one in found.prompts] == ["black", "black"]
    with pytest.raises(ConfigError, match="alpha must lie between 0 and 1"):  # no model is needed to say so
        read_curve_sets(tmp_path / "new", [tmp_path / "old"], alphas=(2.0,))
    with pytest.raises(DataError, match="must be a folder of labelled pictures"):
        read_curve_sets(tmp_path / "new", [tmp_path / "none"])


def test_sets_and_alphas_that_cannot_be_are_refused(pair, sets, tmp_path: Path):
    new, old, _ = sets
    with pytest.raises(ConfigError, match="at least one old one must be labelled sets of distinct names"):
        wise_ft_curve(*pair, target=new, references=[])
    with pytest.raises(ConfigError, match=r"distinct names\. Got new, old, old\."):
        wise_ft_curve(*pair, target=new, references=[old, old])
    with pytest.raises(ConfigError, match=r"distinct names\. Got new, new\."):
        wise_ft_curve(*pair, target=new, references=[dataclasses.replace(old, name="new")])
    with pytest.raises(ConfigError, match="alphas must name at least one share"):
        wise_ft_curve(*pair, target=new, references=[old], alphas=())
    with pytest.raises(ConfigError, match=r"alpha must lie between 0 and 1: .* Got 2\."):
        wise_ft_curve(*pair, target=new, references=[old], alphas=(2.0,))
