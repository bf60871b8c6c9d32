import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.few_shot import (
    TipAdapter,
    draw_shots,
    few_shot_curve,
    probe_learner,
    shots_to_match,
    tip_adapter_learner,
)
from diptych.measures.logistic import Examples
from diptych.torch_runtime import generator

WEIGHTS = torch.eye(3, 8)  # zero-shot classifier of the tests


def examples(n: int, seed: int, *, shift: float = 0.0) -> Examples:
    """Unit features around the zero-shot weights; with a shift, around others."""
    targets = torch.arange(n) % 3
    centres = WEIGHTS + shift * WEIGHTS.roll(1, dims=0)
    return Examples(normalize(centres[targets] + 0.3 * torch.randn(n, 8, generator=generator(seed))), targets)


POOL, VALIDATION, TEST = examples(90, 0), examples(60, 1), examples(90, 2)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(3, 9), min_size=1, max_size=5),
    shots=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_shots_are_even_over_classes_and_never_the_same_twice(counts: list[int], shots: int, seed: int):
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=generator(seed))]
    rows = draw_shots(targets, shots, generator(seed))
    assert targets[rows].tolist() == [number for number in range(len(counts)) for _ in range(shots)]
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(draw_shots(targets, 3, generator(seed)).tolist())


def test_every_example_is_drawn_as_often():
    targets = torch.tensor([0, 1, 0, 1, 1, 0])
    source = generator(0)
    drawn = torch.bincount(torch.cat([draw_shots(targets, 1, source) for _ in range(3000)]))
    assert (drawn - 1000).abs().max() < 120  # 4.6 standard deviations


def test_learners_meet_the_same_draws_and_the_mean_is_theirs():
    seen: list[list[Tensor]] = [[], []]

    def spy(number: int):
        def learn(some: Examples):
            seen[number].append(some.features)
            return lambda features: torch.eye(3)[torch.full((len(features),), len(seen[number]) % 3)]

        return learn

    first = few_shot_curve(spy(0), POOL, TEST, seed=5, shots=(1, 2), repeats=3)
    few_shot_curve(spy(1), POOL, TEST, seed=5, shots=(1, 2), repeats=3)
    assert [len(features) for features in seen[0]] == [3, 3, 3, 6, 6, 6]
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))
    assert not torch.equal(seen[0][0], seen[0][1])
    assert [point.shots for point in first] == [1, 2]
    assert first[0].scores == pytest.approx([1 / 3] * 3)  # one class for all, whichever it is
    assert first[0].mean == pytest.approx(1 / 3)
    assert first[0].interval.low == pytest.approx(1 / 3)


def test_the_interval_is_over_draws():
    values = iter([0.2, 0.4, 0.6, 0.8])
    point = few_shot_curve(
        lambda some: lambda features: features,
        POOL,
        TEST,
        seed=0,
        shots=(1,),
        repeats=4,
        metric=lambda scores, targets: next(values),
    )[0]
    assert point.scores == (0.2, 0.4, 0.6, 0.8)
    assert point.mean == pytest.approx(0.5)
    assert 0.2 < point.interval.low < 0.4 < 0.6 < point.interval.high < 0.8


def test_a_probe_gets_better_with_shots():
    points = few_shot_curve(probe_learner(VALIDATION), POOL, TEST, seed=0, shots=(1, 16), repeats=2)
    assert points[0].mean + 0.02 < points[1].mean
    assert points[1].mean > 0.85


def test_shots_to_match_interpolates_in_the_logarithm():
    curve = [(1, 0.4), (2, 0.5), (4, 0.6), (8, 0.55), (16, 0.7), (256, 0.9)]
    assert shots_to_match(curve, 0.4) == 1
    assert shots_to_match(curve, 0.45) == pytest.approx(math.sqrt(2))
    assert shots_to_match(curve, 0.6) == pytest.approx(4)  # the first time, though it falls again
    assert shots_to_match(curve, 0.8) == pytest.approx(64)  # half the way from 16 to 256
    assert shots_to_match(list(reversed(curve)), 0.8) == pytest.approx(64)
    assert shots_to_match(curve, 0.39) == 0
    assert shots_to_match(curve, 0.91) == math.inf


