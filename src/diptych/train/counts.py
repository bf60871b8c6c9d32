"""What a run counts across its restarts: pairs, cut texts, bad samples, time."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.errors import DataError
from diptych.train.laps import Laps

# Samples; the share of bad ones is taken of at least so many, or one of the first ten would stop a run.
_JUDGED_AS = 1000


class RunCounts:
    """What a run counted.

    Args:
        saved: what `plain` gave before; empty for a run that begins.
        laps: where its time goes, which is told how much went before.
    """

    def __init__(self, saved: Mapping[str, Any], laps: Laps) -> None:
        self._laps = laps
        laps.go_on_from(saved.get("time", {}))
        self.pairs: int = saved.get("pairs", 0)  # pairs learned from
        self.truncated: int = saved.get("truncated", 0)
        self.train_seconds: float = saved.get("train_seconds", 0.0)
        self.bad = collections.Counter(saved.get("bad", {}))

    def add(self, parts: Sequence[tuple[int, int, Mapping[str, int]]], *, max_bad: float) -> None:
        """Count one batch.

        Args:
            parts: of each process pairs, truncated texts, and bad samples by cause.
            max_bad: share of bad samples that is borne.

        Raises:
            DataError: too many samples are bad, in all or in this batch.
        """
        pairs = sum(size for size, _, _ in parts)
        self.pairs += pairs
        for _, truncated, bad in parts:
            self.truncated += truncated
            self.bad.update(bad)
        bad, drawn = self.bad.total(), self.pairs + self.bad.total()
        causes = ", ".join(f"{cause} {count:,}" for cause, count in self.bad.most_common())
        if bad > max_bad * max(drawn, _JUDGED_AS):
            raise DataError(
                f"at most {max_bad:.2%} of the samples may be bad (data.max_bad). {bad:,} of {drawn:,} are: {causes}. "
                "Mend the data, or raise the limit."
            )
        if pairs < 2:
            raise DataError(
                f"a batch must have at least two good samples, and one has {pairs}. Bad so far: {causes}. "
                "Mend the data, or raise train.batch_size."
            )

    def plain(self) -> dict[str, Any]:
        """As it goes into a checkpoint."""
        return {
            "pairs": self.pairs,
            "truncated": self.truncated,
            "train_seconds": round(self.train_seconds, 2),
            "bad": dict(self.bad),
            "time": {name: round(seconds, 2) for name, seconds in self._laps.seconds().items()},
        }
