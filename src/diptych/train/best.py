"""The bundle of the best evaluation so far, kept beside the checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError, WeightsError
from diptych.files import atomic_folder, write_json
from diptych.train.heads import Heads
from diptych.weights.bundle import Bundle

_RECORD = "best.json"


@dataclass(frozen=True)
class Best:
    """Which evaluation it was."""

    metric: str  # as it is logged, e.g. "twemoji/top1"
    value: float  # higher is better
    step: int  # updates done; 0: before the first


class BestBundle:
    """Keeps one bundle in a folder: the one that scored highest; of equals the earlier.

    The folder holds the bundle and the record of its evaluation, and is whole or absent. A run that goes on from a
    checkpoint before that evaluation comes to the same one again, and leaves the folder as it is. Only one process of a
    run may have one.

    Args:
        folder: `best/` of a run.
        metric: its name as it is logged.
        is_new: the run is at its start: what another one left in the folder does not count.

    Raises:
        WeightsError: the record in the folder cannot be read.
    """

    def __init__(self, folder: Path, metric: str, *, is_new: bool) -> None:
        self._folder = folder
        self._metric = metric
        found = None if is_new else read_best(folder)
        self._best = found if found and found.metric == metric else None

    def offer(self, bundle: Bundle, heads: Heads, metrics: Mapping[str, float], step: int) -> None:
        """Keep a bundle, with its heads beside it, if it scored higher than all before it.

        Raises:
            DataError: the disk is full or the folder cannot be written; what was there stays.
        """
        value = metrics[self._metric]
        if self._best and value <= self._best.value:
            return
        best = Best(self._metric, value, step)
        with atomic_folder(self._folder) as aside:
            bundle.save(aside)
            heads.save(aside)
            write_json(aside / _RECORD, asdict(best))
        self._best = best


def read_best(folder: Path) -> Best | None:
    """Which evaluation the bundle in a folder is of; None where there is none.

    Raises:
        WeightsError: the record is damaged.
    """
    path = folder / _RECORD
    if not path.is_file():
        return None
    try:
        return Best(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise WeightsError(f"{path} must be the record of an evaluation: {error}. Remove {folder}.") from error


def check_metric(option: str, name: str, metrics: Mapping[str, float]) -> None:
    """Refuse the name of a metric that the run does not log.

    Args:
        option: that gave the name, e.g. "train.keep_best".
        name: of the metric.
        metrics: of an evaluation.

    Raises:
        ConfigError: it is not among them; the nearest one is named.
    """
    if not metrics:
        raise ConfigError(f"{option} names {name}, and the run measures nothing. Name a labelled set in `evaluate`.")
    if name not in metrics:
        raise ConfigError(f"{option}: {unknown_name(name, '', metrics, 'a metric of this run')}")