def test_tip_adapter_by_hand():
    half = math.sqrt(0.5)
    keys = Examples(torch.tensor([[1.0, 0.0], [0.0, 1.0], [half, half]]), torch.tensor([0, 1, 1]))
    adapter = TipAdapter(examples=keys, weights=torch.eye(2), logit_scale=10, alpha=2, beta=3)
    expected = [10 + 2 * 1, 0 + 2 * (math.exp(-3) + math.exp(-3 * (1 - half)))]
    torch.testing.assert_close(adapter.scores(torch.tensor([[1.0, 0.0]])), torch.tensor([expected]))


def test_a_cache_without_weight_is_zero_shot():
    adapter = TipAdapter(examples=POOL, weights=WEIGHTS, logit_scale=100, alpha=0)
    torch.testing.assert_close(adapter.scores(TEST.features), 100 * TEST.features @ WEIGHTS.T)


def test_alpha_and_beta_are_those_that_are_best_on_validation():
    validation = examples(60, 3, shift=2.0)  # where the words are wrong: zero-shot names another class
    shots = examples(9, 4, shift=2.0)
    alphas, betas = (0.01, 3.0, 300.0), (1.0, 6.0)
    scores = tip_adapter_learner(WEIGHTS, 20, validation, alphas=alphas, betas=betas)(shots)(validation.features)

    def right(some: Tensor) -> int:
        return int((some.argmax(dim=1) == validation.targets).sum())

    each = [
        right(TipAdapter(examples=shots, weights=WEIGHTS, logit_scale=20, alpha=a, beta=b).scores(validation.features))
        for a in alphas
        for b in betas
    ]
    assert right(scores) == max(each) > min(each)


def test_a_probe_that_is_pulled_to_the_words_starts_at_zero_shot():
    prior = 20 * WEIGHTS
    shots = POOL[draw_shots(POOL.targets, 1, generator(0))]
    kept = probe_learner(VALIDATION, prior=prior, metric=lambda scores, targets: 0.0)(shots)  # strongest of equals
    scores = kept(TEST.features)
    zero_shot = TEST.features @ prior.T
    shifts = scores - zero_shot
    torch.testing.assert_close(shifts, shifts[:1].expand_as(shifts), atol=1e-3, rtol=0)  # but for a bias a class
    chosen = probe_learner(VALIDATION, prior=prior)(shots)(TEST.features)
    plain = probe_learner(VALIDATION)(shots)(TEST.features)
    right = [(some.argmax(dim=1) == TEST.targets).sum() for some in (chosen, plain)]
    assert right[0] > right[1]  # one shot alone knows less than words and one shot


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: draw_shots(torch.tensor([0, 0, 1]), 2, generator(0)), DataError, "Class 1 has 1: ask for fewer"),
        (lambda: draw_shots(torch.tensor([0, 1]), 0, generator(0)), ConfigError, "1 or more. Got 0"),
        (lambda: draw_shots(torch.ones(2, 2).bool(), 1, generator(0)), ShapeError, r"targets \[2, 2\]"),
        (lambda: few_shot_curve(probe_learner(TEST), POOL, TEST, seed=0, repeats=0), ConfigError, "repeats"),
        (lambda: shots_to_match([], 0.5), DataError, "above 0, each once"),
        (lambda: shots_to_match([(1, 0.2), (1, 0.3)], 0.5), DataError, r"Got \[1, 1\]"),
        (lambda: shots_to_match([(0, 0.2)], 0.5), DataError, r"Got \[0\]"),
        (lambda: TipAdapter(examples=POOL, weights=torch.eye(3), logit_scale=1), ShapeError, r"\[90, 8\] and weights"),
        (lambda: TipAdapter(examples=POOL, weights=torch.eye(2, 8), logit_scale=1), ShapeError, "below C"),
        (lambda: tip_adapter_learner(WEIGHTS, 1, TEST, alphas=()), ConfigError, "an alpha and a beta"),
    ],
)
def test_what_cannot_be_learned_is_named(call, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        call()
