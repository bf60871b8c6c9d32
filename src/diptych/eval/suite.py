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

from diptych.errors import ConfigError, DiptychError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import EvaluationSet
from diptych.eval.kinds import KINDS
from diptych.eval.measure import (
    FittedProbe,
    Split,
    check_same_classes,
    fit_probe_to_keep,
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
from diptych.eval.tasks import FewShot, Prompts
from diptych.files import folder_lock, remove_leftovers
from diptych.runtime import hardware
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures
from diptych.version import __version__


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
            opened = OpenedSet(lambda: features, one, asked, beside=sets)
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
    load: Callable[[], ModelFeatures],
    one: EvaluationSet,
    measurement: Measurement,
    asked: Asked,
    out: Path | None = None,
) -> Result:
    """A suite of one, which is measured anew whatever is there.

    Args:
        load: gives the features of the model; called when the data is found, read and does for the measurement.
        one: from `one_set`.
        measurement: one of those of its kind.
        asked: how to measure.
        out: where the result goes: a file, NAME.json, or a folder, where it is called as in a suite; None keeps none.

    Raises:
        DataError: the data cannot be read, does not do for the measurement, or the file cannot be written.
    """
    opened = OpenedSet(load, one, asked)
    opened.check(measurement)
    return opened.measure_into(measurement, out)


def file_name(one: EvaluationSet, measurement: Measurement) -> str:
    """What a result's file is called in a folder of results."""
    return f"{one.name}.{measurement}.json"


class OpenedSet:
    """One set while it is measured: what is read of it is read once.

    Args:
        load: gives the features of the model; called once, when they are asked for.
        one: the set.
        asked: how to measure.
        beside: the sets that are measured with it.
    """

    def __init__(
        self,
        load: Callable[[], ModelFeatures],
        one: EvaluationSet,
        asked: Asked,
        *,
        beside: Sequence[EvaluationSet] = (),
    ) -> None:
        self._load = load
        self.set = one
        self.asked = asked
        self._beside = beside
        self._labelled: dict[str, LabelledImages] = {}
        self._splits: dict[str, Split] = {}
        self._digests: dict[str, str] = {}

    @cached_property
    def features(self) -> ModelFeatures:
        return self._load()

    def check(self, measurement: Measurement) -> None:
        """Find and read what a measurement is made on, which needs no model.

        Raises:
            DataError: the data cannot be read, or does not do for the measurement.
        """
        _ = self.prompts
        if measurement == "linear-probe":
            check_same_classes([self._data(name) for name in self._probe_splits])

    def measure(self, measurement: Measurement) -> Result:
        """One measurement of those of the set's kind, with its conditions.

        Raises:
            DataError: the data cannot be read, or does not do for the measurement.
        """
        result = self._probe() if measurement == "linear-probe" else self._score()
        return replace(result, data=self.data_id(self.set.split), model=self.model_id, conditions=self.conditions)

    def measure_into(self, measurement: Measurement, out: Path | None) -> Result:
        """The same, and its file: `out`, or in that folder; None keeps none."""
        result = self.measure(measurement)
        if out:
            write_result(result, out if out.suffix == ".json" else out / file_name(self.set, measurement))
        return result

    def probe_to_keep(self, model: str) -> FittedProbe:
        """A linear probe on features after the projection, see `fit_probe_to_keep`.

        Args:
            model: what the model is called.

        Raises:
            DataError: the data cannot be read, or does not do for it.
        """
        assert self.set.train_split
        train, test, validation = (
            self._split(name) if name else None
            for name in (self.set.train_split, self.set.split, self.set.validation_split)
        )
        assert train
        assert test
        return fit_probe_to_keep(
            self.features, train, test, validation, task=self.set.task, model=model, seed=self.asked.seed
        )

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
        self.check("linear-probe")  # before any is encoded
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

    @property
    def _probe_splits(self) -> list[str]:
        splits = (self.set.train_split, self.set.split, self.set.validation_split)
        return [split for split in splits if split]

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
                    others[one.name] = OpenedSet(self._load, one, self.asked).prompts.names
        return subsets_of(self.prompts.names, others)


def conditions_of(features: ModelFeatures, *, seed: int) -> Conditions:
    """What a result hangs on beside model, data and prompts."""
    machine = hardware()
    versions = {"diptych": __version__, "pillow": PIL.__version__}
    versions |= {name: str(machine.pop(name)) for name in ("torch", "python")}
    return Conditions(seed=seed, precision=features.precision, versions=versions, hardware=machine)


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
