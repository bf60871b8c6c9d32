import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from diptych.errors import ConfigError, DataError, ShapeError
from diptych.measures import logistic
from diptych.measures.logistic import Examples, LogisticProblem

L2 = [10.0**decade for decade in range(-6, 7, 2)]


def examples(n: int, width: int, classes: int, *, apart: float = 1.0, seed: int = 0) -> Examples:
    """Clouds around class means, with an offset and axes of very different variance, as networks give them."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    means = apart * torch.randn(classes, width, generator=generator)
    features = (means[targets] + torch.randn(n, width, generator=generator)) / torch.arange(1, width + 1)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return Examples(3 + features @ turn, targets)


SETS = {
    "overlapping": examples(300, 6, 5, apart=0.5),
    "separable": examples(120, 20, 4, apart=3),
    "wide": examples(30, 50, 3),  # more features than examples
}


def objective(data: Examples, weights: Tensor, bias: Tensor, l2: float) -> Tensor:
    """F / N, as the formula stands."""
    logits = data.features.double() @ weights.T + bias
    return cross_entropy(logits, data.targets) + l2 / 2 / len(logits) * weights.square().sum()


def scikit(features: Tensor, targets: Tensor, l2: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that float64 resolves no better point
        return model.fit(features.double().numpy(), targets.numpy())


@pytest.mark.parametrize("name", SETS)
def test_every_optimum_is_that_of_scikit_learn(name: str):
    data = SETS[name]
    fits = LogisticProblem(data).solve(L2)
    assert fits.converged.all()
    for l2, weights, bias, loss in zip(L2, fits.weights, fits.bias, fits.losses, strict=True):
        twin = scikit(data.features, data.targets, l2)
        expected = objective(data, torch.tensor(twin.coef_), torch.tensor(twin.intercept_), l2).item()
        assert loss.item() == pytest.approx(expected, rel=1e-4), l2
        assert objective(data, weights.double(), bias.double(), l2).item() == pytest.approx(expected, rel=1e-4), l2
        ours = (data.features.double() @ weights.double().T + bias).softmax(dim=1)
        chances = torch.tensor(twin.predict_proba(data.features.double().numpy()))
        best = chances.topk(2).values
        clear = best[:, 0] - best[:, 1] > 0.02  # with an endless penalty all classes tie
        assert (ours.argmax(dim=1) == chances.argmax(dim=1))[clear].all(), l2
        torch.testing.assert_close(ours, chances, atol=0.01, rtol=0)


def test_probabilities_of_two_classes_are_those_of_the_single_sigmoid_of_scikit_learn():
    data = examples(100, 8, 2)
    fits = LogisticProblem(data).solve([0.1, 10], tolerance=1e-8)
    for row, l2 in enumerate((0.1, 10)):
        chances = (data.features @ fits.weights[row].T + fits.bias[row]).softmax(dim=1)
        twin = scikit(data.features, data.targets, l2).predict_proba(data.features.double().numpy())
        np.testing.assert_allclose(chances, twin, atol=1e-3)


def test_several_labels_an_example_are_one_sigmoid_a_class():
    single = examples(150, 8, 4, apart=0.7)
    shown = torch.stack([single.targets == 0, single.targets < 2, single.targets % 2 == 1], dim=1)  # [N, 3]
    fits = LogisticProblem(Examples(single.features, shown)).solve([1e-3, 1, 1e4])
    assert fits.converged.all()
    for l2, weights, bias, loss in zip((1e-3, 1, 1e4), fits.weights, fits.bias, fits.losses, strict=True):
        expected = 0.0
        for column in range(3):
            twin = scikit(single.features, shown[:, column], l2)
            logits = torch.tensor(twin.decision_function(single.features.double().numpy()))
            expected += binary_cross_entropy_with_logits(logits, shown[:, column].double()).item()
            expected += l2 / 2 / 150 * float((twin.coef_**2).sum())
            ours = single.features @ weights[column] + bias[column]
            torch.testing.assert_close(ours.double(), logits, atol=0.1, rtol=0.01)
        assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_prior_is_what_the_penalty_pulls_to():
    data = SETS["overlapping"]
    prior = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    fits = LogisticProblem(data, prior).solve([1.0, 1e7], tolerance=1e-8)
    torch.testing.assert_close(fits.weights[1], prior, atol=1e-3, rtol=0)
    # At the optimum the gradient of the formula is zero: l2 * (weights - prior) balances that of the loss.
    weights, bias = fits.weights[0].double().requires_grad_(), fits.bias[0].double().requires_grad_()
    loss = cross_entropy(data.features.double() @ weights.T + bias, data.targets)
    loss = loss + 1.0 / 2 / 300 * (weights - prior).square().sum()
    loss.backward()
    assert weights.grad is not None
    assert bias.grad is not None
    assert weights.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4
    assert fits.losses[0].item() == pytest.approx(loss.item(), rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=6), seed=st.integers(0, 1000))
def test_an_endless_penalty_leaves_the_shares_of_the_classes(counts: list[int], seed: int):
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = torch.randn(len(targets), 3, generator=torch.Generator().manual_seed(seed))
    fits = LogisticProblem(Examples(features, targets)).solve([1e9], tolerance=1e-9)
    shares = torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(fits.bias[0].softmax(dim=0), shares, atol=1e-3, rtol=0)
    assert fits.weights.abs().max() < 1e-4
    entropy = -sum(share * math.log(share) for share in shares.tolist())
    assert fits.losses.item() == pytest.approx(entropy, rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_renumbered_classes_renumber_the_weights(order: list[int], seed: int):
    data = examples(60, 5, 4, seed=seed)
    new_number = torch.tensor(order)
    fits = LogisticProblem(data).solve([0.1], tolerance=1e-9)
    renumbered = LogisticProblem(Examples(data.features, new_number[data.targets])).solve([0.1], tolerance=1e-9)
    torch.testing.assert_close(renumbered.weights[0][new_number], fits.weights[0], atol=0.01, rtol=0.01)


def test_the_penalty_weighs_against_the_sum_over_examples():
    data = SETS["overlapping"]
    once = LogisticProblem(data).solve([3.0], tolerance=1e-9)
    twice = LogisticProblem(data.joined(data)).solve([6.0], tolerance=1e-9)
    assert twice.losses.item() == pytest.approx(once.losses.item(), rel=1e-6)
    torch.testing.assert_close(twice.weights, once.weights, atol=1e-3, rtol=1e-3)


def test_chunks_and_groups_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = LogisticProblem(SETS["overlapping"]).solve(L2)
    monkeypatch.setattr(logistic, "_LOGITS_AT_ONCE", 17 * 5 * 2)  # 17 examples, the last chunk is shorter
    monkeypatch.setattr(logistic, "_STATE_BYTES", 2 * 20 * 4 * 5 * 7)  # two strengths a group
    parts = LogisticProblem(SETS["overlapping"]).solve(L2)
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-5, atol=0)


def test_logits_never_outgrow_their_limit(monkeypatch: pytest.MonkeyPatch):
    seen = []
    plain = logistic._softmax_part
    monkeypatch.setattr(logistic, "_LOGITS_AT_ONCE", 1000)
    monkeypatch.setattr(
        logistic, "_softmax_part", lambda logits, *rest: seen.append(logits.numel()) or plain(logits, *rest)
    )
    LogisticProblem(SETS["separable"]).solve(L2)
    assert 0 < max(seen) <= 1000


def test_a_start_elsewhere_ends_at_the_same_optimum_and_sooner():
    problem = LogisticProblem(SETS["overlapping"], torch.ones(5, 6))
    cold = problem.solve([0.1])
    near = problem.solve([0.1], start=problem.solve([100.0, 0.05]))
    assert near.losses.item() == pytest.approx(cold.losses.item(), rel=1e-5)
    assert near.passes < cold.passes
    assert problem.solve([0.1], start=cold).passes.item() == 1


def test_problems_that_run_out_of_passes_say_so():
    fits = LogisticProblem(SETS["overlapping"]).solve([1e-3, 1e6], max_passes=3)
    assert fits.converged.tolist() == [False, True]
    assert fits.passes.tolist()[0] == 3


def test_a_start_that_is_wrong_about_every_class_finds_back():
    """Where all probabilities are 0 or 1 and wrong, the Hessian is near 0, and Newton's step would have no end."""
    data = SETS["overlapping"]
    prior = 100 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    fits = LogisticProblem(data, prior).solve([1e-3, 1.0])
    assert fits.converged.all()
    assert (fits.losses < 1.7 + torch.tensor([1e-3, 1.0]) / 600 * prior.square().sum()).all()  # that of no weights


