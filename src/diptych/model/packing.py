"""Texts of a batch without their padding: one after the other for what looks at one position, in groups for attention.

Source: unpadding, as ModernBERT does it on GPUs, arXiv:2412.13663.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_GROUPS = 4  # of texts that attend together, padded to the longest of the group
_LEAST_PADDING = 0.1  # share of a batch, below which it stays as it is


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B texts lie when nothing behind their ends is kept: T of them, shorter texts first."""

    tokens: Tensor  # [T] int64
    positions: Tensor  # [T] int64, of each within its text
    ends: Tensor  # [B] int64, where the last token of each text lies, in the order of the batch
    groups: tuple["_Group", ...]

    def by_text(self, rows: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """Do something to texts as wholes.

        Args:
            rows: [T, ...].
            work: [b, l, ...] to [b, l, ...], of texts of about one length l; what is behind their ends is 0, and what
                it makes of that is dropped.

        Returns:
            [T, ...].
        """
        parts = rows.split([group.count for group in self.groups])
        return torch.cat(
            [group.packed(work(group.padded(part))) for group, part in zip(self.groups, parts, strict=True)]
        )


@dataclass(frozen=True)
class _Group:
    texts: int
    length: int  # of its longest text, tokens
    count: int  # of tokens
    places: Tensor | None  # [count] int64, where each lies in [texts, length]; None: nothing is padded

    def padded(self, rows: Tensor) -> Tensor:
        """[count, ...] to [texts, length, ...]."""
        if self.places is not None:
            rows = _Placed.apply(rows, self.places, self.texts * self.length)
        return rows.unflatten(0, (self.texts, self.length))

    def packed(self, texts: Tensor) -> Tensor:
        """The reverse."""
        rows = texts.flatten(0, 1)
        return rows if self.places is None else _Taken.apply(rows, self.places)


def packed(tokens: Tensor, ends: Tensor) -> Packing | None:
    """How to pack a batch of texts; None where that would cost more than it saves.

    It saves what is computed for padding, and costs a copy in and out of each attention: on a CPU it pays where a
    tenth is padding (benchmarks/packing.py). Elsewhere it was not measured, and the lengths would be waited for.

    Args:
        tokens: [B, L] int64.
        ends: [B] int64, position of the last token that counts in each.
    """
    if tokens.device.type != "cpu" or not tokens.numel():
        return None
    lengths = ends + 1  # [B]
    if int(lengths.sum()) > (1 - _LEAST_PADDING) * tokens.numel():
        return None
    lengths, order = lengths.sort(stable=True)
    is_text = _up_to(lengths, tokens.shape[1])  # [B, L]
    last = torch.empty_like(order)
    last[order] = lengths.cumsum(0) - 1
    return Packing(
        tokens=tokens[order][is_text],
        positions=is_text.nonzero()[:, 1],
        ends=last,
        groups=tuple(_group(some) for some in lengths.chunk(_GROUPS)),
    )


def _up_to(lengths: Tensor, length: int) -> Tensor:
    return torch.arange(length) < lengths[:, None]


def _group(lengths: Tensor) -> _Group:
    length = int(lengths[-1])
    places = _up_to(lengths, length).flatten().nonzero()[:, 0]
    is_full = len(places) == len(lengths) * length
    return _Group(len(lengths), length, len(places), None if is_full else places)


class _Placed(torch.autograd.Function):
    """Rows put at places that differ, zeros between them; torch's own gradient of taking them back adds row by row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, count: int) -> Tensor:
        ctx.places = places
        return rows.new_zeros(count, *rows.shape[1:]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Taken.apply(outer, ctx.places), None, None


class _Taken(torch.autograd.Function):
    """The reverse of `_Placed`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.places, ctx.count = places, len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Placed.apply(outer, ctx.places, ctx.count), None
