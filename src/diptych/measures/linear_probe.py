"""Linear probe: logistic regression on frozen features, its strength chosen on a validation split.

Source: CLIP, arXiv:2103.00020, section 3.2 and appendix A.3. Features are the image tower's before the projection
(`ImageTower.trunk`), neither scaled nor augmented. Letters: N, W, C.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.logistic import Examples, LogisticFits, LogisticProblem
from diptych.measures.metrics import top_k_accuracy
from diptych.torch_runtime import generator

_STEPS_A_DECADE = 8
_DECADES = (-6, 6)
_FIRST_SPACING = 16  # steps: 1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6

Scorer = Callable[[Tensor, Tensor], float]  # scores [N, C] and targets -> higher is better


def accuracy(scores: Tensor, targets: Tensor) -> float:
    """Top-1, the metric of most data sets; a tie counts against us."""
    return top_k_accuracy(scores, targets, 1)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    weights: Tensor  # [C, W] float32
    bias: Tensor  # [C] float32
    l2: float  # strength of the penalty on the sum over examples; scikit-learn's C is 1 / l2
    loss: float  # nats an example, penalty included, on what it was fitted to
    converged: bool

    def scores(self, features: Tensor) -> Tensor:
        """Logits: [N, W] to [N, C].

        Raises:
            ShapeError: the features have another W.
        """
        if features.ndim != 2 or features.shape[1] != self.weights.shape[1]:
            raise ShapeError(
                f"features {list(features.shape)} and weights {list(self.weights.shape)} must be [N, W] and [C, W], of "
                "the same tower."
            )
        return torch.addmm(self.bias, features.to(self.weights), self.weights.T)


@dataclass(frozen=True, eq=False)
class ChosenProbe:
    """The best of the strengths tried, fitted to the training examples alone."""

    probe: LinearProbe
    tried: Mapping[float, float]  # strength -> score on the validation examples, weakest first


def train_linear_probe(
    train: Examples, validation: Examples, *, metric: Scorer = accuracy, max_passes: int = 1000
) -> tuple[LinearProbe, ChosenProbe]:
    """Choose the strength on the validation examples, then fit once more to both.

    The strength belongs to the sum over examples, as scikit-learn's does: it is the same for the larger set.

    Args:
        train: every class of the task has an example.
        validation: a split of its own; where a data set has none, `hold_out` some of the training examples.
        metric: what the strength is chosen by.
        max_passes: over the examples, for each strength.

    Returns:
        The final probe, and the choice that led to it.

    Raises:
        DataError: a class has no example.
        ShapeError: the two splits do not fit together.
    """
    chosen = choose_l2(train, validation, metric=metric, max_passes=max_passes)
    fits = LogisticProblem(train.joined(validation)).solve([chosen.probe.l2], max_passes=max_passes)
    return _probe(fits, 0), chosen


def choose_l2(
    train: Examples,
    validation: Examples,
    *,
    metric: Scorer = accuracy,
    prior: Tensor | None = None,
    max_passes: int = 1000,
) -> ChosenProbe:
    """Search the strength from 1e-6 to 1e6 by bracketing, as the paper does.

    Seven strengths first, a hundredfold apart; then, four times, the two neighbours of the best at half the spacing,
    down to eight steps a decade. At most 15 of the 97 strengths are fitted, each from where its nearest neighbour
    ended. Of strengths that score alike the strongest wins. The score need not have a single peak: the best
    of the whole grid may be missed, in the paper as here.

    Args:
        train: every class of the task has an example.
        validation: what the strengths are scored on.
        metric: scores [N, C] and targets to a number, higher is better.
        prior: [C, W], what the penalty pulls the weights to; see `LogisticProblem`.
        max_passes: over the examples, for each strength.

    Raises:
        DataError: a class has no example.
        ShapeError: train, validation or prior do not fit together.
    """
    problem = LogisticProblem(train, prior)
    low, high = (_STEPS_A_DECADE * decade for decade in _DECADES)
    probes: dict[int, LinearProbe] = {}  # by step on the grid; step 0 is a strength of 1
    scores: dict[int, float] = {}
    fits: LogisticFits | None = None
    spacing = _FIRST_SPACING
    steps = list(range(low, high + 1, spacing))
    while True:
        # From strong to weak: a weak penalty takes half the passes from where the next stronger one ended.
        for group in [[step] for step in reversed(steps)] if fits is None else [steps]:
            found = problem.solve([10 ** (step / _STEPS_A_DECADE) for step in group], start=fits, max_passes=max_passes)
            fits = fits.joined(found) if fits else found
            for row, step in enumerate(group):
                probes[step] = _probe(found, row)
                scores[step] = metric(probes[step].scores(validation.features), validation.targets)
        best = max(scores, key=lambda step: (scores[step], step))
        if spacing == 1:
            break
        spacing //= 2
        steps = [step for step in (best - spacing, best + spacing) if low <= step <= high]
    return ChosenProbe(probes[best], {probes[step].l2: scores[step] for step in sorted(scores)})


def hold_out(examples: Examples, *, share: float, seed: int) -> tuple[Examples, Examples]:
    """Set examples aside for validation, the same share of every class.

    Args:
        examples: with targets [N].
        share: of each class, rounded down but at least one; one of the class always stays.
        seed: of the draw.

    Returns:
        What stays, and what was set aside. A class with a single example stays whole.

    Raises:
        ConfigError: the share does not lie between 0 and 1.
        ShapeError: the targets are not [N].
        DataError: every class has a single example.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share must lie between 0 and 1. Got {share}.")
    targets = examples.targets
    if targets.ndim != 1:
        raise ShapeError(f"targets {list(targets.shape)} must be class numbers [N] to hold out a share of each class.")
    shuffled = torch.randperm(len(targets), generator=generator(seed)).to(targets.device)
    aside = torch.zeros(len(targets), dtype=torch.bool, device=targets.device)
    for number in targets.unique():
        of_class = shuffled[targets[shuffled] == number]
        aside[of_class[: min(max(1, int(share * len(of_class))), len(of_class) - 1)]] = True
    return examples[~aside], examples[aside]


def halves(targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to choose on and rows to measure on: half of each class, the odd one to measure on.

    Args:
        targets: [N], class numbers from 0.
        seed: of the draw.

    Returns:
        Two int64 tensors of rows, in rising order.

    Raises:
        DataError: no class has two pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    by_class = shuffled[targets.cpu()[shuffled].sort(stable=True).indices]
    parts = by_class.split(torch.bincount(targets.cpu()).tolist())
    first = torch.cat([rows[: len(rows) // 2] for rows in parts])
    if not len(first):
        raise DataError("A half to choose templates on needs a class with two pictures. Every class has one at most.")
    second = torch.cat([rows[len(rows) // 2 :] for rows in parts])
    return first.sort().values, second.sort().values


def _probe(fits: LogisticFits, row: int) -> LinearProbe:
    return LinearProbe(
        weights=fits.weights[row],
        bias=fits.bias[row],
        l2=fits.l2[row].item(),
        loss=fits.losses[row].item(),
        converged=bool(fits.converged[row]),
    )
