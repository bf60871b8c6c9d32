"""Data sets measured with one model, one result file each; a run that was stopped goes on. One set is a suite of one.

A result file is whole or absent. One that is there is kept when it was measured under the conditions of this run: same
model, data, prompts, seed, precision and versions.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import PIL

from diptych.config import unknown_name
from diptych.errors import ConfigError, DataError, DiptychError, MissingExtraError
from diptych.eval.features import ModelFeatures
from diptych.eval.kinds import KINDS
from diptych.eval.measure import (
    Split,
    check_same_classes,
    measure_probe,
    open_task,
    probe_metric,
    prompts_of,
    score_pictures,
    validation_of,
)
from diptych.eval.result import Conditions, DataId, Measurement, ModelId, Result
from diptych.eval.result_file import result_at, write_result
from diptych.eval.shift import subset_numbers, subsets_of
from diptych.eval.tasks import FewShot, Kind, Prompts, Task, task_data, task_named, tasks
from diptych.files import folder_lock, remove_leftovers
from diptych.runtime import hardware
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures
from diptych.sets.webdataset import dataset_type
from diptych.version import __version__

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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How sets are measured, beside the model."""

    model: str  # what it is called
    seed: int = 0  # of whatever is drawn
    templates: tuple[str, ...] | None = None  # in place of those of the rule
    few_shot: FewShot = field(default_factory=FewShot)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement, done or failed."""

    data: str  # name of the set
    measurement: Measurement
    result: Result | None = None  # None when it failed
    error: str = ""  # one line
    kept: bool = False  # the file was there

    @property
    def title(self) -> str:
        return f"{self.data}, {self.measurement}"


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


def run_suite(
    features: ModelFeatures,
    sets: Sequence[EvaluationSet],
    out: Path,
    asked: Asked,
    *,
    on_start: Callable[[str], None] = lambda _: None,
) -> Iterator[Measured]:
    """Measure one set after another; each result is on disk when it is given.

    Features of one set at a time are in memory. A measurement that fails is given with a sentence, and the others go
    on.

    Args:
        features: of the model.
        sets: from `find_sets`.
        out: folder of the result files, SET.MEASUREMENT.json; no other process works in it meanwhile.
        asked: how to measure.
        on_start: gets the title of a measurement that is not there yet.

    Raises:
        ConfigError: `out` holds results of another model, or another process works in it.
        DataError: it cannot be written.
    """
    with folder_lock(out):
        remove_leftovers(out)
        _check_model(features, out)
        for one in sets:
            opened = OpenedSet(features, one, asked, beside=sets)
            for measurement in one.measurements:
                path = out / file_name(one, measurement)
                try:
                    there = result_at(path)
                    if there and opened.would_be_alike(there):
                        yield Measured(data=one.name, measurement=measurement, result=there, kept=True)
                        continue
                    on_start(f"{one.name}, {measurement}")
                    result = opened.measure(measurement)
                    write_result(result, path)
                except (DiptychError, OSError) as error:
                    yield Measured(data=one.name, measurement=measurement, error=_sentence(error))
                else:
                    yield Measured(data=one.name, measurement=measurement, result=result)


def measure_one(
    features: ModelFeatures, one: EvaluationSet, measurement: Measurement, asked: Asked, out: Path | None = None
) -> Result:
    """A suite of one, which is measured anew whatever is there.

    Args:
        features: of the model.
        one: from `one_set`.
        measurement: one of those of its kind.
        asked: how to measure.
        out: where the result goes: a file, NAME.json, or a folder, where it is called as in a suite; None keeps none.

    Raises:
        DataError: the data cannot be read, does not do for the measurement, or the file cannot be written.
    """
    result = OpenedSet(features, one, asked).measure(measurement)
    if out:
        write_result(result, out if out.suffix == ".json" else out / file_name(one, measurement))
    return result


def file_name(one: EvaluationSet, measurement: Measurement) -> str:
    """What a result's file is called in a folder of results."""
    return f"{one.name}.{measurement}.json"


