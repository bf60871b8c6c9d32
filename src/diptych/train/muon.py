"""Muon: matrices within blocks and stages are updated by their momentum made orthogonal; all else by AdamW."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from diptych.train.distributed import share_of, whole
from diptych.train.optim import StateType, adamw

# a, b, c of a quintic that brings singular values of 0.002 to 1 to within 0.68 to 1.21 in so many rounds.
_QUINTIC, _ROUNDS = (3.4445, -4.7750, 2.0315), 5
_LIKE_ADAMW = 0.2  # root mean square of what AdamW adds at a rate of 1


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the groups that say so, AdamW for the others.

    A matrix moves by the orthogonal one that is nearest to its momentum: in all directions alike, where AdamW goes
    almost only in the few that its gradients have in common. A convolution [O, I, k, k] is a matrix [O, I * k * k].
    The update has the root mean square of AdamW's, so learning rate and decay mean what they mean there.

    Every step takes in gradients; a matrix may move at every n-th alone, n times as far, as two momenta in a row are
    almost the same. Matrices take turns.

    Where each process holds a share of a matrix, its momentum is gathered for the update, which every process computes.

    Sources: Keller Jordan, Muon, 2024 (kellerjordan.github.io/posts/muon), for update and coefficients;
    arXiv:2502.16982, section 2.2, for its size.

    Args:
        groups: as of `parameter_groups`; those with `stacked` above 0 are Muon's.
        momentum: share that stays, of one step; with Nesterov's look ahead.
        every: steps from one update of a matrix to the next.
        betas: of AdamW.
        epsilon: likewise.
        state: type of the momentum and of AdamW's moments; not int8.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        *,
        momentum: float,
        every: int = 1,
        betas: tuple[float, float],
        epsilon: float,
        state: StateType,
    ) -> None:
        assert state != "int8"
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "stacked": 0})
        self._momentum = momentum
        self._every = every
        self._dtype = None if state == "float32" else getattr(torch, state)  # as the parameter, which is float32
        self._rest = adamw(
            [g for g in self.param_groups if not g["stacked"]], betas=betas, epsilon=epsilon, state=state
        )
        self._rest.state = self.state
        own = [parameter for group in self.param_groups if group["stacked"] for parameter in group["params"]]
        self._turns = {parameter: number % every for number, parameter in enumerate(own)}

    def memory_of(self, parameter: Tensor) -> tuple[str, ...]:
        """What is remembered of one parameter, by name, where it is not AdamW's."""
        return ("step", "momentum") if parameter in self._turns else ()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update."""
        assert closure is None
        self._rest.step()
        for group in self.param_groups:
            count = group["stacked"]
            if not count:
                continue
            found = {p: self._direction(p) for p in group["params"] if p.grad is not None}
            ahead = {p: _wide(whole(d)).reshape(count, len(p) // count, -1) for p, d in found.items() if d is not None}
            rate = self._every * group["lr"]
            for parameter, update in zip(ahead, _orthogonal_all(list(ahead.values())), strict=True):
                size = _LIKE_ADAMW * max(update.shape[1:]) ** 0.5
                update = share_of(update.reshape(parameter.shape).to(parameter.dtype), parameter)
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * size)

    def _direction(self, parameter: Tensor) -> Tensor | None:
        """The momentum with this gradient, a step ahead of it; None where it is not the parameter's turn to move."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(parameter, dtype=self._dtype)
        momentum = state["momentum"].to(gradient.dtype).lerp_(gradient, 1 - self._momentum)
        state["momentum"].copy_(momentum)
        state["step"] += 1
        moves = int(state["step"].item()) % self._every == self._turns[parameter]
        return torch.lerp(gradient, momentum, self._momentum) if moves else None


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrices: singular vectors as they are, singular values near 1.

    X becomes p(X X') X with p(A) = a + b A + c A^2, five times. As all powers of X X' commute, the rounds are done on
    that matrix alone, which is the smaller the less square X is, and X is multiplied once.

    Args:
        matrices: [N, rows, columns].

    Returns:
        Likewise. Singular values lie between 0.68 and 1.21 where they were above 0.002 of the matrix's norm; what is 0
        stays 0.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    a, b, c = _QUINTIC
    gram, factors = x @ x.mT, None  # [N, r, r], r the shorter side
    for round_ in range(_ROUNDS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        factors = factor if factors is None else factor @ factors
        if round_ + 1 < _ROUNDS:
            gram = factor @ (gram @ factor)
    assert factors is not None
    x = factors @ x
    return x.mT if is_tall else x


def _wide(direction: Tensor) -> Tensor:
    """As float32, or as float64, in which runs of several processes are held to those of one."""
    return direction.to(torch.promote_types(direction.dtype, torch.float32))


def orthogonal_flops(rows: int, columns: int) -> int:
    """FLOPs of `orthogonal` for one matrix."""
    short, long = sorted((rows, columns))
    return 4 * short**2 * long + 2 * short**3 * (4 * _ROUNDS - 3)


def _orthogonal_all(directions: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonal` of each [n, rows, columns], those of one shape in one call."""
    by_shape: dict[torch.Size, list[int]] = {}
    for number, direction in enumerate(directions):
        by_shape.setdefault(direction.shape, []).append(number)
    updates = list(directions)
    for shape, numbers in by_shape.items():
        together = orthogonal(torch.cat([directions[number] for number in numbers]))
        for number, update in zip(numbers, together.split(shape[0]), strict=True):
            updates[number] = update
    return updates
