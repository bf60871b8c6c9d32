"""The training picture that fits each evaluation picture best, looked for part by part on either side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diptych.audit.stored_sketches import Part, StoredSketches
from diptych.curate.copies import NEAREST, Candidates, candidates, second_look
from diptych.measures.perceptual_hash import hamming


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """The training picture that fits each of n evaluation pictures best."""

    keys: tuple[str, ...]  # n of them, of the evaluation pictures that can be read
    train_keys: tuple[str, ...]  # n of them; empty where no training picture is near
    train_numbers: Tensor  # [n] int64, in the order of the training pictures; -1 where none is near
    scores: Tensor  # [n] float64, of the second look; 0 where none is near
    cosines: Tensor  # [n] float64, of the detector
    hash_bits: Tensor  # [n] int64, of 64 that differ, of the picture or its mirror image; 64 where none is near
    mirrored: Tensor  # [n] bool


def nearest_in_training(sets: Sequence[StoredSketches], train: StoredSketches) -> list[Nearest]:
    """The best training picture for each picture of each set: candidates of all training pictures, then a second look.

    Of either side one part is in memory at a time, and what is found does not depend on their size.
    """
    shortlists: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for number, of_train in enumerate(train.parts()):
        for at, part in _all_parts(sets):
            shortlists[at] = _longer(shortlists.get(at, {}), number, candidates(part.sketches, of_train.sketches))
    found = {at: _Found.none(part) for at, part in _all_parts(sets)}
    for number, of_train in enumerate(train.parts()):
        for at, part in _all_parts(sets):
            rows = shortlists[at]["part"] == number
            found[at].look({name: column[rows] for name, column in shortlists[at].items()}, part, of_train)
    return [_joined([one for (of, _), one in found.items() if of == number]) for number in range(len(sets))]


def _all_parts(sets: Sequence[StoredSketches]) -> Iterator[tuple[tuple[int, int], Part]]:
    """Each part of each set, after the number of its set and its own."""
    for number, one in enumerate(sets):
        for at, part in enumerate(one.parts()):
            yield (number, at), part


def _longer(shortlist: Mapping[str, np.ndarray], part: int, pairs: Candidates) -> dict[str, np.ndarray]:
    """The training pictures that are worth a second look, with those of one more part."""
    more = {
        "row": pairs.rows,
        "part": np.full(len(pairs), part),
        "known": pairs.known,
        "cosine": pairs.cosines,
        "by_hash": pairs.by_hash,
    }
    joined = {name: np.concatenate([shortlist[name], more[name]]) for name in shortlist} or more
    order = np.lexsort([joined["known"], joined["part"], -joined["cosine"], joined["row"]])
    columns = {name: column[order] for name, column in joined.items()}
    # The nearest of all parts are among the nearest of each; so are, of near hashes, those with the best cosines.
    kept = _places(columns["row"]) < NEAREST
    near = np.flatnonzero(columns["by_hash"])
    kept[near[_places(columns["row"][near]) < NEAREST]] = True
    return {name: column[kept] for name, column in columns.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """The best so far for each of n pictures of a part, filled as parts of the training pictures come by."""

    keys: tuple[str, ...]
    train_keys: list[str]
    columns: dict[str, np.ndarray]  # of `Nearest`

    @classmethod
    def none(cls, part: Part) -> "_Found":
        count = len(part.keys)
        columns = {
            "train_numbers": np.full(count, -1),
            "scores": np.zeros(count),
            "cosines": np.zeros(count),
            "hash_bits": np.full(count, 64),
            "mirrored": np.zeros(count, bool),
        }
        return cls(keys=part.keys, train_keys=[""] * count, columns=columns)

    def look(self, shortlist: Mapping[str, np.ndarray], part: Part, of_train: Part) -> None:
        """Look at candidates of one part of the training pictures."""
        rows, known = shortlist["row"], shortlist["known"]
        looks = second_look(part.sketches.small[rows], of_train.sketches.small[known])
        straight = hamming(part.sketches.hashes[rows], of_train.sketches.hashes[known])
        turned = hamming(part.sketches.hashes[rows], of_train.sketches.mirrored_hashes[known])
        bits = np.minimum(straight, turned)
        for at, (row, there, look) in enumerate(zip(rows.tolist(), known.tolist(), looks, strict=True)):
            if self.columns["train_numbers"][row] >= 0 and look.score <= self.columns["scores"][row]:
                continue
            self.train_keys[row] = of_train.keys[there]
            values = (of_train.numbers[there], look.score, shortlist["cosine"][at], bits[at], look.mirrored)
            for column, value in zip(self.columns.values(), values, strict=True):
                column[row] = value


def _joined(parts: Sequence[_Found]) -> Nearest:
    columns = {
        name: torch.from_numpy(np.concatenate([part.columns[name] for part in parts])) for name in parts[0].columns
    }
    return Nearest(
        keys=tuple(key for part in parts for key in part.keys),
        train_keys=tuple(key for part in parts for key in part.train_keys),
        **columns,
    )


def _places(rows: np.ndarray) -> np.ndarray:
    """[M] of each candidate its place among those of its row, from 0; candidates of one row lie together."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
