"""All data sets of a folder measured with one model, one result file each; a run that was stopped goes on.

A result file is whole or absent. One that is there is kept when it was measured under the conditions of this run: same
model, data, prompts, seed, precision and versions.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diptych.config import unknown_name
from diptych.data.prompts import PLAIN
from diptych.errors import ConfigError, DataError, DiptychError, MissingExtraError
from diptych.eval.conditions import conditions, same_conditions
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import (
    HELD_OUT_SHARE,
    Split,
    Values,
    check_same_classes,
    first_names,
    measure_probe,
    measure_retrieval,
    measure_zero_shot,
)
from diptych.eval.task_scores import open_task, score_task
from diptych.eval.tasks import Task, find_task, names_of, task_data, tasks
from diptych.files import folder_lock, remove_leftovers, write_json
from diptych.sets.captioned import CaptionedImages, read_retrieval
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.webdataset import dataset_type

ALL = "all"
_TEST_SPLITS = ("test", "val", "validation")  # the first that is there is measured
_VALIDATION_SPLITS = ("val", "validation")
_TRAIN_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class SuiteSet:
    """One data set and what is measured on it."""

    folder: Path
    task: Task | None  # the row of the table; None for a set that is known by its layout alone
    kind: str  # of `Task.kind`
    split: str  # that is measured
    train_split: str | None  # with it a linear probe is fitted
    validation_split: str | None  # that the probe's strength is chosen on

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """One measurement, done or failed."""

    data: str  # name of the set
    task: str  # "zero-shot", "linear-probe", "retrieval"; empty when the set could not be opened
    values: Values | None  # what the result file holds; None when it failed
    error: str = ""  # one line
    kept: bool = False  # the file was there

    @property
    def title(self) -> str:
        return f"{self.data}, {self.task}" if self.task else self.data


def find_sets(data: Path, names: Sequence[str] = (ALL,)) -> list[SuiteSet]:
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
    known = {folder: task for task in tasks() if (folder := task_data(task, data))}
    children = [child for child in data.iterdir() if child.is_dir() and not child.name.startswith(".")]
    is_a_set = any(child.name in _TEST_SPLITS for child in children)
    folders = {data} if is_a_set else {*children, *known}
    sets = {folder: one for folder in sorted(folders) if (one := _set(folder, known.get(folder)))}
    if not sets:
        layouts = "SET/test/0.tar, SET/test/CLASS/*.jpg"
        raise DataError(f"{data} must hold a folder for each data set ({layouts}). It has none.")
    if ALL in names:
        return list(sets.values())
    by_name = {folder.name: one for folder, one in sets.items()}
    by_name |= {one.task.name: one for one in sets.values() if one.task}
    for name in names:
        if name not in by_name:
            raise ConfigError(unknown_name(name, "", sorted(by_name), f"a data set in {data}"))
    return list({by_name[name].folder: by_name[name] for name in names}.values())


def run_suite(
    features: ModelFeatures,
    sets: Sequence[SuiteSet],
    out: Path,
    *,
    model: str,
    seed: int = 0,
    on_start: Callable[[str], None] = lambda _: None,
) -> Iterator[SuiteResult]:
    """Measure one set after another; each result is on disk when it is given.

    Features of one set at a time are in memory. A measurement that fails is a result with a sentence, and the others go
    on.

    Args:
        features: of the model.
        sets: from `find_sets`.
        out: folder of the result files, SET.TASK.json; no other process works in it meanwhile.
        model: what the model is called.
        seed: of whatever is drawn.
        on_start: gets the title of a measurement that is not there yet.

    Raises:
        ConfigError: `out` holds results of another model, or another process works in it.
        DataError: it cannot be written.
    """
    with folder_lock(out):
        remove_leftovers(out)
        _check_model(features, out)
        for one in sets:
            opened = _Opened(features, one, model, seed)
            for task, (wanted, measure) in _MEASUREMENTS.get(one.kind, _GENERIC).items():
                if task == "linear-probe" and not one.train_split:
                    continue
                try:
                    result = _measured(opened, task, wanted, measure, out, on_start)
                except (DiptychError, OSError) as error:
                    result = SuiteResult(data=one.name, task=task, values=None, error=_sentence(error))
                yield result


def _measured(
    opened: "_Opened",
    task: str,
    wanted_of: Callable[["_Opened"], Values],
    measure: Callable[["_Opened"], Values],
    out: Path,
    on_start: Callable[[str], None],
) -> SuiteResult:
    name = opened.set.name
    path = out / f"{name}.{task}.json"
    wanted = opened.conditions(task) | wanted_of(opened)
    there = _read_json(path)
    if same_conditions(there, wanted):
        return SuiteResult(data=name, task=task, values=there, kept=True)
    on_start(f"{name}, {task}")
    values = wanted | measure(opened) | wanted_of(opened)
    write_json(path, values)
    return SuiteResult(data=name, task=task, values=values)


class _Opened:
    """One set while it is measured: what is read of it is read once."""

    def __init__(self, features: ModelFeatures, one: SuiteSet, model: str, seed: int) -> None:
        self.features = features
        self.set = one
        self.seed = seed
        self._model = model
        self._data: dict[str, LabelledImages] = {}
        self._splits: dict[str, Split] = {}
        self._digests: dict[str, str] = {}

    def conditions(self, task: str) -> Values:
        return conditions(
            task,
            self.features,
            model=self._model,
            data=self.set.name,
            split=self.set.split,
            sha256=self.digest(self.set.split),
            seed=self.seed,
        )

    def digest(self, split: str) -> str:
        if split not in self._digests:
            self._digests[split] = digest(self.set.folder, split)
        return self._digests[split]

    @property
    def labelled(self) -> LabelledImages:
        return self.data(self.set.split)

    def data(self, split: str) -> LabelledImages:
        if split not in self._data:
            self._data[split] = read_labelled(self.set.folder, split=split)
        return self._data[split]

    @cached_property
    def captioned(self) -> CaptionedImages:
        return read_retrieval(self.set.folder, split=self.set.split)

    @property
    def templates(self) -> tuple[str, ...]:
        return self.set.task.templates if self.set.task else self.labelled.templates or PLAIN

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        classnames = self.labelled.classnames
        return names_of(self.set.task, classnames) if self.set.task else tuple((name,) for name in classnames)

    def split(self, name: str) -> Split:
        if name not in self._splits:
            pictures = self.features.pictures(self.data(name), self.digest(name))
            self._splits[name] = Split(data=self.data(name), pictures=pictures)
        return self._splits[name]

    def metric(self, values: Values) -> Values:
        """The number that the task is scored by, of those there are."""
        name = self.set.task.metric if self.set.task else "accuracy"
        if name == "mean per class":
            return {"metric": name, "value": values["mean_per_class"]}
        return {"metric": "accuracy", "value": values["top1"]}


def _zero_shot_conditions(opened: _Opened) -> Values:
    return {"templates": list(opened.templates), "classnames": first_names(opened.labels)}


def _zero_shot(opened: _Opened) -> Values:
    split = opened.split(opened.set.split)
    values = measure_zero_shot(
        opened.features,
        split.data,
        split.pictures,
        templates=opened.templates,
        labels=opened.labels,
        seed=opened.seed,
    )
    task = opened.set.task
    if task is None or task.metric in ("accuracy", "mean per class"):
        return values | opened.metric(values)
    scored = score_task(opened.features, task, split.data, split.pictures, seed=opened.seed)
    return values | {"metric": scored.metric, "value": scored.value}


def _probe_conditions(opened: _Opened) -> Values:
    train, validation = opened.set.train_split, opened.set.validation_split
    assert train
    facts = {
        "split": train,
        "sha256": opened.digest(train),
        "validation": validation or f"{HELD_OUT_SHARE} of each class",
    }
    if validation:
        facts["validation_sha256"] = opened.digest(validation)
    return _zero_shot_conditions(opened) | {"train_data": facts}


def _probe(opened: _Opened) -> Values:
    one = opened.set
    assert one.train_split
    names = [one.train_split, one.split, *([one.validation_split] if one.validation_split else [])]
    check_same_classes([opened.data(name) for name in names])  # before any is encoded
    values = measure_probe(
        opened.features,
        opened.split(one.train_split),
        opened.split(one.split),
        opened.split(one.validation_split) if one.validation_split else None,
        templates=opened.templates,
        labels=opened.labels,
        seed=opened.seed,
    )
    return values | opened.metric(values)


def _template(opened: _Opened) -> str:
    [template] = opened.set.task.templates if opened.set.task else PLAIN
    return template


def _retrieval_conditions(opened: _Opened) -> Values:
    return {"templates": [_template(opened)]}


def _retrieval(opened: _Opened) -> Values:
    pictures = opened.features.pictures(opened.captioned, opened.digest(opened.set.split))
    return measure_retrieval(opened.features, opened.captioned, pictures, template=_template(opened), seed=opened.seed)


def _task_conditions(opened: _Opened) -> Values:
    assert opened.set.task
    return {"templates": list(opened.set.task.templates), "metric": opened.set.task.metric}


def _task(opened: _Opened) -> Values:
    """A kind of task that has no classes of the plain sort."""
    task = opened.set.task
    assert task
    pictures = open_task(task, opened.set.folder, split=opened.set.split)
    encoded = opened.features.pictures(pictures, opened.digest(opened.set.split))
    return {
        name: value
        for name, value in score_task(opened.features, task, pictures, encoded, seed=opened.seed).to_dict().items()
        if name not in ("task", "data", "split")  # the conditions say these
    }


# What is measured on a kind of set: by its name in the file, what else it hangs on, and how.
_Measurement = tuple[Callable[[_Opened], Values], Callable[[_Opened], Values]]
_MEASUREMENTS: dict[str, dict[str, _Measurement]] = {
    "classification": {
        "zero-shot": (_zero_shot_conditions, _zero_shot),
        "linear-probe": (_probe_conditions, _probe),
    },
    "retrieval": {"retrieval": (_retrieval_conditions, _retrieval)},
}
_GENERIC: dict[str, _Measurement] = {"zero-shot": (_task_conditions, _task)}


def _set(folder: Path, task: Task | None) -> SuiteSet | None:
    """None for what holds no pictures in a layout that can be read."""
    if task is None:
        try:
            task = find_task(folder.name)
        except ConfigError:
            task = None
    kind = task.kind if task else "retrieval" if dataset_type(folder) == "retrieval" else "classification"
    there = {child.name for child in folder.iterdir() if child.is_dir()}
    usual = task.split if task else _TEST_SPLITS[0]
    split = next((name for name in (usual, *_TEST_SPLITS) if name in there), usual)
    if task is None and split not in there and not _looks_labelled(folder):
        return None
    return SuiteSet(
        folder=folder,
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


def _check_model(features: ModelFeatures, out: Path) -> None:
    for path in sorted(out.glob("*.json")):
        found = _read_json(path)
        model = found.get("model") if isinstance(found, dict) else None
        if isinstance(model, dict) and model.get("fingerprint") != features.fingerprint:
            raise ConfigError(
                f"{out} must hold results of this model. {path.name} is of {model.get('name')}: choose another folder."
            )


def _read_json(path: Path) -> Any:
    """None where there is no such file, or none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    return str(error)
