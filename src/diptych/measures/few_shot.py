"""Few-shot classification: how a score grows with labelled images a class, and where it overtakes zero-shot.

A learner takes k examples of each class and gives a function from features to scores, so that a probe, a cache or
anything else is measured on the same draws. Source: CLIP, arXiv:2103.00020, section 3.1.5, which does not say how shots
are drawn or how often; here they are drawn evenly over classes, and repeated. Letters: N, W, D, C.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.linear_probe import Scorer, accuracy, choose_l2
from diptych.measures.logistic import Examples
from diptych.measures.metrics import Interval, bootstrap_interval
from diptych.torch_runtime import generator

SHOTS = (1, 2, 4, 8, 16)

Learner = Callable[[Examples], Callable[[Tensor], Tensor]]  # examples -> (features [N, W] -> scores [N, C])


@dataclass(frozen=True)
class FewShotPoint:
    shots: int  # examples a class
    scores: tuple[float, ...]  # one for each draw
    mean: float
    interval: Interval  # of the mean, over draws of the shots; the test images stay the same


def draw_shots(targets: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Rows of as many examples of every class, without repetition.

    With the generator in the same state, fewer shots are a part of more.

    Args:
        targets: [N], class numbers from 0, on the CPU.
        shots: examples a class.
        generator: of the draw.

    Returns:
        [C * shots] int64, class by class.

    Raises:
        DataError: a class has fewer examples.
        ConfigError: there are no shots.
        ShapeError: the targets are not [N].
    """
    if targets.ndim != 1:
        raise ShapeError(f"targets {list(targets.shape)} must be class numbers [N] to draw shots of each class.")
    if shots < 1:
        raise ConfigError(f"shots must be 1 or more. Got {shots}.")
    counts = torch.bincount(targets)
    if counts.min() < shots:
        raise DataError(
            f"Each class needs {shots} examples for {shots} shots. Class {int(counts.argmin())} has {counts.min()}: "
            "ask for fewer shots or leave the class out."
        )
    shuffled = torch.randperm(len(targets), generator=generator)
    by_class = shuffled[targets[shuffled].sort(stable=True).indices]
    return torch.cat([rows[:shots] for rows in by_class.split(counts.tolist())])


def few_shot_curve(
    learner: Learner,
    pool: Examples,
    test: Examples,
    *,
    seed: int,
    shots: Sequence[int] = SHOTS,
    repeats: int = 10,
    metric: Scorer = accuracy,
) -> tuple[FewShotPoint, ...]:
    """Score of a learner at each number of shots.

    Draw r is a function of the seed and r: every learner sees the same ones, and the shots of a smaller number are
    among those of a larger.

    Args:
        learner: e.g. `probe_learner`.
        pool: what shots are drawn from, targets [N].
        test: what is scored.
        seed: of the draws, and of the intervals.
        shots: numbers of examples a class.
        repeats: draws for each number.
        metric: scores [N, C] and targets to a number, higher is better.

    Raises:
        DataError: a class has too few examples.
        ConfigError: there is no draw to make.
    """
    if repeats < 1:
        raise ConfigError(f"repeats must be 1 or more. Got {repeats}.")
    points = []
    targets = pool.targets.cpu()
    for count in shots:
        scores = []
        for repeat in range(repeats):
            rows = draw_shots(targets, count, generator(seed, repeat))
            scores.append(metric(learner(pool[rows.to(pool.targets.device)])(test.features), test.targets))
        interval = bootstrap_interval(torch.tensor(scores, dtype=torch.float64), seed=seed)
        points.append(FewShotPoint(count, tuple(scores), sum(scores) / repeats, interval))
    return tuple(points)


def shots_to_match(curve: Sequence[tuple[float, float]], zero_shot: float) -> float:
    """Examples a class that a learner needs to equal zero-shot, by interpolation in the logarithm of the shots.

    Source: CLIP, figure 7, which adds the whole training set to 1, 2, 4, 8 and 16 shots, at its mean number of examples
    a class.

    Args:
        curve: shots and score.
        zero_shot: the score to equal.

    Returns:
        The least number of shots at which the curve reaches it. 0 if the first point lies above it already: fewer
        than those shots; infinity if none reaches it.

    Raises:
        DataError: the curve has no point, or its shots are not above 0 and all different.

    >>> shots_to_match([(1, 0.4), (4, 0.6), (16, 0.7)], 0.5)  # half the way from 1 to 4 is 2
    2.0
    """
    points = sorted(curve)
    shots = [point[0] for point in points]
    if not shots or shots[0] <= 0 or len(set(shots)) < len(shots):
        raise DataError(f"A curve needs numbers of shots above 0, each once. Got {[point[0] for point in curve]}.")
    if points[0][1] > zero_shot:
        return 0.0
    if points[0][1] == zero_shot:
        return float(shots[0])
    for (fewer, lower), (more, higher) in itertools.pairwise(points):
        if higher >= zero_shot:  # and lower < zero_shot, or an earlier pair had been it
            return fewer * (more / fewer) ** ((zero_shot - lower) / (higher - lower))
    return math.inf


