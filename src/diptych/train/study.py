"""A sweep whose next run is chosen by those before: optuna's sampler, kept in the sweep's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import missing_extra
from diptych.train.sweep import Axis, Trial


class Study:
    """Trials that optuna asks for (TPE), told how they came out.

    A study that is opened again goes on: trials that were under way are asked for first. Which are drawn is a function
    of the seed and of how many there were when it was opened.

    Args:
        axes: options and their values or ranges.
        folder: gets `study.log`.
        count: trials in all.
        seed: of the sampler.
        minimises: whether a lower value is better.

    Raises:
        MissingExtraError: optuna is not installed.
    """

    def __init__(self, axes: Sequence[Axis], folder: Path, *, count: int, seed: int, minimises: bool) -> None:
        optuna = _import_optuna()
        self._optuna, self._count = optuna, count
        self._ranges = {axis.option: _distribution(optuna, axis) for axis in axes}
        self._axes = {axis.option: axis for axis in axes}
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.log")))
        self._study = optuna.create_study(
            study_name="sweep",
            storage=storage,
            direction="minimize" if minimises else "maximize",
            load_if_exists=True,
        )
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(self._study.trials))
        states = optuna.trial.TrialState
        self._under_way = [trial for trial in self._study.trials if trial.state == states.RUNNING]
        self._asked = len(self._study.trials) - len(self._under_way)
        self._numbers: dict[str, list[int]] = {}

    @property
    def trials(self) -> list[Trial]:
        """All that were asked for, each once."""
        found = [self._trial(trial.params) for trial in self._study.trials]
        return list({trial.name: trial for trial in found}.values())

    def ask(self) -> Trial | None:
        """The next trial; None when there were enough."""
        if self._asked >= self._count:
            return None
        self._asked += 1
        asked = self._under_way.pop(0) if self._under_way else self._study.ask(self._ranges)
        trial = self._trial(asked.params)
        self._numbers.setdefault(trial.name, []).append(asked.number)
        return trial

    def tell(self, trial: Trial, value: float | None) -> None:
        """How a trial came out; None: it failed."""
        state = None if value is not None else self._optuna.trial.TrialState.FAIL
        self._study.tell(self._numbers[trial.name].pop(0), value, state=state)

    def _trial(self, params: dict[str, Any]) -> Trial:
        return Trial({option: _text(self._axes[option], params[option]) for option in self._ranges})


def _text(axis: Axis, value: Any) -> str:
    return str(value) if axis.values or axis.is_whole else f"{value:.4g}"


def _distribution(optuna: Any, axis: Axis) -> Any:
    kinds = optuna.distributions
    if axis.values:
        return kinds.CategoricalDistribution(axis.values)
    if axis.is_whole:
        return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.low > 0)
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.low > 0)


def _import_optuna() -> Any:
    import importlib

    try:
        optuna = importlib.import_module("optuna")
        importlib.import_module("optuna.storages.journal")
    except ImportError:
        raise missing_extra("--study", "optuna", "A grid and --random work without it.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
