import json
from pathlib import Path

import pytest
import torch

from diptych.errors import DataError, ShapeError
from diptych.eval.outcomes import Outcomes, counted, paired, read_results, zero_shot_outcomes
from diptych.eval.zero_shot import LabelledFeatures, score_zero_shot

OUTCOMES = Outcomes(
    positions=torch.tensor([0, 2, 3]),
    targets=torch.tensor([1, 0, 1]),
    predictions=torch.tensor([1, 0, 0]),
    correct=torch.tensor([True, False, False]),
    confidences=torch.tensor([0.91234567, 0.5, 0.25]),
)


def write(path: Path, *, sha256: str = "ab", outcomes: Outcomes = OUTCOMES, **more: object) -> Path:
    values = {
        "task": "zero-shot",
        "data": {"name": "set", "split": "test", "sha256": sha256},
        "model": {"name": "m", "fingerprint": "f"},
        "classnames": ["cat", "dog"],
        "pictures": outcomes.to_dict(),
    }
    path.write_text(json.dumps(values | more))
    return path


def test_outcomes_come_back_from_a_file(tmp_path: Path):
    [result] = read_results(write(tmp_path / "a.json", top1=0.5))
    for name, column in vars(OUTCOMES).items():
        torch.testing.assert_close(getattr(result.outcomes, name), column, atol=1e-4, rtol=0)
    assert (result.title, result.classnames, result.values["top1"]) == ("set", ("cat", "dog"), 0.5)


def test_a_folder_gives_its_results_and_passes_over_other_json(tmp_path: Path):
    write(tmp_path / "b.json", data={"name": "b", "split": "val", "sha256": "0"})
    write(tmp_path / "a.json")
    (tmp_path / "other.json").write_text('{"loss": 1}')
    assert [result.title for result in read_results(tmp_path)] == ["set", "b, val"]


class Doubling:
    """Logits are twice the cosines."""

    def logits_per_image(self, image_features, text_features, /):
        return 2 * image_features @ text_features.T

    def probabilities(self, logits_per_image, /):
        return logits_per_image.softmax(dim=1)


def test_outcomes_agree_with_the_score():
    generator = torch.Generator().manual_seed(0)
    features, weights = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for n in (50, 6))
    features[0] = 0  # all classes tie: a miss
    encoded = LabelledFeatures(features, torch.arange(50) % 6, tuple(range(1, 51)), {})
    found = zero_shot_outcomes(Doubling(), encoded, weights)  # type: ignore[arg-type]
    score = score_zero_shot(features, encoded.targets, weights)
    assert found.correct.double().mean().item() == score.top1
    assert found.predictions.tolist() == score.predictions.tolist()
    assert not found.correct[0]
    assert found.confidences[0].item() == pytest.approx(1 / 6)
    assert found.positions.tolist() == list(range(1, 51))


def test_pairs_are_matched_by_picture(tmp_path: Path):
    b = Outcomes(
        positions=torch.tensor([3, 1, 0]),
        targets=torch.tensor([1, 0, 1]),
        predictions=torch.tensor([1, 0, 0]),
        correct=torch.tensor([True, True, False]),
        confidences=torch.ones(3),
    )
    [first], [second] = (
        read_results(write(tmp_path / f"{name}.json", outcomes=some)) for name, some in (("a", OUTCOMES), ("b", b))
    )
    of_a, of_b = paired(first, second)  # pictures 0 and 3
    assert (of_a.tolist(), of_b.tolist()) == ([True, False], [False, True])


def test_results_on_other_data_are_not_paired(tmp_path: Path):
    [a], [b] = (read_results(write(tmp_path / f"{name}.json", sha256=name)) for name in "ab")
    with pytest.raises(DataError, match=r"must be results on the same data\. They are not: set \(a\) and set \(b\)"):
        paired(a, b)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", "It is no JSON"),
        ("{}", "must say what became of each picture"),
        ('{"pictures": {}, "task": "x"}', "It lacks 'data'"),
    ],
)
def test_other_files_are_named(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_results(tmp_path / "a.json")


def test_damaged_columns_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="'targets'"):
        Outcomes.from_dict({"positions": "0"})
    with pytest.raises(DataError, match="'x'"):
        Outcomes.from_dict(OUTCOMES.to_dict() | {"targets": "x"})
    with pytest.raises(ShapeError, match=r"targets \[1\]"):
        Outcomes.from_dict(OUTCOMES.to_dict() | {"targets": "1"})
    with pytest.raises(DataError, match="It holds none"):
        read_results(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_pictures_left_out_are_counted_over_splits():
    assert counted({"truncated": 2, "empty": 1}) == 3
    assert counted({"train": {"truncated": 2}, "test": {}}) == 2
