"""Names for our tensors in other libraries: one table a library, read both ways. And our own, for what none has."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diptych.config import to_dict
from diptych.model.clip import CLIPConfig


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    """One of our tensors, and what it is in a foreign state dict; each `{}` stands for the same text on both sides."""

    ours: str
    # several: ours is all of them, stacked along dimension 0; none: the library has no such number, and ours is 0
    theirs: tuple[str, ...]
    transposed: bool = False
    boxed: int = 0  # dimensions of size 1 that theirs has more in front
    trailing: int = 0  # the same behind
    shares: tuple[int, ...] = ()  # of several, how large they are to each other; all alike when not given
    as_inverse: bool = False  # theirs is 1 / exp(ours): a temperature itself


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a library names and lays out the tensors of a CLIP model."""

    rows: tuple[TensorRow, ...]
    without_meaning: str = "(?!)"  # a pattern for names that hold no weights and may be there or not
    left_out: str = "(?!)"  # a pattern for names of what is no part of the two towers

    def from_ours(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of ours in their names; values are not copied where the layout is the same."""
        theirs: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            row, names = self.look_up(name)
            if not names:
                continue
            tensor = (-tensor).exp() if row.as_inverse else tensor
            laid_out = tensor.T if row.transposed else tensor[(*(None,) * row.boxed, ..., *(None,) * row.trailing)]
            shares = row.shares or (1,) * len(names)
            parts = (
                laid_out.split([len(laid_out) // sum(shares) * share for share in shares]) if names[1:] else [laid_out]
            )
            theirs |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
        return theirs

    def to_ours(self, weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
        """Those tensors of ours that `names` lists, from a state dict of theirs that holds all of them.

        Values are not copied where the layout is the same.
        """
        ours: dict[str, Tensor] = {}
        for name in names:
            row, their_names = self.look_up(name)
            if not their_names:
                ours[name] = torch.zeros(())
                continue
            parts = [weights[their_name] for their_name in their_names]
            tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
            tensor = -tensor.log() if row.as_inverse else tensor
            ours[name] = (
                tensor.T if row.transposed else tensor[(*(0,) * row.boxed, ..., *(0,) * row.trailing)]
            ).contiguous()
        return ours

    def look_up(self, name: str) -> tuple[TensorRow, list[str]]:
        for row in self.rows:
            if match := _pattern(row.ours).fullmatch(name):
                return row, [theirs.format(*match.groups()) for theirs in row.theirs]
        raise AssertionError(f"{name} is in no row of the table")


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(re.escape(ours).replace(r"\{\}", "(.+)"))


# Options of towers that came after the first release with their tower.
_LATER = (
    *("pool", "has_ln_pre", "has_projection_bias", "stem", "is_causal", "projection"),
    *("has_patch_bias", "norms_twice"),
)

OWN = Naming(rows=(TensorRow(ours="{}", theirs=("{}",)),))


def config_to_own(config: CLIPConfig) -> dict[str, Any]:
    """The sizes of a model as plain data for `config.json`.

    Options that came after the first release are left out at their defaults: the fingerprints of older bundles hold.
    """
    plain = to_dict(config)
    if config.head == "softmax":
        del plain["head"]
    if config.text.kind == "clip":
        del plain["text"]["kind"]
    for side, tower in (("image", config.image), ("text", config.text)):
        for field in dataclasses.fields(tower):
            if field.name in _LATER and getattr(tower, field.name) == field.default:
                del plain[side][field.name]
    return plain
