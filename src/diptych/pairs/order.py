"""Orders of samples that are pure functions of the position, beside the shuffle of a whole epoch that grain has."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np


def drawn_with_replacement(position: int, *, count: int, seed: int) -> int:
    """The sample at a position, each with the same chance, whatever came before.

    Args:
        position: in the stream, from 0.
        count: samples there are.
        seed: of the stream.
    """
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little") % count


class WindowedOrder:
    """Epochs in which whole shards are shuffled, and then the samples of a few shards at a time, together.

    So a run needs the shards of one window at a time (of two where they meet), and not all of them at once.

    Args:
        shard_ends: where each shard's samples end; the last one is the number of samples.
        window: shards whose samples are shuffled together.
        seed: of the stream.
        on_window: called when the first sample of a window is asked for, with the shards of the next one.
    """

    def __init__(
        self,
        shard_ends: Sequence[int],
        *,
        window: int,
        seed: int,
        on_window: Callable[[Sequence[int]], None] = lambda _: None,
    ) -> None:
        self._ends = shard_ends
        self._window = window
        self._seed = seed
        self._on_window = on_window
        self._plan = functools.lru_cache(maxsize=4)(self._planned)  # threads may stand in two epochs
        self._samples = functools.lru_cache(maxsize=4)(self._shuffled)  # and in two windows

    def __call__(self, position: int) -> int:
        """The sample at a position of the stream, from 0."""
        epoch, place = divmod(position, self._ends[-1])
        _, ends = self._plan(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        start = int(ends[number - 1]) if number else 0
        return int(self._samples(epoch, number)[place - start])

    def _planned(self, epoch: int) -> tuple[list[list[int]], np.ndarray]:
        """The shards of each window, and where each window's samples end."""
        shards = self._generator(epoch, 0).permutation(len(self._ends)).tolist()
        windows = [shards[start : start + self._window] for start in range(0, len(shards), self._window)]
        sizes = [sum(self._size(shard) for shard in shards) for shards in windows]
        return windows, np.array(list(itertools.accumulate(sizes)))

    def _shuffled(self, epoch: int, number: int) -> np.ndarray:
        windows, _ = self._plan(epoch)
        is_last = number + 1 == len(windows)
        self._on_window(self._plan(epoch + 1)[0][0] if is_last else windows[number + 1])
        samples = [np.arange(self._ends[shard] - self._size(shard), self._ends[shard]) for shard in windows[number]]
        return self._generator(epoch, 1 + number).permutation(np.concatenate(samples))

    def _size(self, shard: int) -> int:
        return self._ends[shard] - (self._ends[shard - 1] if shard else 0)

    def _generator(self, *position: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *position])