def probe_learner(validation: Examples, *, metric: Scorer = accuracy, prior: Tensor | None = None) -> Learner:
    """Linear probe with its strength chosen on the validation examples.

    With the prior it is the prompt-weight baseline of section 3.1.5: logistic regression whose penalty pulls towards
    the zero-shot classifier instead of 0. The strongest penalty gives the zero-shot classifier and a bias for each
    class.

    Args:
        validation: not among the shots. A large set flatters few shots: it is labelled too.
        metric: what the strength is chosen by.
        prior: [C, D], zero-shot weights times logit_scale; features are then of unit length, [N, D].
    """
    return lambda examples: choose_l2(examples, validation, metric=metric, prior=prior).probe.scores


@dataclass(frozen=True, kw_only=True, eq=False)
class TipAdapter:
    """Zero-shot logits, and votes of the examples that lie near; nothing is trained.

    logit_scale * f . w + alpha * (sum over examples of the class of exp(-beta * (1 - f . key)))

    Source: Tip-Adapter, Zhang et al., arXiv:2111.03930, section 3.1.
    """

    examples: Examples  # features [N, D], unit length, are the keys; targets [N]
    weights: Tensor  # [C, D], zero-shot, unit length
    logit_scale: float
    alpha: float = 1.0  # weight of the votes
    beta: float = 5.5  # how fast a vote fades with distance

    def __post_init__(self) -> None:
        if self.examples.features.shape[1] != self.weights.shape[1]:
            raise ShapeError(
                f"features {list(self.examples.features.shape)} and weights {list(self.weights.shape)} must be [N, D] "
                "and [C, D], of the same model."
            )
        if self.examples.targets.ndim != 1 or int(self.examples.targets.max()) >= len(self.weights):
            raise ShapeError(f"targets must be class numbers [N] below C, the rows of weights {len(self.weights)}.")

    def scores(self, features: Tensor) -> Tensor:
        """[N, D], unit length, to logits [N, C]."""
        return self.zero_shot(features) + self.alpha * self.votes(features)

    def zero_shot(self, features: Tensor) -> Tensor:
        """The logits without a cache, [N, C]."""
        return self.logit_scale * (features @ self.weights.T)

    def votes(self, features: Tensor) -> Tensor:
        """Of the cache for each class, [N, C], before alpha."""
        nearness = torch.exp(-self.beta * (1 - features @ self.examples.features.T))  # [N, examples]
        return nearness @ one_hot(self.examples.targets, len(self.weights)).to(nearness)


def tip_adapter_learner(
    weights: Tensor,
    logit_scale: float,
    validation: Examples,
    *,
    alphas: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    betas: Sequence[float] = (1.0, 2.0, 3.0, 5.5, 8.0, 12.0),
    metric: Scorer = accuracy,
) -> Learner:
    """Tip-Adapter with the alpha and beta that are best on the validation examples; of equals, the first.

    Args:
        weights: [C, D], zero-shot, unit length.
        logit_scale: the factor.
        validation: not among the shots.
        alphas: to try.
        betas: to try, each with every alpha.
        metric: what the two are chosen by.

    Raises:
        ConfigError: there is no pair to try.
    """
    if not alphas or not betas:
        raise ConfigError(f"There must be an alpha and a beta to try. Got alphas {alphas} and betas {betas}.")

    def learn(examples: Examples) -> Callable[[Tensor], Tensor]:
        scored: list[tuple[float, TipAdapter]] = []
        for beta in betas:
            adapter = TipAdapter(examples=examples, weights=weights, logit_scale=logit_scale, beta=beta)
            zero_shot, votes = adapter.zero_shot(validation.features), adapter.votes(validation.features)
            for alpha in alphas:
                score = metric(zero_shot + alpha * votes, validation.targets)
                scored.append((score, replace(adapter, alpha=alpha)))
        return max(scored, key=lambda pair: pair[0])[1].scores

    return learn
