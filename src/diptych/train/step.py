"""One update's gradients: a batch in, the gradient of its loss in every parameter out; whole or in micro-batches."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.model.clip import CLIPOutput
from diptych.train.distributed import Spread

Loss = Callable[[CLIPOutput], Tensor]
Forward = Callable[["Inputs"], CLIPOutput]


class Inputs(NamedTuple):
    """Some pairs of a batch, row by row, as the forward function takes them; it makes of them what the towers take."""

    images: Tensor  # [B, ...]; the trainer's are uint8 [B, S, S, 3]
    tokens: Tensor  # [B, L] int64
    kept_patches: Tensor | None  # [B, K] int64, for patch dropout

    def rows(self, rows: slice) -> "Inputs":
        return Inputs(*(None if values is None else values[rows] for values in self))  # pyright: ignore[reportArgumentType]


def whole_gradients(
    model: Spread, forward: Forward, inputs: Inputs, loss_of: Loss, *, scale_by: float, check: Callable[[float], None]
) -> float:
    """Gradients of a batch in one forward and one backward pass.

    Args:
        model: whose gradients; they are added to what is there.
        forward: inputs to features, through `model`.
        inputs: the pairs of this process.
        loss_of: the loss of features.
        scale_by: the gradients are this many times as large as they are.
        check: is given the loss before the backward pass.

    Returns:
        The loss.
    """
    loss = loss_of(forward(inputs))
    value = loss.item()
    check(value)
    with model.averaging(True):
        (loss if scale_by == 1 else loss * scale_by).backward()
    return value


def cached_gradients(
    model: Spread,
    forward: Forward,
    inputs: Inputs,
    loss_of: Loss,
    *,
    scale_by: float,
    check: Callable[[float], None],
    micro_batches: Sequence[slice],
) -> float:
    """The same gradients by way of micro-batches; all pairs of the batch stay each other's negatives.

    First features alone are computed, of one micro-batch after the other; then the loss of all, and its gradients for
    the features; then each micro-batch again, with those gradients as its own. Activations of one micro-batch are held
    at a time, for one more forward pass.

    Source: GradCache, arXiv:2101.06983, section 3; BASIC, arXiv:2111.10050, section 5.

    Args:
        model: see `whole_gradients`, as for all the others.
        forward: likewise.
        inputs: likewise.
        loss_of: likewise.
        scale_by: likewise.
        check: likewise.
        micro_batches: rows of each, together all rows; as many in every process.
    """
    with torch.no_grad():
        outputs = [forward(inputs.rows(rows)) for rows in micro_batches]
    images, texts = (torch.cat(features) for features in zip(*((o[0], o[1]) for o in outputs), strict=True))
    leaves = CLIPOutput(
        *(None if value is None else value.detach().requires_grad_() for value in (images, texts, *outputs[0][2:]))  # pyright: ignore[reportArgumentType]
    )
    loss = loss_of(leaves)
    value = loss.item()
    check(value)
    (loss * scale_by).backward()
    last = len(micro_batches) - 1
    for number, rows in enumerate(micro_batches):
        with model.averaging(number == last):
            output = forward(inputs.rows(rows))
            given = [leaves.image_features.grad[rows], leaves.text_features.grad[rows]]  # pyright: ignore[reportOptionalSubscript]
            # Scale and bias are not of any pair: their gradients come once, along with the last.
            numbers = [leaf for leaf in leaves[2:] if leaf is not None]
            given += [leaf.grad if number == last else torch.zeros_like(leaf) for leaf in numbers]
            values = [value for value in output if value is not None]
            learning = [value.requires_grad for value in values]  # not of a frozen tower
            torch.autograd.backward(
                list(itertools.compress(values, learning)), list(itertools.compress(given, learning))
            )
    return value


def count_kept_patches(patches: int, dropout: float) -> int:
    """Patches less the share that is dropped, rounded, and at least 1."""
    return max(1, round(patches * (1 - dropout)))


def draw_kept_patches(noise: Tensor, *, patches: int, dropout: float) -> Tensor:
    """Which patches of each picture are looked at; a function of its own number alone.

    Args:
        noise: [B] int64.
        patches: P.
        dropout: share of the patches that are not looked at.

    Returns:
        [B, K] int64, in ascending order.
    """
    kept = count_kept_patches(patches, dropout)
    generator = torch.Generator()
    rows = [torch.randperm(patches, generator=generator.manual_seed(seed))[:kept] for seed in noise.tolist()]
    return torch.stack(rows).sort(dim=1).values
