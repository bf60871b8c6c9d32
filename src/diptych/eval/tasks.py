"""The tasks that a model is measured on, from `tasks.toml`: what each is, where its data lies, and what of measuring it
can be chosen. Without torch: the command line shows the choices in its help.

Class names are matched by what a data set calls its classes, never by position alone: the published lists of names and
the archives often differ in order.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from diptych.config import from_dict, read_toml, unknown_name
from diptych.data.class_names import codes_among, imagenet_names
from diptych.data.prompts import PLAIN, TEMPLATES, check_templates, fill
from diptych.errors import ConfigError

Kind = Literal[
    "classification",  # one class a picture
    "multilabel",  # any number of classes a picture
    "video",  # one class a clip, of which some frames are looked at
    "rare-actions",  # clips judged for some of the classes
    "anchors",  # one class a frame, and its neighbours in time must be right as well
    "retrieval",  # pictures with captions, both ways
    "ocr",  # a picture of a word, among the words of its own lexicon
    "geolocation",  # where a picture was taken, by its nearest neighbours
    "compositional",  # a right and a wrong caption for each picture
]
Metric = Literal[
    "accuracy",
    "mean per class",
    "mean of 10 folds",
    "mean of 3 splits",
    "11-point mAP",
    "ROC AUC",
    "mean of top-1 and top-5",
    "mean of pm-0 and pm-10",
    "mWAP",
    "text-to-image recall@1",
    "within 25 km",
]

ComputePrecision = Literal["auto", "float32", "bfloat16"]  # auto: bfloat16 where it is measured to be faster
LearnerName = Literal["probe", "prompt-weights", "tip-adapter"]  # a probe; one pulled to the words; words with a cache


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Which few-shot curves a probe is measured with."""

    shots: tuple[int, ...] = ()  # numbers of examples a class; none makes no curve
    repeats: int = 10  # draws for each number
    learners: tuple[LearnerName, ...] = ("probe",)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table. What is not known for sure is None, or "unknown" in a text."""

    name: str  # also the folder's
    title: str
    kind: Kind
    metric: Metric  # of the paper, for zero-shot and probe alike
    classes: int | None = None
    train: int | None = None  # pictures of each split, or clips, or captions where `kind` goes by them
    validation: int | None = None
    test: int | None = None
    split: str = "test"  # the one that is measured
    templates: tuple[str, ...] = PLAIN
    classnames: tuple[tuple[str, ...], ...] = ()  # each class by one name or several; empty: they come with the data
    renamed: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # what the archive calls a class, and what a model is told
    split_words: bool = False  # whether the archive writes names as ApplyEyeMakeup
    frames: Literal["middle", "all"] = "all"  # of a clip
    folder: str = ""  # whose data this is, where it is another task's
    source: str
    licence: str
    obtain: str  # one line
    maker: str = ""  # of `diptych make-data`, where the set can be made by us
    aliases: tuple[str, ...] = ()  # other names of its folder
    suites: tuple[str, ...] = ()  # "clip-27", "kornblith-12", "natural-shift", ...


@functools.cache
def tasks() -> tuple[Task, ...]:
    """All tasks, in the order of the table."""
    return tuple(_task(row) for row in from_dict(_Table, read_toml(Path(__file__).with_name("tasks.toml"))).task)


def find_task(name: str) -> Task:
    """A task by its name, or by another name of its folder; capitals, dashes and the like do not count.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    found = task_named(name)
    if not found:
        raise ConfigError(unknown_name(name, "", [task.name for task in tasks()], "a task"))
    return found


def task_data(task: Task, data: Path) -> Path | None:
    """The folder of a task within a folder of data sets, None where it is not there.

    Looked for are its name and its other names: "cifar10", "CIFAR-10", "wds_vtab-cifar10", "vtab/cifar10" are one.
    Of several the first by name is taken.
    """
    if not data.is_dir():
        return None
    owner = find_task(task.folder) if task.folder else task
    wanted = {_plain(name) for name in (owner.name, *owner.aliases)}
    folders = sorted(child for child in data.iterdir() if child.is_dir() and not child.name.startswith("."))
    nested = (child for folder in folders if _plain(folder.name) in _GROUPS for child in sorted(folder.iterdir()))
    return next((child for child in (*folders, *nested) if child.is_dir() and _plain(child.name) in wanted), None)