def test_a_tolerance_is_kept_even_when_it_is_loose():
    """One long step, after which the curvature is another, once looked like the end."""
    data = examples(400, 64, 20, apart=2)
    best = LogisticProblem(data).solve(L2, tolerance=1e-8).losses
    for tolerance in (1e-1, 1e-2, 1e-4):
        assert (LogisticProblem(data).solve(L2, tolerance=tolerance).losses <= best * (1 + 5 * tolerance)).all()


def test_features_that_never_vary_have_no_say():
    data = SETS["overlapping"]
    constant = torch.full((300, 1), 7.0)
    fits = LogisticProblem(Examples(torch.cat([data.features, constant], dim=1), data.targets)).solve([0.1])
    assert fits.losses.item() == pytest.approx(LogisticProblem(data).solve([0.1]).losses.item(), rel=1e-5)
    assert fits.weights[..., -1].abs().max() < 1e-6
    alone = LogisticProblem(Examples(constant, data.targets)).solve([0.1])
    assert alone.losses.item() == pytest.approx(math.log(5))


def broken(features: Tensor) -> Tensor:
    features = features.clone()
    features[3, 2] = math.nan
    return features


X, Y = SETS["overlapping"].features, SETS["overlapping"].targets


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: Examples(X, Y[1:]), ShapeError, r"features \[300, 6\] and targets \[299\] must be \[N, W\] and \[N\]"),
        (lambda: Examples(X, torch.zeros(300, 2)), ShapeError, r"targets \[300, 2\] must .* \[N, C\] bool"),
        (lambda: Examples(X[:0], Y[:0]), DataError, "at least one example"),
        (lambda: Examples(broken(X), Y), DataError, "must be finite. 1 of 300 examples are not"),
        (lambda: Examples(X, Y).joined(Examples(X[:, 1:], Y)), ShapeError, r"\[300, 6\] and \[300, 5\]"),
        (lambda: LogisticProblem(Examples(X, Y * 2)), DataError, r"Classes \[1, 3, 5, 7\] have none"),
        (lambda: LogisticProblem(Examples(X, Y - 1)), DataError, "class numbers from 0. Got -1"),
        (lambda: LogisticProblem(Examples(X, Y * 0)), DataError, "two classes or more"),
        (lambda: LogisticProblem(Examples(X, torch.ones(300, 2).bool())), DataError, r"\[0, 1\] have only one kind"),
        (lambda: LogisticProblem(Examples(X, Y), torch.ones(4, 6)), ShapeError, r"prior \[4, 6\] .* here \[5, 6\]"),
        (lambda: LogisticProblem(Examples(X, Y)).solve([1, 0]), ConfigError, r"above 0. Got \[1, 0\]"),
        (lambda: LogisticProblem(Examples(X, Y)).solve([]), ConfigError, "one or more numbers"),
    ],
)
def test_what_cannot_be_fitted_is_named(call, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        call()
