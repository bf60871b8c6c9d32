import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures.linear_probe import Scorer, accuracy, choose_l2, halves, hold_out, train_linear_probe
from diptych.measures.logistic import Examples, LogisticProblem
from diptych.measures.metrics import mean_per_class

GRID = [10 ** (step / 8) for step in range(-48, 49)]


def examples(n: int, seed: int) -> Examples:
    """Three classes around the corners of a triangle, not quite apart."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return Examples(2 * torch.eye(3, 5)[targets] + torch.randn(n, 5, generator=generator), targets)


TRAIN, VALIDATION = examples(60, 0), examples(45, 1)


def best_where_logits_are(size: float) -> Scorer:
    """A metric with a single peak: logits shrink as the penalty grows."""

    def metric(scores: Tensor, targets: Tensor) -> float:
        return -abs(scores.std().log().item() - size)

    return metric


@pytest.mark.parametrize("size", [2.0, 0.5, -1.0, -6.0])
def test_bracketing_finds_a_single_peak_of_the_whole_grid(size: float):
    metric = best_where_logits_are(size)
    fits = LogisticProblem(TRAIN).solve(GRID)
    whole = [
        metric(VALIDATION.features @ weights.T + bias, VALIDATION.targets)
        for weights, bias in zip(fits.weights, fits.bias, strict=True)
    ]
    chosen = choose_l2(TRAIN, VALIDATION, metric=metric)
    assert chosen.probe.l2 == pytest.approx(GRID[max(range(97), key=whole.__getitem__)])
    assert len(chosen.tried) <= 15
    assert chosen.tried[chosen.probe.l2] == max(chosen.tried.values())


def test_bracketing_starts_a_hundredfold_apart_and_ends_at_eight_steps_a_decade():
    chosen = choose_l2(TRAIN, VALIDATION, metric=best_where_logits_are(0.5))
    tried = list(chosen.tried)
    assert tried == sorted(tried)
    assert {1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6} <= {float(f"{l2:.6g}") for l2 in tried}
    near = tried.index(chosen.probe.l2)
    for neighbour in (tried[near - 1], tried[near + 1]):
        assert max(neighbour / chosen.probe.l2, chosen.probe.l2 / neighbour) == pytest.approx(10 ** (1 / 8))


def test_of_strengths_that_score_alike_the_strongest_wins():
    chosen = choose_l2(TRAIN, VALIDATION, metric=lambda scores, targets: 0.5)
    assert chosen.probe.l2 == pytest.approx(1e6)
    assert len(chosen.tried) == 7 + 4  # at the end of the grid one neighbour is missing each time


def test_the_final_probe_is_that_of_scikit_learn_on_both_splits():
    probe, chosen = train_linear_probe(TRAIN, VALIDATION)
    assert probe.l2 == chosen.probe.l2
    both = TRAIN.joined(VALIDATION)
    twin = LogisticRegression(C=1 / probe.l2, max_iter=1000, tol=1e-8).fit(both.features.numpy(), both.targets.numpy())
    chances = probe.scores(VALIDATION.features).softmax(dim=1).double()
    torch.testing.assert_close(
        chances, torch.tensor(twin.predict_proba(VALIDATION.features.numpy())).double(), atol=3e-3, rtol=0
    )
    assert probe.converged


def test_the_choice_does_not_see_the_validation_targets_in_its_weights():
    chosen = choose_l2(TRAIN, VALIDATION)
    alone = LogisticProblem(TRAIN).solve([chosen.probe.l2])
    torch.testing.assert_close(chosen.probe.weights, alone.weights[0], atol=0.02, rtol=0.02)
    assert chosen.tried[chosen.probe.l2] == accuracy(chosen.probe.scores(VALIDATION.features), VALIDATION.targets)


def test_the_metric_is_the_callers():
    def per_class(scores: Tensor, targets: Tensor) -> float:
        return mean_per_class(scores.argmax(dim=1) == targets, targets)

    uneven = VALIDATION[(VALIDATION.targets != 2) | (torch.arange(45) < 6)]
    chosen = choose_l2(TRAIN, uneven, metric=per_class)
    assert chosen.tried[chosen.probe.l2] == per_class(chosen.probe.scores(uneven.features), uneven.targets)


def test_what_is_held_out_is_the_same_share_of_every_class_and_comes_from_the_seed():
    targets = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    data = Examples(torch.arange(18.0)[:, None], targets)
    stays, aside = hold_out(data, share=0.3, seed=0)
    assert torch.bincount(aside.targets, minlength=4).tolist() == [3, 1, 1, 0]  # one at least, but never the last
    assert sorted([*stays.features[:, 0].tolist(), *aside.features[:, 0].tolist()]) == list(range(18))
    assert torch.equal(hold_out(data, share=0.3, seed=0)[1].features, aside.features)
    assert not torch.equal(hold_out(data, share=0.3, seed=1)[1].features, aside.features)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: hold_out(TRAIN, share=1, seed=0), ConfigError, "between 0 and 1. Got 1"),
        (lambda: hold_out(Examples(torch.ones(2, 1), torch.ones(2, 3).bool()), share=0.5, seed=0), ShapeError, "[N]"),
        (lambda: choose_l2(TRAIN, Examples(torch.ones(2, 4), torch.tensor([0, 1]))), ShapeError, r"\[2, 4\]"),
        (lambda: choose_l2(TRAIN, Examples(torch.ones(1, 5), torch.tensor([3]))), DataError, "from 0 to 2"),
        (lambda: choose_l2(TRAIN[TRAIN.targets > 0], VALIDATION), DataError, r"Classes \[0\] have none"),
    ],
)
def test_what_cannot_be_probed_is_named(call, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        call()


def test_halves_share_no_picture_and_both_have_every_class():
    targets = torch.tensor([0, 1, 0, 1, 1, 2, 0, 0])
    choose, measure = halves(targets, seed=0)
    assert sorted([*choose.tolist(), *measure.tolist()]) == list(range(8))
    assert torch.bincount(targets[choose], minlength=3).tolist() == [2, 1, 0]  # a single picture is measured on
    assert halves(targets, seed=0)[0].tolist() == choose.tolist()
    assert any(halves(targets, seed=seed)[0].tolist() != choose.tolist() for seed in range(1, 5))
    with pytest.raises(DataError, match="class with two pictures"):
        halves(torch.arange(3), seed=0)
