"""A run as its folder tells it, while it is under way or after: state, curves, and where the time goes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from diptych.errors import DataError, DiptychError
from diptych.files import is_locked
from diptych.train.laps import SECTIONS
from diptych.train.log import LogReader
from diptych.train.recipe import TrainRecipe, read_recipe

State = Literal["starting", "running", "stalled", "stopped", "finished"]
StepValue = tuple[float, float]  # step, value

# Keys of a line of the log by the names of their curves; metrics come between, under their own names.
_FIRST = {"loss": "loss"}
_LAST = {"logit_scale": "logit scale", "learning_rate": "learning rate", "gradient_norm": "gradient norm"}
RECENT = 10  # lines, whose time is broken down to say what holds a run up now
_SILENT = 60.0  # seconds without a line after which a run may be called stalled,
_PATIENCE = 3.0  # if that is so many times as long as any line took, evaluations and saves included


class WatchedRun:
    """A run's folder, read again whenever `update` is called. Writes nothing.

    Args:
        folder: of `diptych train`.

    Raises:
        DataError: it is not the folder of a run.
    """

    def __init__(self, folder: Path) -> None:
        if not any((folder / name).is_file() for name in (".lock", "recipe.toml", "log.jsonl")):
            raise DataError(f"{folder} must be the folder of a run, and has no recipe.toml and no log.jsonl.")
        self.folder = folder
        self.recipe: TrainRecipe | None = None  # as long as it is not there, or of another version
        self._log = LogReader(folder / "log.jsonl")
        self.state: State = "starting"
        self.silent = 0.0  # seconds since the last line
        self.is_held = False  # whether a process works in it

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.resolve().name

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of the log, so far."""
        return self._log.lines

    def update(self, now: float) -> int:
        """Read what has come since.

        Args:
            now: the time of day, seconds, for the age of the last line.

        Returns:
            How many lines are as they were before; fewer than there were, when the run was resumed.

        Raises:
            DataError: the log cannot be read.
        """
        if self.recipe is None and (self.folder / "recipe.toml").is_file():
            try:
                self.recipe = read_recipe(self.folder / "recipe.toml", imports=False)
            except DiptychError:  # of another version: what follows from it is left out
                self.recipe = None
        self.is_held = is_locked(self.folder)  # before the log: a run that ends meanwhile has written all
        kept = self._log.update()
        try:
            self.silent = max(0.0, now - (self.folder / "log.jsonl").stat().st_mtime)
        except FileNotFoundError:
            self.silent = 0.0
        self.state = state_of(
            self.lines,
            is_locked=self.is_held,
            has_bundle=(self.folder / "bundle").is_dir(),
            was_ended_by_watchdog=any((self.folder / "stall").glob("rank-*.txt")),
            steps=self.recipe.train.steps if self.recipe else 0,
            silent=self.silent,
        )
        return kept


def state_of(
    lines: Sequence[Mapping[str, Any]],
    *,
    is_locked: bool,
    has_bundle: bool,
    was_ended_by_watchdog: bool,
    steps: int,
    silent: float,
) -> State:
    """What a run is doing.

    Args:
        lines: of its log.
        is_locked: whether a process works in its folder.
        has_bundle: whether its model is there.
        was_ended_by_watchdog: whether stacks lie in its folder.
        steps: of the whole run; 0 when nobody knows.
        silent: seconds since the last line.
    """
    step = lines[-1]["step"] if lines else 0
    if not is_locked:
        if has_bundle and step >= steps:
            return "finished"
        return "stalled" if was_ended_by_watchdog else "stopped"
    if not lines:
        return "starting"
    longest = max(sum(line.get("time", {}).get(name, 0.0) for name in SECTIONS) for line in lines)
    return "stalled" if silent > max(_SILENT, _PATIENCE * longest) else "running"


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[StepValue]]:
    """What a log holds, by name: loss first, then metrics, then the rest."""
    found: dict[str, list[StepValue]] = {}
    metrics = {key: key for line in lines for key in line if "/" in key}
    for key, name in (_FIRST | metrics | _LAST).items():
        if points := [(line["step"], line[key]) for line in lines if key in line]:
            found[name] = points
    rates = []
    for before, line in zip([{"pairs": 0, "seconds": 0.0}, *lines], lines, strict=False):
        seconds = line["seconds"] - before["seconds"]
        if seconds > 0:
            rates.append((line["step"], (line["pairs"] - before["pairs"]) / seconds))
    return found | ({"pairs/s": rates} if rates else {})


def time_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by section over several lines of a log."""
    sums: dict[str, float] = {}
    for line in lines:
        for name, seconds in line.get("time", {}).items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums
