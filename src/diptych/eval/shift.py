"""Natural shifts of ImageNet: accuracy on ImageNet among the classes of a shifted set, and what a model has beyond the
trend of others, its effective robustness.

Source: CLIP, arXiv:2103.00020, section 3.3; Taori et al., arXiv:2007.00644. Letters: N, C, K.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import Result
from diptych.measures.metrics import top_k_accuracy
from diptych.measures.robustness import (
    TRENDS,
    NaturalShift,
    Trend,
    class_subset,
    effective_robustness,
    fit_trend,
    natural_shift,
)

_MODELS_TO_FIT = 3  # a line through two points fits whatever they are
_PREFIX = "top-1 among the classes of "


def subsets_of(names: Sequence[str], shifted: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Numbers of the classes that shifted sets have, by the name of the number that is to be measured.

    Args:
        names: C names of classes.
        shifted: names of the classes of each shifted set; a set with a class that is not among `names` is left out.
    """
    number = {name: row for row, name in enumerate(names)}
    return {
        f"{_PREFIX}{data}": tuple(sorted({number[name] for name in some}))
        for data, some in shifted.items()
        if some and all(name in number for name in some)
    }


def subset_numbers(
    result: Result, encoded: PictureFeatures, weights: Tensor, subsets: Mapping[str, tuple[int, ...]]
) -> dict[str, float]:
    """Top-1 of the pictures that show one of some classes, told apart among these alone.

    Args:
        result: zero-shot, of N pictures of C classes.
        encoded: their features.
        weights: [C, D].
        subsets: from `subsets_of`.
    """
    assert result.rows.targets is not None
    found = {}
    for name, classes in subsets.items():
        rows = torch.isin(result.rows.targets, torch.tensor(classes))
        if rows.any():
            scores = (encoded.image_features[rows].to(weights) @ weights.T).cpu()
            found[name] = top_k_accuracy(*class_subset(scores, result.rows.targets[rows], classes), 1)
    return found


def subset_accuracy(result: Result, shifted: str) -> float | None:
    """What `subset_numbers` found for a shifted set; None where it did not look."""
    return result.numbers.get(f"{_PREFIX}{shifted}")


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """One model on one shifted set."""

    model: str
    data: str
    subset: float  # accuracy on ImageNet, among the classes of the set
    shifted: float  # accuracy on the set
    effective: float  # beyond what the published models of this accuracy have
    beyond_fit: float | None = None  # beyond the trend of the models at hand, where there are three or more


def robustness(models: Mapping[str, Sequence[Result]]) -> tuple[list[Robustness], dict[str, NaturalShift]]:
    """Effective robustness of the models whose results hold ImageNet and sets that are shifts of it.

    Args:
        models: zero-shot results by model; others are passed over.

    Returns:
        A row for each model and shifted set, and of models with all seven sets the paper's figures.
    """
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for model, results in models.items():
        by_task = {one.task: one for one in results if one.measurement == "zero-shot"}
        imagenet = by_task.get("imagenet")
        for name in TRENDS:
            shifted = by_task.get(name.replace("-", "_"))
            if not imagenet or not shifted:
                continue
            subset = subset_accuracy(imagenet, shifted.data.name)
            if subset is not None and 0 < subset < 1:  # else it has no logit
                found[model, name] = (subset, shifted.value)
    rows = []
    for (model, name), (subset, shifted) in found.items():
        trend = _fitted([pair for (_, other), pair in found.items() if other == name])
        rows.append(
            Robustness(
                model=model,
                data=name,
                subset=subset,
                shifted=shifted,
                effective=effective_robustness(subset, shifted, TRENDS[name]),
                beyond_fit=effective_robustness(subset, shifted, trend) if trend else None,
            )
        )
    means = {}
    for model in models:
        pairs = {name: found[model, name] for name in TRENDS if (model, name) in found}
        if len(pairs) == len(TRENDS):
            subset, shifted = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
            means[model] = natural_shift(subset, shifted)
    return rows, means


def _fitted(pairs: Sequence[tuple[float, float]]) -> Trend | None:
    usable = [pair for pair in pairs if 0 < pair[1] < 1]
    if len(usable) < _MODELS_TO_FIT or len({subset for subset, _ in usable}) < 2:
        return None
    return fit_trend([subset for subset, _ in usable], [shifted for _, shifted in usable])
