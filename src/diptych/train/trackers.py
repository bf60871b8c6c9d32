"""Where the log of a run goes besides `log.jsonl`: TensorBoard, Weights & Biases, MLflow, trackio, or code of a user.

Each library finds its server, key and project as it always does, by environment variables of its own. A tracker that
fails is left out from then on, and that is said once: no run ends for it.
"""

import contextlib
import importlib
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from diptych.errors import missing_extra
from diptych.files import write_text
from diptych.outside import check_call, check_has, is_outside, named
from diptych.train.log import flat
from diptych.train.tensorboard import EventLog, import_tensorboard

_PROJECT = "diptych"


class Tracker(Protocol):
    """What a line of the log is handed to.

    It is made in the first process as `NAME(folder, resume_step=0, recipe={...})`: the folder of the run, the step of
    the checkpoint that the run goes on from (0: it begins; lines after that step come again), the recipe as plain data.
    """

    def write(self, *, step: int, **values: Any) -> None:
        """One line: numbers by name, some of them grouped in a mapping."""
        ...

    def close(self) -> None:
        """The run ends, however it ends."""
        ...


class Trackers:
    """All trackers of a run, in its first process.

    Args:
        names: of `train.trackers`.
        folder: of the run.
        resume_step: of the checkpoint that it goes on from, 0 where it begins.
        recipe: as plain data.
        on_fault: gets one sentence for each tracker that fails.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        resume_step: int,
        recipe: Mapping[str, Any],
        on_fault: Callable[[str], None],
    ) -> None:
        self._on_fault = on_fault
        self._open: dict[str, Tracker] = {}
        for name in names:
            with self._guarded(name):
                self._open[name] = _opener(name)(folder, resume_step=resume_step, recipe=recipe)

    def write(self, **values: Any) -> None:
        """One line of the log."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.write(**values)

    def close(self) -> None:
        """Close all."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.close()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # a library of others, with a network behind it, may raise anything
            self._open.pop(name, None)
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            self._on_fault(f"the tracker {name} failed and is left out, and the run goes on: {reason}.")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse, before a run begins, what is not installed.

    Raises:
        ConfigError: code of the user's cannot be imported, or is no tracker.
        MissingExtraError: a library is not installed.
    """
    for name in names:
        if is_outside(name):
            tracker = named(name, "train.trackers")
            check_call(tracker, name, "(folder, resume_step=, recipe=)", Path(), resume_step=0, recipe={})
            if isinstance(tracker, type):
                check_has(tracker, ("write", "close"), f"the tracker {name}")
        elif name == "tensorboard":
            import_tensorboard()
        elif importlib.util.find_spec(name) is None:
            raise missing_extra(f"the tracker {name}", name, "log.jsonl is written without it.")


def _opener(name: str) -> Callable[..., Tracker]:
    ours: dict[str, Callable[..., Tracker]] = {
        "tensorboard": lambda folder, *, resume_step, recipe: EventLog(folder, resume_step=resume_step),  # noqa: ARG005
        "wandb": WandbTracker,
        "mlflow": MlflowTracker,
        "trackio": TrackioTracker,
    }
    return ours.get(name) or named(name, "train.trackers")


class WandbTracker:
    """Weights & Biases: WANDB_MODE, WANDB_API_KEY, WANDB_PROJECT. Steps that come again it takes once."""

    def __init__(self, folder: Path, *, resume_step: int, recipe: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=recipe["name"],
            id=_kept(folder, "wandb", resume_step),
            resume="allow",
            dir=folder,
            config=dict(recipe),
        )

    def write(self, *, step: int, **values: Any) -> None:
        self._run.log(dict(flat(values)), step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """MLflow: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. Steps that come again are there twice."""

    def __init__(self, folder: Path, *, resume_step: int, recipe: Mapping[str, Any]) -> None:
        mlflow = importlib.import_module("mlflow")
        self._mlflow = mlflow
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            mlflow.set_experiment(_PROJECT)
        kept = None if resume_step == 0 else _kept(folder, "mlflow", resume_step)
        self._id = mlflow.start_run(run_id=kept, run_name=recipe["name"]).info.run_id
        _keep(folder, "mlflow", self._id)
        if resume_step == 0:
            mlflow.log_params({f"train.{name}": str(value)[:500] for name, value in recipe["train"].items()})

    def write(self, *, step: int, **values: Any) -> None:
        self._mlflow.log_metrics(dict(flat(values)), step=step, run_id=self._id)

    def close(self) -> None:
        self._mlflow.end_run()


class TrackioTracker:
    """trackio, a dashboard of this machine or of a Space: TRACKIO_DIR. Steps that come again are there twice."""

    def __init__(self, folder: Path, *, resume_step: int, recipe: Mapping[str, Any]) -> None:
        trackio = importlib.import_module("trackio")
        self._trackio = trackio
        name = f"{recipe['name']}-{_kept(folder, 'trackio', resume_step)}"  # by which it knows a run again
        trackio.init(project=_PROJECT, name=name, resume="allow", config=dict(recipe))

    def write(self, *, step: int, **values: Any) -> None:
        self._trackio.log(dict(flat(values)), step=step)

    def close(self) -> None:
        self._trackio.finish()


def _kept(folder: Path, name: str, resume_step: int) -> str:
    """By what a library knows the run again when it goes on; drawn anew where it begins."""
    path = folder / "trackers" / f"{name}.txt"
    if resume_step and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    return _keep(folder, name, secrets.token_hex(4))


def _keep(folder: Path, name: str, run_id: str) -> str:
    write_text(folder / "trackers" / f"{name}.txt", f"{run_id}\n")
    return run_id
