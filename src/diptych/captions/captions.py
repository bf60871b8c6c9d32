"""Captions under judgement, and what a rule says of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.characters import Characters
from diptych.errors import ConfigError


@dataclass(frozen=True)
class Captions:
    """N captions under judgement, each one line."""

    texts: Any  # [N] string
    urls: Any  # [N] string, of the picture; null where there is none
    languages: Any  # [N] string, as the source says; null where it does not

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def characters(self) -> Characters:
        """The texts, to be counted in and hashed."""
        return Characters.of(self.texts)

    def take(self, which: np.ndarray) -> "Captions":
        """Those with these numbers."""
        at = pa.array(which)
        return Captions(self.texts.take(at), self.urls.take(at), self.languages.take(at))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rule says of N captions."""

    keep: np.ndarray  # [N] bool
    values: Callable[[np.ndarray], Sequence[str | None]]  # numbers of captions -> what was measured of each
    captions: Captions | None = None  # as they are from here on, where the rule changes them


def shown(texts: Any, at: np.ndarray, most: int = 60) -> list[str]:
    """The beginnings of some texts, for the ledger."""
    return pc.utf8_slice_codeunits(texts.take(pa.array(at)), 0, most).to_pylist()


def check_share(what: str, share: float) -> None:
    """An option that is a share.

    Raises:
        ConfigError: it is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"{what} must be a share from 0 to 1. Got {share}.")
