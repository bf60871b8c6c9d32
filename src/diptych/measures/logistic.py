"""Logistic regression with an L2 penalty, solved for many strengths at once.

    F(weights, bias) = sum over examples of the loss + l2 / 2 * |weights - prior|^2

is scikit-learn's objective with C = 1 / l2; the bias carries no penalty. The optimum is unique, so how it is found is
free: features are centred and turned onto their principal axes, which changes neither loss nor penalty, and there the
diagonal of the Hessian is a good first guess for L-BFGS. That saves most of the passes on features as networks give
them, a few directions of which carry most of the variance.

Letters: N, W, C; L strengths, R <= W principal axes and a column of ones for the bias.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diptych.errors import ConfigError, DataError, ShapeError

_HISTORY = 6  # pairs of L-BFGS; more of them saved no pass
_STATE_BYTES = 1 << 30  # of all problems that are solved at once; more strengths than that go in groups
_LOGITS_AT_ONCE = 1 << 22  # 16 MiB; examples are read in chunks of this many logits
_SMALLEST_VARIANCE = 1e-14  # of an axis, as a share of the largest: below lies the rounding of float32 features
_SMALLEST_STEP = 1e-5  # of a line search: float32 resolves no better point


@dataclass(frozen=True, eq=False)
class Examples:
    """Features and what they show.

    Args:
        features: [N, W] float, as they are: not scaled, not of unit length unless the model makes them so.
        targets: [N], class numbers from 0; or [N, C] bool, where an example may show several classes or none.

    Raises:
        ShapeError: the two do not fit.
        DataError: there is no example, or a feature is not finite.
    """

    features: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        multi_label = self.targets.ndim == 2 and self.targets.dtype == torch.bool
        if self.features.ndim != 2 or len(self.features) != len(self.targets) or self.targets.ndim != 1 + multi_label:
            raise ShapeError(
                f"features {list(self.features.shape)} and targets {list(self.targets.shape)} must be [N, W] and [N], "
                "or [N, W] and [N, C] bool."
            )
        if not len(self.features):
            raise DataError("There must be at least one example. Got none: is the split empty?")
        broken = (~self.features.isfinite().all(dim=1)).sum().item()
        if broken:
            raise DataError(f"Features must be finite. {broken:,} of {len(self.features):,} examples are not.")

    def __getitem__(self, rows: Tensor) -> "Examples":
        return Examples(self.features[rows], self.targets[rows])

    def joined(self, other: "Examples") -> "Examples":
        """These and then the others."""
        if self.features.shape[1:] != other.features.shape[1:] or self.targets.shape[1:] != other.targets.shape[1:]:
            raise ShapeError(
                f"Examples that are joined must have the same W and C. Got features {list(self.features.shape)} and "
                f"{list(other.features.shape)}, targets {list(self.targets.shape)} and {list(other.targets.shape)}."
            )
        return Examples(torch.cat([self.features, other.features]), torch.cat([self.targets, other.targets]))


@dataclass(frozen=True, eq=False)
class LogisticFits:
    """One classifier for each strength, in the order asked for."""

    l2: Tensor  # [L] float64
    weights: Tensor  # [L, C, W] float32
    bias: Tensor  # [L, C] float32, mean 0 over classes unless an example may show several
    losses: Tensor  # [L] float64, F / N: nats an example, penalty included
    passes: Tensor  # [L] int64, over the examples
    converged: Tensor  # [L] bool; without, the passes or the digits of float32 ran out first

    def joined(self, other: "LogisticFits") -> "LogisticFits":
        """These and then the others, of the same classes and features."""
        return LogisticFits(**{name: torch.cat([mine, vars(other)[name]]) for name, mine in vars(self).items()})


class LogisticProblem:
    """Examples, made ready to be fitted with any strength of the penalty.

    Class numbers are fitted by a softmax over classes; for two classes the penalty counts double, which makes it the
    single sigmoid of scikit-learn. Targets [N, C] are fitted one class against the rest.

    Args:
        examples: each class with at least one example; with targets [N, C] also one that does not show it.
        prior: [C, W], where the penalty pulls the weights to; to 0 by default.

    Raises:
        DataError: a class has no example, or there is but one class.
        ShapeError: the prior does not fit.
    """

    def __init__(self, examples: Examples, prior: Tensor | None = None) -> None:
        features = examples.features.double()
        self._softmax = examples.targets.ndim == 1
        self._targets = examples.targets.long() if self._softmax else examples.targets
        self._classes = _check_classes(self._targets)
        self._prior = features.new_zeros(self._classes, features.shape[1]) if prior is None else prior.to(features)
        if self._prior.shape != (self._classes, features.shape[1]):
            raise ShapeError(
                f"prior {list(self._prior.shape)} must be [C, W], here {[self._classes, features.shape[1]]}."
            )
        self._offset = None if prior is None else (features @ self._prior.T).float()  # [N, C]
        self._mean = features.mean(dim=0)  # [W]
        features = features - self._mean
        self._axes, variance = _principal_axes(features)  # [W, R], [R]
        ones = features.new_ones(len(features), 1)
        self._inputs = torch.cat([features @ self._axes, ones], dim=1).float()  # [N, R + 1]
        self._scales = torch.cat([variance, ones[0]]).float()  # [R + 1], mean square of each input

    @torch.no_grad()
    def solve(
        self,
        l2: Sequence[float],
        *,
        start: LogisticFits | None = None,
        max_passes: int = 1000,
        tolerance: float = 1e-5,
    ) -> LogisticFits:
        """The optimum for each strength.

        Args:
            l2: L strengths, above 0. scikit-learn's C is 1 / l2.
            start: earlier fits; each problem starts from the one with the nearest strength.
            max_passes: over the examples, for each strength.
            tolerance: stop when a step is expected to lower the loss by less than this share of it.

        Raises:
            ConfigError: a strength is not above 0.
        """
        strengths = torch.tensor(list(l2), dtype=torch.float64, device=self._inputs.device)  # [L]
        if not len(strengths) or not ((strengths > 0) & strengths.isfinite()).all():
            raise ConfigError(f"l2 must be one or more numbers above 0. Got {list(l2)}.")
        numbers = 4 * self._classes * self._inputs.shape[1]  # bytes of one vector of one problem
        at_once = max(1, _STATE_BYTES // (numbers * (2 * _HISTORY + 8)))
        solved = [
            self._minimise(some, self._started(some, start), max_passes, tolerance) for some in strengths.split(at_once)
        ]
        points, losses, passes, converged = (torch.cat(parts) for parts in zip(*solved, strict=True))
        points = points.double()
        turned = points[..., :-1] @ self._axes.T  # [L, C, W]
        bias = points[..., -1] - turned @ self._mean
        if self._softmax:  # which sees only differences between classes
            bias = bias - bias.mean(dim=1, keepdim=True)
        return LogisticFits(strengths, (turned + self._prior).float(), bias.float(), losses, passes, converged)

    def _started(self, l2: Tensor, start: LogisticFits | None) -> Tensor:
        """[L, C, R + 1], the point to start from: the nearest fit in our coordinates, or 0."""
        if start is None:
            return self._inputs.new_zeros(len(l2), self._classes, self._inputs.shape[1])
        nearest = (l2.log()[:, None] - start.l2.log()).abs().argmin(dim=1)
        weights = start.weights[nearest].double() - self._prior
        bias = start.bias[nearest].double() + weights @ self._mean
        return torch.cat([weights @ self._axes, bias[..., None]], dim=2).float()

    def _minimise(
        self, l2: Tensor, point: Tensor, max_passes: int, tolerance: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Batched L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4), a line search for each problem.

        A pass evaluates every open problem once, at its own step. Problems wait for no other: one whose step is refused
        tries a shorter one in the next pass, and one that is done leaves.
        """
        penalty = l2 * (2 if self._softmax and self._classes == 2 else 1) / len(self._inputs)  # [L], of F / N
        found = torch.zeros_like(point)
        losses, passes = torch.zeros_like(l2), torch.zeros_like(l2, dtype=torch.int64)
        converged = torch.zeros_like(l2, dtype=torch.bool)
        open_ = torch.arange(len(l2), device=l2.device)
        loss, gradient, spread = self._evaluate(point, penalty)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # step, change of gradient, 1 / their product or 0: no pair
        scale, length = torch.ones_like(loss), torch.ones_like(loss)
        direction = self._direction(gradient, spread, penalty, scale, pairs)
        for number in range(1, max_passes + 1):
            slope = _dot(gradient, direction)
            step = _each(length) * direction
            new_loss, new_gradient, new_spread = self._evaluate(point + step, penalty)
            new_slope = _dot(new_gradient, direction)
            # Armijo's rule, or near the optimum, where losses differ by rounding alone, the same rule on slopes
            # (Hager and Zhang, SIAM J. Optim. 16, 2005, equation 4.1).
            lower = new_loss <= loss + 1e-4 * length * slope
            level = (new_loss <= loss + 1e-6 * loss.abs()) & (new_slope <= -0.9998 * slope)
            taken = lower | level
            change = new_gradient - gradient
            product = _dot(step, change)
            usable = taken & (product > 0)
            pairs = [*pairs, (step, change, torch.where(usable, 1 / product, 0))][-_HISTORY:]
            # The guess at the Hessian moves with the point; between old and new it fits this change best.
            guessed = _dot(change, self._precondition(change, (spread * new_spread).sqrt(), penalty))
            scale = torch.where(usable, product / guessed, scale)
            point = torch.where(_each(taken), point + step, point)
            gradient = torch.where(_each(taken), new_gradient, gradient)
            spread = torch.where(taken[:, None], new_spread, spread)
            loss = torch.where(taken, new_loss, loss)
            shorter = length * (slope / (slope - new_slope)).clamp(0.1, 0.5)  # where the slope is 0, within bounds
            length = torch.where(taken, 1, shorter)
            fresh = self._direction(gradient, spread, penalty, scale, pairs)
            direction = torch.where(_each(taken), fresh, direction)
            # Newton's estimate of what is left, twice. After a long step `scale` may be far too small, and hide it.
            left = _dot(gradient, self._precondition(gradient, spread, penalty)).maximum(-_dot(gradient, direction))
            small = taken & (left <= 2 * tolerance * loss)
            leaving = small | (length < _SMALLEST_STEP) | torch.full_like(small, number == max_passes)
            if leaving.any():
                gone, stay = open_[leaving], ~leaving
                found[gone], losses[gone], passes[gone] = point[leaving], loss[leaving], number
                converged[gone] = small[leaving]
                open_, penalty, point, gradient, direction = (
                    values[stay] for values in (open_, penalty, point, gradient, direction)
                )
                loss, spread, scale, length = (values[stay] for values in (loss, spread, scale, length))
                pairs = [(step[stay], change[stay], inverse[stay]) for step, change, inverse in pairs]
            if not len(open_):
                break
        return found, losses, passes, converged

    def _direction(
        self,
        gradient: Tensor,
        spread: Tensor,
        penalty: Tensor,
        scale: Tensor,
        pairs: Sequence[tuple[Tensor, Tensor, Tensor]],
    ) -> Tensor:
        """[L, C, R + 1], downhill: the two loops over the pairs around the preconditioner."""
        vector, shares = gradient, []
        for step, change, inverse in reversed(pairs):
            shares.append(inverse * _dot(step, vector))
            vector = vector - _each(shares[-1]) * change
        vector = _each(scale) * self._precondition(vector, spread, penalty)
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            vector = vector + _each(share - inverse * _dot(change, vector)) * step
        return -vector

    def _precondition(self, vector: Tensor, spread: Tensor, penalty: Tensor) -> Tensor:
        """Divide by a guess at the Hessian's diagonal: spread times mean square of the input, and the penalty.

        The Hessian has p (1 - p) in place of the spread |p - y|. Both are the same where p is near y; where it is far
        off, p (1 - p) is near 0 as well, and a step by it would go much too far.
        """
        curvature = spread[:, :, None] * self._scales  # [L, C, R + 1]
        curvature[..., :-1] += _each(penalty)
        divided = vector / curvature
        # A shift of all classes alike changes no softmax: without it the steps stay where the optimum is.
        return divided - divided.mean(dim=1, keepdim=True) if self._softmax else divided

    def _evaluate(self, point: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F / N [L] float64, its gradient [L, C, R + 1], and the spread [L, C], the mean of |p - y|."""
        flat = point.flatten(0, 1)  # [L * C, R + 1]
        loss = torch.zeros_like(penalty)
        gradient = torch.zeros_like(flat)
        spread = torch.zeros_like(point[..., 0])
        for inputs, targets, offset in self._chunks(len(flat)):
            logits = (inputs @ flat.T).unflatten(1, point.shape[:2])  # [n, L, C]
            if offset is not None:
                logits += offset[:, None]
            of_targets = _softmax_part if self._softmax else _sigmoid_part
            part, residuals = of_targets(logits, targets, spread)
            loss += part
            gradient.addmm_(residuals.flatten(1).T, inputs)
        gradient = gradient.view_as(point) / len(self._inputs)
        spread = spread / len(self._inputs)
        if self._softmax:
            spread += gradient[..., -1]  # the mean of p - y
        gradient[..., :-1] += _each(penalty) * point[..., :-1]
        squares = point[..., :-1].square().sum(dim=(1, 2), dtype=torch.float64)
        return loss / len(self._inputs) + penalty / 2 * squares, gradient, spread.clamp_min(1e-12)

    def _chunks(self, columns: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        rows = max(1, _LOGITS_AT_ONCE // columns)
        for start in range(0, len(self._inputs), rows):
            span = slice(start, start + rows)
            yield self._inputs[span], self._targets[span], None if self._offset is None else self._offset[span]


def _softmax_part(logits: Tensor, targets: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy [L] float64 and p - y [n, L, C], in place of the logits; adds to the spread [L, C].

    Nothing is lost where p is nearly 1, as with a weak penalty it is everywhere: 1 - p is summed from other classes.
    The spread gets 2 (1 - p) of the own class; with the sum of p - y, which the caller adds, it is that of |p - y|.
    """
    own = targets[:, None, None].expand(-1, logits.shape[1], 1)  # [n, L, 1]
    highest = logits.amax(dim=2, keepdim=True)
    behind = highest - logits.gather(2, own)  # [n, L, 1]
    others = logits.sub_(highest).exp_().scatter_(2, own, 0).sum(dim=2, keepdim=True)
    loss = behind + torch.log1p(others + torch.expm1(-behind))
    total = others + torch.exp(-behind)
    missing = others / total  # 1 - p of the own class
    residuals = logits.div_(total).scatter_(2, own, -missing)
    spread.T.index_add_(0, targets, 2 * missing.squeeze(2))
    return loss.sum(dim=(0, 2), dtype=torch.float64), residuals


def _sigmoid_part(logits: Tensor, targets: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """As `_softmax_part`, with each class for itself: targets [n, C] bool, the whole spread."""
    sign = 1 - 2 * targets[:, None].to(logits.dtype)  # [n, 1, C]
    wrong = logits * sign  # its sigmoid is the probability of the wrong answer
    missing = wrong.sigmoid()
    spread += missing.sum(dim=0)
    return softplus(wrong).sum(dim=(0, 2), dtype=torch.float64), missing * sign


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Axes [W, R] and the variance [R] along each, without those that have none."""
    if len(centred) < centred.shape[1]:
        _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
        axes, variance = axes.T, lengths.square() / len(centred)
    else:
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = variance > _SMALLEST_VARIANCE * variance.amax()
    return axes[:, kept], variance[kept]


def _check_classes(targets: Tensor) -> int:
    if targets.ndim == 2:
        without = (targets.all(dim=0) | ~targets.any(dim=0)).nonzero().flatten().tolist()
        if without:
            raise DataError(
                f"Each class needs an example that shows it and one that does not. Classes {without[:5]} have only one "
                "kind: leave them out."
            )
        return targets.shape[1]
    if targets.min() < 0:
        raise DataError(f"targets must be class numbers from 0. Got {targets.min().item()}.")
    without = (torch.bincount(targets) == 0).nonzero().flatten().tolist()
    if without:
        raise DataError(f"Each class needs an example. Classes {without[:5]} have none: number only those that do.")
    classes = int(targets.max()) + 1
    if classes < 2:
        raise DataError("There must be two classes or more. Got one.")
    return classes


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[L] float64, the product of [L, C, R + 1] with another."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1)).double()


def _each(values: Tensor) -> Tensor:
    """[L] as [L, 1, 1], float32 unless bool, to go with a vector of each problem."""
    values = values if values.dtype == torch.bool else values.float()
    return values[:, None, None]
