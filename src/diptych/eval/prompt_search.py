"""Prompt workbench: what each template does on labelled pictures, the best few of them, names that collide.

Source: CLIP, arXiv:2103.00020, section 3.1.4, and the greedy choice of 7 of the 80 ImageNet templates in its released
notebook. Choose on pictures that the final number is not measured on. Letters: N, C, D, T.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.classify import TextEncoder
from diptych.data.prompts import check_templates, fill
from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.metrics import mean_per_class, top_k_correct

_ROWS_AT_ONCE = 8192  # of the [N, C] scores


@torch.no_grad()
def template_features(
    encoder: TextEncoder, labels: Sequence[str | Sequence[str]], templates: Sequence[str], *, batch_size: int = 256
) -> Tensor:
    """What each template makes of each class.

    Returns:
        [T, C, D] float32, the sum of the unit-length features of a class's names: rows of one name have unit length.
        `weights_of` makes the classifier of any choice of templates from it.

    Raises:
        DataError: a template is not valid.
    """
    templates = check_templates(templates)
    names = [[label] if isinstance(label, str) else list(label) for label in labels]
    texts = [(text, row) for row, some in enumerate(names) for name in some for text in fill(templates, name)]
    features = torch.cat(
        [
            torch.as_tensor(encoder.encode_texts([text for text, _ in texts[start : start + batch_size]]))
            for start in range(0, len(texts), batch_size)
        ]
    )
    sums = torch.zeros(len(labels), len(templates), features.shape[1])
    rows = torch.tensor([row for _, row in texts])
    columns = torch.arange(len(texts)) % len(templates)  # `fill` gives the templates in order for each name
    sums.index_put_((rows, columns), features, accumulate=True)
    return sums.transpose(0, 1).contiguous()


def weights_of(features: Tensor, chosen: Sequence[int]) -> Tensor:
    """[T, C, D] to the class weights [C, D] of some templates, as `class_weights` gives them."""
    return normalize(features[list(chosen)].sum(dim=0), dim=1)


@dataclass(frozen=True, eq=False)
class TemplateScores:
    """Each template alone, against all of them together."""

    top1: Tensor  # [T] float64
    together: float  # top-1 of the classifier of all templates
    by_class: Tensor  # [T, C] float64, accuracy of each class; NaN for one without a picture
    together_by_class: Tensor  # [C]
    disagreement: float  # share of pictures whose predicted class differs between at least two templates

    @property
    def spread(self) -> tuple[float, float, float]:
        """Lowest, median and highest top-1: how much of a score is the choice of words."""
        return self.top1.min().item(), self.top1.quantile(0.5).item(), self.top1.max().item()

    def effect(self, template: int) -> Tensor:
        """[C]: what the template alone adds to the accuracy of each class, against all together; NaN as above."""
        return self.by_class[template] - self.together_by_class


def score_templates(features: Tensor, image_features: Tensor, targets: Tensor) -> TemplateScores:
    """Zero-shot accuracy of each template by itself.

    Args:
        features: [T, C, D], from `template_features`.
        image_features: [N, D], unit length.
        targets: [N], class numbers from 0 to C - 1.

    Raises:
        ShapeError: the three do not fit.
        DataError: there is no picture, or a target is no class.
    """
    _check(features, image_features, targets)
    classes = features.shape[1]
    correct, guesses = [], []
    for number in range(len(features)):
        right, guess = _outcome(image_features, weights_of(features, [number]), targets)
        correct.append(right)
        guesses.append(guess)
    together, _ = _outcome(image_features, weights_of(features, range(len(features))), targets)
    guessed = torch.stack(guesses)  # [T, N]
    return TemplateScores(
        top1=torch.stack([right.double().mean() for right in correct]),
        together=together.double().mean().item(),
        by_class=torch.stack([_by_class(right, targets, classes) for right in correct]),
        together_by_class=_by_class(together, targets, classes),
        disagreement=(guessed != guessed[0]).any(dim=0).double().mean().item(),
    )


@dataclass(frozen=True)
class Chosen:
    """One step of the greedy choice."""

    template: int
    top1: float  # of this and all before it together
    mean_per_class: float


def choose_templates(features: Tensor, image_features: Tensor, targets: Tensor, *, most: int = 7) -> tuple[Chosen, ...]:
    """Start with the best template, and add the one that helps most until none does.

    Templates are compared by top-1, then by mean per class, then by their order. The last score is flattered: it is the
    best of many on the same pictures.

    Args:
        features: [T, C, D], from `template_features`.
        image_features: [N, D], unit length.
        targets: [N], class numbers from 0 to C - 1.
        most: stop at this many.

    Raises:
        ShapeError: the three do not fit.
        DataError: there is no picture, or a target is no class.
        ConfigError: most is below 1.
    """
    if most < 1:
        raise ConfigError(f"most must be 1 or more. Got {most}.")
    _check(features, image_features, targets)
    steps: list[Chosen] = []
    left = list(range(len(features)))
    while left and len(steps) < most:
        before = [step.template for step in steps]
        tried = [_step(features, [*before, number], image_features, targets) for number in left]
        best = max(tried, key=lambda step: (step.top1, step.mean_per_class, -step.template))
        if steps and (best.top1, best.mean_per_class) <= (steps[-1].top1, steps[-1].mean_per_class):
            break
        steps.append(best)
        left.remove(best.template)
    return tuple(steps)


@dataclass(frozen=True)
class Collision:
    """Two classes that words hardly tell apart."""

    first: int  # class numbers, the lower first
    second: int
    cosine: float  # of their class weights
    same_name: bool  # but for letter case and spaces: they always tie


def find_collisions(
    labels: Sequence[str | Sequence[str]], weights: Tensor, *, cosine: float = 0.97
) -> tuple[Collision, ...]:
    """Classes that share a name, or whose weights are nearly the same. Nearest first.

    How near unrelated classes lie differs between models: compare with the rest before believing a limit.

    Args:
        labels: C classes, each a name or several.
        weights: [C, D], unit length.
        cosine: from which on two classes count.

    Raises:
        ShapeError: there is not a row of weights for each class.
    """
    if weights.ndim != 2 or len(weights) != len(labels):
        raise ShapeError(f"weights {list(weights.shape)} must have a row for each of the {len(labels)} classes.")
    names = [
        {" ".join(name.casefold().split()) for name in ([label] if isinstance(label, str) else label)}
        for label in labels
    ]
    by_name: dict[str, list[int]] = {}
    for number, some in enumerate(names):
        for name in some:
            by_name.setdefault(name, []).append(number)
    same = {pair for numbers in by_name.values() for pair in itertools.combinations(numbers, 2)}
    near = {
        (start + int(row), int(column))
        for start in range(0, len(weights), _ROWS_AT_ONCE)
        for row, column in (weights[start : start + _ROWS_AT_ONCE] @ weights.T >= cosine).nonzero()
        if start + int(row) < int(column)
    }
    found = [
        Collision(first, second, (weights[first] @ weights[second]).item(), (first, second) in same)
        for first, second in same | near
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.same_name, -pair.cosine, pair.first, pair.second)))


def _step(features: Tensor, chosen: Sequence[int], image_features: Tensor, targets: Tensor) -> Chosen:
    correct, _ = _outcome(image_features, weights_of(features, chosen), targets)
    return Chosen(chosen[-1], correct.double().mean().item(), mean_per_class(correct, targets))


def _outcome(image_features: Tensor, weights: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each row is right, [N] bool, and the class guessed, [N]."""
    correct, guesses = [], []
    for rows, labels in zip(image_features.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
        scores = rows.to(weights) @ weights.T
        correct.append(top_k_correct(scores, labels, 1))
        guesses.append(scores.argmax(dim=1))
    return torch.cat(correct), torch.cat(guesses)


def _by_class(correct: Tensor, targets: Tensor, classes: int) -> Tensor:
    hits = torch.bincount(targets, weights=correct.double(), minlength=classes)
    return hits / torch.bincount(targets, minlength=classes)  # 0 / 0 is NaN


def _check(features: Tensor, image_features: Tensor, targets: Tensor) -> None:
    if features.ndim != 3 or image_features.shape[1:] != features.shape[2:] or len(image_features) != len(targets):
        raise ShapeError(
            f"features {list(features.shape)}, image_features {list(image_features.shape)} and targets "
            f"{list(targets.shape)} must be [T, C, D], [N, D] and [N]."
        )
    if not len(targets):
        raise DataError("There must be at least one picture to score templates on. Got none.")
