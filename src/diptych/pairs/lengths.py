"""Sequence lengths of NaFlex training: each batch has one, drawn, and as many pairs as a budget of patches lets in.

Sources: NaFlex of SigLIP 2, arXiv:2502.14786; a budget of patches, NaViT, arXiv:2307.06304.
"""

from collections.abc import Sequence

import numpy as np

_STREAM = 0x6E61666C6578  # tells this draw from others with the same seed


def pairs_at(length: int, *, lengths: Sequence[int], batch_size: int) -> int:
    """Pairs of a batch whose pictures have so many patches.

    Args:
        length: one of `lengths`.
        lengths: all that may be drawn.
        batch_size: pairs at the longest, which makes the budget: as many patches as these have.
    """
    return batch_size * max(lengths) // length


class DrawnLengths:
    """The lengths of a run's batches: that of a batch is a function of the seed and its number.

    Args:
        lengths: patches of a picture; one that is named twice is drawn twice as often.
        batch_size: see `pairs_at`.
        seed: of the run.
        stop: number of the first batch that nobody asks for.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int, stop: int) -> None:
        # Number n of a stream of its own, which no other number of batches would change.
        draws = np.random.default_rng([_STREAM, seed]).random(stop)
        sizes = [pairs_at(length, lengths=lengths, batch_size=batch_size) for length in lengths]
        drawn = (draws * len(lengths)).astype(np.int64)
        self._lengths = np.array(lengths)[drawn]
        self._ends = np.array(sizes)[drawn].cumsum()  # samples of the stream that are drawn by the end of each batch

    def of_batch(self, number: int) -> int:
        """Patches of a picture."""
        return int(self._lengths[number])

    def of_sample(self, position: int) -> int:
        """The same of the batch that a sample of the stream falls to."""
        return self.of_batch(int(self._ends.searchsorted(position, side="right")))

    def samples(self, number: int, *, part: int = 0, parts: int = 1) -> range:
        """Which samples of the stream a batch holds, or one of several parts, as even as they can be."""
        start, stop = (int(self._ends[number - 1]) if number else 0), int(self._ends[number])
        first, last = ((stop - start) * share // parts for share in (part, part + 1))
        return range(start + first, start + last)
