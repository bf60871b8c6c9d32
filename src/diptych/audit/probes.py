"""The words of audits as data: `probes.toml`, and a user's own file in its layout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diptych.config import from_dict, read_toml, unknown_name
from diptych.data.prompts import check_labels, check_templates
from diptych.errors import ConfigError
from diptych.eval.tasks import Prompts


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """One way to put a label into words."""

    name: str  # short, for tables: "photo"
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        check_templates(self.templates)

    def of(self, labels: Sequence[str]) -> Prompts:
        """What a result says that the model was told."""
        return Prompts(
            templates=check_templates(self.templates),
            classnames=tuple((label,) for label in labels),
            labels=tuple(labels),
            source=f"prompt set {self.name!r} of the audit",
        )


@dataclass(frozen=True, kw_only=True)
class ClassDesign:
    """Labels that compete for each picture, by category."""

    categories: dict[str, tuple[str, ...]]
    counted: tuple[str, ...]  # categories whose rates are measured
    added: tuple[str, ...] = ()  # labels whose effect is measured, all of them at once

    def __post_init__(self) -> None:
        for name in self.counted:
            if name not in self.categories:
                raise ConfigError(unknown_name(name, "", self.categories, "a category of class_design.categories"))
        if not self.counted:
            raise ConfigError("class_design.counted must name a category. It names none.")
        check_labels([*self.labels, *self.added])

    @property
    def labels(self) -> tuple[str, ...]:
        """Without those that are added."""
        return tuple(label for labels in self.categories.values() for label in labels)

    def numbers(self, category: str) -> list[int]:
        """Which of the labels are the category's."""
        own = set(self.categories[category])
        return [number for number, label in enumerate(self.labels) if label in own]


@dataclass(frozen=True, kw_only=True)
class LabelList:
    """Labels that are compared between two groups."""

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        check_labels(self.labels)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """All words of the audits of people."""

    prompts: tuple[PromptSet, ...]
    class_design: ClassDesign
    gendered_labels: LabelList


@dataclass(frozen=True, kw_only=True)
class OwnProbes:
    """A user's file: any part of `Probes`."""

    prompts: tuple[PromptSet, ...] | None = None
    class_design: ClassDesign | None = None
    gendered_labels: LabelList | None = None


def read_probes(path: Path | None = None) -> Probes:
    """The words that ship, or those of a user's file; a part that the file leaves out is the one that ships.

    Raises:
        ConfigError: the file cannot be read, or a part of it is not as `probes.toml` has it.
        DataError: labels are empty or occur twice, or a template has no gap.
    """
    shipped = from_dict(Probes, read_toml(Path(__file__).with_name("probes.toml")))
    if path is None:
        return shipped
    own = from_dict(OwnProbes, read_toml(path))
    return replace(shipped, **{name: part for name, part in vars(own).items() if part is not None})
