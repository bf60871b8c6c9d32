import pytest

from diptych.errors import ConfigError
from diptych.eval.published_scores import KINDS, _table, published_score


@pytest.mark.parametrize(
    ("kind", "means"),
    [
        ("zero_shot", [54.66, 56.20, 57.95, 61.50, 66.13, 57.89, 60.96, 66.83, 67.58]),
        ("linear_probe", [75.79, 77.39, 78.63, 81.08, 82.97, 78.06, 80.92, 84.21, 85.06]),
    ],
)
def test_the_columns_have_the_means_of_the_27_sets(kind: str, means: list[float]):
    rows = list(_table()[kind]["scores"].values())
    assert len(rows) == 27
    assert [sum(column) / 27 for column in zip(*rows, strict=True)] == pytest.approx(means, abs=0.006)


def test_every_row_has_a_figure_for_each_model():
    table = _table()
    assert {len(row) for kind in KINDS for row in table[kind]["scores"].values()} == {len(table["models"])} == {9}
    assert set(table["metric"]) <= set(table["zero_shot"]["scores"])


def test_a_figure_is_found_by_any_name_of_model_and_set():
    found = published_score("ViT-B-32.openai", "Oxford-Pets")
    assert found
    assert (found.value, found.metric, found.source) == (pytest.approx(0.870), "mean per class", "CLIP, table 11")
    assert published_score("hf:openai/clip-vit-base-patch32", "oxford_pets") == found
    probe, rerun = (published_score("RN50.openai", "MNIST", kind) for kind in ("linear_probe", "rerun"))
    assert probe
    assert rerun
    assert (probe.value, probe.metric, rerun.value) == (pytest.approx(0.983), "accuracy", pytest.approx(0.576))


def test_other_weights_and_sets_have_none():
    assert published_score("ViT-B-32.laion400m", "mnist") is None
    assert published_score("runs/ViT-B-32", "mnist") is None
    assert published_score("ViT-B-32.openai", "my pictures") is None
    with pytest.raises(ConfigError, match="Got 'best'"):
        published_score("ViT-B-32.openai", "mnist", "best")
