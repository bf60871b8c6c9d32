"""Where the time of a run goes: seconds by named section."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")

# What the main thread of a run does, as it is told; "other" lies between sections.
SECTIONS = ("data", "inputs", "step", "optimizer", "communication", "evaluation", "saving", "other")
# What the threads that prepare batches do meanwhile: waiting for the disk or the network, and work of a core.
BESIDE = ("read", "decode")


class Laps:
    """Sums the seconds that one thread spends in named sections, and what others take beside it.

    The time of a section within another one counts for the inner one alone, so all of them add up to the time that has
    passed since the first one was entered.

    A GPU goes on working while Python is ahead of it. A section tells the truth about one where it ends with a number
    that is waited for; the trainer's do: "step" with the length of the gradient, "optimizer" with the logit scale.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._open: list[str] = []  # sections that are entered, the innermost last
        self._counted: float | None = None  # up to this moment; None before the first section
        self._whole: defaultdict[str, float] = defaultdict(float)
        self._marked: defaultdict[str, float] = defaultdict(float)  # since `mark`

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What runs within counts for `name`, one of `SECTIONS`."""
        if self._counted is None:
            self._counted = self._clock()
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def waits(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the wait for each counts for `name`."""
        iterator = iter(items)
        while True:
            with self.section(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def beside(self, seconds: Mapping[str, float]) -> None:
        """Count seconds of other threads, by one of `BESIDE`."""
        self._add(seconds)

    def go_on_from(self, seconds: Mapping[str, float]) -> None:
        """Add what `seconds` gave in an earlier life of the run."""
        for name, value in seconds.items():
            self._whole[name] += value

    def mark(self) -> None:
        """`since_mark` counts from now on."""
        self._count()
        self._marked.clear()

    def seconds(self) -> dict[str, float]:
        """Of the whole run, by section, and of the threads beside it."""
        self._count()
        return _ordered(self._whole)

    def since_mark(self) -> dict[str, float]:
        """The same since `mark`."""
        self._count()
        return _ordered(self._marked)

    def _count(self) -> None:
        if self._counted is None:
            return
        now = self._clock()
        self._add({self._open[-1] if self._open else "other": now - self._counted})
        self._counted = now

    def _add(self, seconds: Mapping[str, float]) -> None:
        for sums in (self._whole, self._marked):
            for name, value in seconds.items():
                sums[name] += value


def time_shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by section as shares of the time that passed; they add up to 1.

    What other threads did meanwhile is in the same unit, beside that sum: 1.5 says that one and a half of them were at
    it all the time.
    """
    passed = sum(seconds.get(name, 0.0) for name in SECTIONS)
    return {name: value / passed for name, value in _ordered(seconds).items()} if passed > 0 else {}


def _ordered(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds[name] for name in (*SECTIONS, *BESIDE) if name in seconds}