class OpenedSet:
    """One set while it is measured: what is read of it is read once.

    Args:
        features: of the model.
        one: the set.
        asked: how to measure.
        beside: the sets that are measured with it.
    """

    def __init__(
        self, features: ModelFeatures, one: EvaluationSet, asked: Asked, *, beside: Sequence[EvaluationSet] = ()
    ) -> None:
        self.features = features
        self.set = one
        self.asked = asked
        self._beside = beside
        self._labelled: dict[str, LabelledImages] = {}
        self._splits: dict[str, Split] = {}
        self._digests: dict[str, str] = {}

    def measure(self, measurement: Measurement) -> Result:
        """One measurement of those of the set's kind, with its conditions.

        Raises:
            DataError: the data cannot be read, or does not do for the measurement.
        """
        result = self._probe() if measurement == "linear-probe" else self._score()
        return replace(result, data=self.data_id(self.set.split), model=self.model_id, conditions=self.conditions)

    def would_be_alike(self, there: Result) -> bool:
        """Whether a result was measured as it would be now, on whatever machine."""
        conditions = there.conditions and replace(there.conditions, hardware=self.conditions.hardware)
        alike = (
            (there.model, there.data, there.kind) == (self.model_id, self.data_id(self.set.split), self.set.kind)
            and (conditions, there.prompts, there.metric)
            == (self.conditions, self.prompts, self._metric(there.measurement))
            and set(self._subsets) <= set(there.numbers)
            and (self.features.truncate or not there.shortened or not there.prompts.classnames)  # else refused now
        )
        if not alike or there.measurement != "linear-probe":
            return alike
        train, validation = self.set.train_split, self.set.validation_split
        assert train
        fitted = there.probe and (there.probe.train, there.probe.validation, there.probe.validation_sha256)
        sha256 = self.digest(validation) if validation else ""
        return fitted == (self.data_id(train), validation_of(validation), sha256)

    @cached_property
    def pictures(self) -> Pictures:
        """The split that is measured."""
        if self.set.task:
            return replace(open_task(self.set.task, self.set.folder, split=self.set.split), name=self.set.name)
        return KINDS[self.set.kind].open(self.set.folder, split=self.set.split)

    @cached_property
    def prompts(self) -> Prompts:
        return prompts_of(self.pictures, self.set.task, self.asked.templates)

    @property
    def model_id(self) -> ModelId:
        return ModelId(name=self.asked.model, fingerprint=self.features.fingerprint)

    @cached_property
    def conditions(self) -> Conditions:
        return conditions_of(self.features, seed=self.asked.seed)

    def data_id(self, split: str) -> DataId:
        return DataId(name=self.set.name, split=split, sha256=self.digest(split))

    def digest(self, split: str) -> str:
        if split not in self._digests:
            self._digests[split] = digest(self.set.folder, split)
        return self._digests[split]

    def _metric(self, measurement: Measurement) -> str:
        if measurement == "linear-probe":
            return probe_metric(self.set.task)
        return self.set.task.metric if self.set.task else KINDS[self.set.kind].metric

    def _score(self) -> Result:
        if self.set.kind == "classification":  # a probe has use for the same features
            encoded = self._split(self.set.split).pictures
        else:
            encoded = self.features.pictures(self.pictures, self.digest(self.set.split))
        result = score_pictures(
            self.features,
            self.pictures,
            encoded,
            task=self.set.task,
            templates=self.asked.templates,
            sureness=True,
            seed=self.asked.seed,
        )
        if not self._subsets:
            return result
        weights = self.features.class_weights(self.prompts.classnames, self.prompts.templates)
        return replace(result, numbers={**result.numbers, **subset_numbers(result, encoded, weights, self._subsets)})

    def _probe(self) -> Result:
        one = self.set
        assert one.train_split
        names = [one.train_split, one.split, *([one.validation_split] if one.validation_split else [])]
        check_same_classes([self._data(name) for name in names])  # before any is encoded
        return measure_probe(
            self.features,
            self._split(one.train_split),
            self._split(one.split),
            self._split(one.validation_split) if one.validation_split else None,
            task=one.task,
            templates=self.asked.templates,
            few_shot=self.asked.few_shot,
            seed=self.asked.seed,
        )

    def _data(self, split: str) -> LabelledImages:
        if split not in self._labelled:
            if split == self.set.split and isinstance(self.pictures, LabelledImages):
                self._labelled[split] = self.pictures
            else:
                self._labelled[split] = replace(read_labelled(self.set.folder, split=split), name=self.set.name)
        return self._labelled[split]

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            pictures = self.features.pictures(self._data(name), self.digest(name))
            self._splits[name] = Split(data=self._data(name), pictures=pictures, sha256=self.digest(name))
        return self._splits[name]

    @cached_property
    def _subsets(self) -> Mapping[str, tuple[int, ...]]:
        """Classes that shifted sets beside this one have, where this one is what they are shifts of."""
        if not self.set.task or self.set.task.name != "imagenet":
            return {}
        others: dict[str, tuple[str, ...]] = {}
        for one in self._beside:
            if one.task and "natural-shift" in one.task.suites:
                with contextlib.suppress(DiptychError, OSError):  # its own measurement says why
                    others[one.name] = OpenedSet(self.features, one, self.asked).prompts.names
        return subsets_of(self.prompts.names, others)


def conditions_of(features: ModelFeatures, *, seed: int) -> Conditions:
    """What a result hangs on beside model, data and prompts."""
    machine = hardware()
    versions = {"diptych": __version__, "pillow": PIL.__version__}
    versions |= {name: str(machine.pop(name)) for name in ("torch", "python")}
    return Conditions(seed=seed, precision=features.precision, versions=versions, hardware=machine)


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


def _check_model(features: ModelFeatures, out: Path) -> None:
    for path in sorted(out.glob("*.json")):
        found = result_at(path)
        if found and found.model.fingerprint != features.fingerprint:
            raise ConfigError(
                f"{out} must hold results of this model. {path.name} is of {found.model.name}: choose another folder."
            )


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}."
    return str(error)
