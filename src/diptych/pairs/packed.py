"""Where the samples of a shard lie, in a few arrays: tens of bytes a sample, where objects take about a kilobyte."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from diptych.data.tar import TarSample


class PackedSamples(Sequence[TarSample]):
    """The same samples as they were given, each made anew when it is asked for. Safe in many threads.

    Args:
        samples: of one shard, in its order.
    """

    def __init__(self, samples: Sequence[TarSample]) -> None:
        keys = [sample.key.encode("utf-8", "surrogateescape") for sample in samples]
        self._keys = b"".join(keys)
        self._key_ends = _ends([len(key) for key in keys])
        shapes = {shape: number for number, shape in enumerate(dict.fromkeys(tuple(s.parts) for s in samples))}
        self._shapes = list(shapes)  # endings of the parts of a sample; most samples of a shard have the same
        self._shape_of = np.array([shapes[tuple(sample.parts)] for sample in samples], _smallest(len(shapes)))
        self._span_ends = _ends([len(sample.parts) for sample in samples])
        spans = [number for sample in samples for span in sample.parts.values() for number in span]
        self._spans = np.array(spans, _smallest(max(spans, default=0))).reshape(-1, 2)  # offset, size

    def __len__(self) -> int:
        return len(self._shape_of)

    @overload
    def __getitem__(self, index: int) -> TarSample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TarSample]: ...
    def __getitem__(self, index: int | slice) -> TarSample | Sequence[TarSample]:
        """One sample; of a slice, all of them."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # refuses what lies outside
        key = self._keys[_start(self._key_ends, number) : int(self._key_ends[number])]
        spans = self._spans[_start(self._span_ends, number) : int(self._span_ends[number])].tolist()
        parts = {
            ending: (offset, size)
            for ending, (offset, size) in zip(self._shapes[self._shape_of[number]], spans, strict=True)
        }
        return TarSample(key.decode("utf-8", "surrogateescape"), parts)

    def __iter__(self) -> Iterator[TarSample]:
        return (self[number] for number in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Of memory, but for the endings."""
        arrays = (self._key_ends, self._shape_of, self._span_ends, self._spans)
        return len(self._keys) + sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def _ends(lengths: Sequence[int]) -> np.ndarray | range:
    """Where each of several ends, one behind the other; a range where all are as long, as keys and parts often are."""
    if lengths and lengths[0] and len(set(lengths)) == 1:
        return range(lengths[0], lengths[0] * len(lengths) + 1, lengths[0])
    return np.cumsum(lengths, dtype=_smallest(sum(lengths)))


def _start(ends: np.ndarray | range, number: int) -> int:
    return int(ends[number - 1]) if number else 0


def _smallest(largest: int) -> np.dtype:
    """The type of number that takes the fewest bytes."""
    return np.min_scalar_type(largest)
