"""Which data sets a folder holds, what each of them is, and which of its splits are measured. No model is needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError, DataError, MissingExtraError
from diptych.eval.kinds import KINDS
from diptych.eval.result import Measurement
from diptych.eval.tasks import Kind, Task, task_data, task_named, tasks
from diptych.sets.open import read_labelled
from diptych.sets.webdataset import dataset_type

ALL = "all"
_TEST_SPLITS = ("test", "val", "validation")  # the first that is there is measured
_VALIDATION_SPLITS = ("val", "validation")
_TRAIN_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """One data set and what is measured on it."""

    folder: Path
    name: str  # of the folder; of the task where two tasks share the folder
    task: Task | None  # the row of the table; None for a set that is known by its layout alone
    kind: Kind
    split: str  # that is measured
    train_split: str | None = None  # with it a linear probe is fitted
    validation_split: str | None = None  # that the probe's strength is chosen on

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Those of the set's kind that its splits allow."""
        return tuple(one for one in KINDS[self.kind].measurements if one != "linear-probe" or self.train_split)


def find_sets(data: Path, names: Sequence[str] = (ALL,)) -> list[EvaluationSet]:
    """The data sets in a folder, in alphabetical order.

    Args:
        data: a folder of sets: those of the table of tasks under any of their names, and any other that is laid out as
            labelled or captioned pictures. What is neither is passed over. Or one set itself, with its splits.
        names: of tasks or folders; "all" for whatever there is.

    Raises:
        DataError: the folder is not there, or holds no set.
        ConfigError: a name is neither a task's nor a folder's.
    """
    if not data.is_dir():
        raise DataError(f"{data} must be a folder of data sets. There is no such folder.")
    known: dict[Path, list[Task]] = {}
    for task in tasks():
        if folder := task_data(task, data):
            known.setdefault(folder, []).append(task)
    children = [child for child in data.iterdir() if child.is_dir() and not child.name.startswith(".")]
    is_a_set = any(child.name in _TEST_SPLITS for child in children)
    folders = {data} if is_a_set else {*children, *known}
    sets = [
        one
        for folder in sorted(folders)
        for task in known.get(folder) or [task_named(folder.resolve().name)]
        if (one := _set_in(folder, task))
    ]
    if not sets:
        layouts = "SET/test/0.tar, SET/test/CLASS/*.jpg"
        raise DataError(f"{data} must hold a folder for each data set ({layouts}). It has none.")
    if ALL in names:
        return sets
    by_name = {one.task.name: one for one in sets if one.task} | {one.name: one for one in sets}
    for name in names:
        if name not in by_name:
            raise ConfigError(unknown_name(name, "", sorted(by_name), f"a data set in {data}"))
    return list({by_name[name].name: by_name[name] for name in names}.values())


def one_set(
    folder: Path,
    measurement: Measurement,
    *,
    split: str | None = None,
    train_split: str = _TRAIN_SPLIT,
    validation_split: str | None = None,
) -> EvaluationSet:
    """One set by its folder, for one measurement; splits that are not named are those that a suite would take.

    Raises:
        DataError: there is no such folder, nothing of the kind is measured on it, or two splits are one.
    """
    if not folder.is_dir():
        what = "pictures with captions" if measurement == "retrieval" else "labelled pictures"
        raise DataError(f"{folder} must be a folder of {what}. There is no such folder.")
    task = task_named(folder.resolve().name)
    if task and measurement not in KINDS[task.kind].measurements:
        its = " and ".join(KINDS[task.kind].measurements)
        raise DataError(f"{folder} must be a set for {measurement}. It is {task.name} ({task.kind}), for {its}.")
    kind: Kind = task.kind if task else "retrieval" if measurement == "retrieval" else "classification"
    found = _described(folder, task, kind)
    if measurement == "linear-probe":
        names = [train_split, split or found.split, *([validation_split] if validation_split else [])]
        if len(set(names)) < len(names):
            raise DataError(f"The splits of a probe must differ. Got {', '.join(names)}.")
    return replace(
        found,
        split=split or found.split,
        train_split=train_split,
        validation_split=validation_split
        or (found.validation_split if found.validation_split not in (split, train_split) else None),
    )


def _set_in(folder: Path, task: Task | None) -> EvaluationSet | None:
    """None for what holds no pictures in a layout that can be read."""
    kind = task.kind if task else "retrieval" if dataset_type(folder) == "retrieval" else "classification"
    found = _described(folder, task, kind)
    if task is None and not (folder / found.split).is_dir() and not _looks_labelled(folder):
        return None
    return found


def _described(folder: Path, task: Task | None, kind: Kind) -> EvaluationSet:
    there = {child.name for child in folder.iterdir() if child.is_dir()}
    usual = task.split if task else _TEST_SPLITS[0]
    split = next((name for name in (usual, *_TEST_SPLITS) if name in there), usual)
    return EvaluationSet(
        folder=folder,
        name=task.name if task and task.folder else folder.resolve().name,
        task=task,
        kind=kind,
        split=split,
        train_split=_TRAIN_SPLIT if kind == "classification" and _has_train(folder, task, split, there) else None,
        validation_split=next((name for name in _VALIDATION_SPLITS if name in there and name != split), None),
    )


def _has_train(folder: Path, task: Task | None, split: str, there: set[str]) -> bool:
    if task is None or split in there:
        return {_TRAIN_SPLIT, split} <= there
    return _looks_labelled(folder, _TRAIN_SPLIT)  # an archive, which has no folder for each split


def _looks_labelled(folder: Path, split: str = "test") -> bool:
    try:
        read_labelled(folder, split=split)
    except (DataError, MissingExtraError):
        return False
    return True