def names_of(task: Task, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What a model is told of the classes of a data set: the task's names where they fit, else the set's own.

    A class is known by what the archive calls it (`renamed`) or by one of its names (`classnames`), whatever the case
    and the signs between words. Classes that are numbered 0 to C - 1 throughout, in whatever order, are those of
    `classnames` by number. Labels of several names each, as of ImageNet on the Hugging Face hub ("tench, Tinca tinca"),
    are those of `classnames` in their order, where most of them hold the name of their place.

    Args:
        task: a row of the table.
        labels: C, as the data has them: classnames.txt or names of folders.

    Returns:
        [C], each at least one name.
    """
    numbers = [label.strip().lstrip("0") or "0" for label in labels]
    if len(labels) == len(task.classnames) and sorted(numbers) == sorted(map(str, range(len(labels)))):
        return tuple(task.classnames[int(number)] for number in numbers)
    if _are_synonyms_in_order(task, labels):
        return task.classnames
    known = {_plain(name): names for names in task.classnames for name in names}
    known |= {_plain(label): known.get(_plain(names[0]), names) for label, names in task.renamed.items()}
    return tuple(known.get(_plain(label), (_words(label) if task.split_words else label,)) for label in labels)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What a model is told of a set."""

    templates: tuple[str, ...]
    classnames: tuple[tuple[str, ...], ...] = ()  # each class by one name or several; empty where there are no classes
    labels: tuple[str, ...] = ()  # what the set calls them, see `readable_names`
    naming: str = ""  # what was done to get class names, and what could not be; empty where they are the set's own
    source: str  # whose the templates are

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of each class."""
        return tuple(names[0] for names in self.classnames)

    @property
    def has_shared_names(self) -> bool:
        """Whether classes are called alike, which then tie whatever the picture."""
        return len(set(self.classnames)) < len(self.classnames)

    @property
    def sentences(self) -> list[str]:
        """What the model is told of the classes, every name through every template."""
        return [text for names in self.classnames for name in names for text in fill(self.templates, name)]

    @property
    def sentence(self) -> str:
        """Which templates, whose they are, and whether the class names are the set's own."""
        shown = ", ".join(self.templates[:2]) + (f", ... ({len(self.templates)})" if len(self.templates) > 2 else "")
        renamed = self.names != self.labels
        return f"{shown}, {self.source}" + ("; class names of the table of tasks" if renamed else "")


def prompts_for(
    task: Task | None,
    labels: Sequence[str],
    own: Sequence[str] | None,
    chosen: Sequence[str] | None = None,
    *,
    naming: str = "",
) -> Prompts:
    """The one rule for prompts and class names.

    Templates are those that were asked for; else those of the task's row; else those that the set brings; else the bare
    name. Class names are the row's where they fit, see `names_of`; else the set's.

    Args:
        task: the row, where the set is one of the table.
        labels: C, as the set has them; none where there are no classes.
        own: templates of the set.
        chosen: templates that were asked for.
        naming: what was done to the set's own labels to get `labels`.

    Raises:
        DataError: a template is not valid, or a class has a WordNet id and no name.
    """
    if chosen:
        templates, source = check_templates(chosen), "as asked for"
    elif task:
        templates, source = task.templates, f"of the row {task.name} of the table of tasks"
    elif own:
        templates, source = check_templates(own), "the set's own"
    else:
        templates, source = PLAIN, "the bare name"
    names = names_of(task, labels) if task else tuple((label,) for label in labels)
    codes = codes_among([some[0] for some in names])
    if task and (not task.classnames or set(names) <= set(task.classnames)):  # so the table has it
        codes = ""
    told = "; ".join(filter(None, (naming, codes, _shared(names))))
    return Prompts(templates=templates, classnames=names, labels=tuple(labels), naming=told, source=source)


def _shared(names: Sequence[tuple[str, ...]]) -> str:
    """What several classes are called alike, and what becomes of their pictures."""
    shared = [one for one, count in Counter(names).items() if count > 1]
    if not shared:
        return ""
    few = ", ".join(" / ".join(one) for one in shared[:3]) + (", ..." if len(shared) > 3 else "")
    return (
        f"{few} {'is' if len(shared) == 1 else 'are each'} the name of several classes, which tie: a tie counts "
        'against the model, and "top-1 by argmax" takes the first of them'
    )


def task_named(name: str) -> Task | None:
    """The row of a folder's name, None where there is none."""
    return _by_folder_name().get(_plain(name))


def _are_synonyms_in_order(task: Task, labels: Sequence[str]) -> bool:
    if len(labels) != len(task.classnames) or not any("," in label for label in labels):
        return False
    several = [{_plain(name) for name in label.split(",")} for label in labels]
    pairs = zip(several, task.classnames, strict=True)
    return sum(not names.isdisjoint(map(_plain, own)) for names, own in pairs) > len(labels) / 2


def _words(name: str) -> str:
    """ApplyEyeMakeup -> Apply Eye Makeup."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


_GROUPS = {"vtab", "wds", "retrieval", "misc", "webdataset"}  # folders that others put several sets into


def _plain(name: str) -> str:
    """A name without capitals and signs, and without what CLIP_benchmark puts before it."""
    return re.sub(r"[^a-z0-9+]", "", re.sub(r"^(wds[_/-])?((vtab|retrieval|misc)[_/-])?", "", name.casefold()))


@functools.cache
def _by_folder_name() -> dict[str, Task]:
    return {_plain(name): task for task in tasks() for name in (task.name, *task.aliases)}


@dataclass(frozen=True, kw_only=True)
class _Row:
    name: str
    title: str
    kind: Kind = "classification"
    metric: Metric = "accuracy"
    classes: int | None = None
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    split: str = "test"
    templates: str | tuple[str, ...] = PLAIN  # name of a published set, or templates
    classnames: str | tuple[str, ...] = ()  # names of one class with "|" between; or "imagenet", for its 1,000
    renamed: dict[str, str] = field(default_factory=dict)
    split_words: bool = False
    frames: Literal["middle", "all"] = "all"
    folder: str = ""
    source: str
    licence: str = "unknown"
    obtain: str
    maker: str = ""
    aliases: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Table:
    task: tuple[_Row, ...]


def _task(row: _Row) -> Task:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    templates = TEMPLATES[row.templates] if isinstance(row.templates, str) else check_templates(row.templates)
    classnames = tuple(imagenet_names().values()) if row.classnames == "imagenet" else row.classnames
    return Task(
        **values
        | {
            "templates": templates,
            "classnames": tuple(map(_several, classnames)),
            "renamed": {label: _several(names) for label, names in row.renamed.items()},
        }
    )


def _several(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split("|"))
