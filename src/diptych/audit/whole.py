"""A model's whole audit: every chapter that can be asked with what is drawn here and with the sets that are at hand.

A chapter whose data is not there, or that fails, is said with its reason, and the others go on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from diptych.audit.by_group import by_group
from diptych.audit.calibration import calibration
from diptych.audit.class_design import class_design
from diptych.audit.corruptions import corruptions
from diptych.audit.gendered_labels import gendered_labels
from diptych.audit.pointing import pointing
from diptych.audit.scenes import scenes
from diptych.audit.shortcuts import shortcuts
from diptych.audit.surveillance import surveillance
from diptych.audit.tones import tones
from diptych.audit.typographic import typographic
from diptych.audit.wording import wording
from diptych.config import unknown_name
from diptych.data.embedded import TONES, data_path
from diptych.errors import ConfigError, DiptychError
from diptych.eval.chapter import Audit, Chapter
from diptych.eval.features import ModelFeatures
from diptych.eval.result import DataId, ModelId
from diptych.eval.suite import conditions_of
from diptych.sets.choices import ChoiceImages
from diptych.sets.grouped import GroupedImages, read_grouped
from diptych.sets.labelled import LabelledImages
from diptych.sets.near_misses import NearMissImages

Ask = partial[Chapter]  # a chapter that is measured when it is called


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What a model is asked about, beside what is drawn for it."""

    labelled: Sequence[LabelledImages]
    people: Sequence[GroupedImages] = ()  # pictures of people, with groups
    grouped: Sequence[GroupedImages] = ()  # with classes and groups
    choices: Sequence[ChoiceImages] = ()  # right and wrong captions, as of SugarCrepe
    near_misses: NearMissImages | None = None  # scenes with near-miss captions
    names: LabelledImages | None = None  # people by name
    digests: Mapping[tuple[str, str], str] = field(default_factory=dict)  # SHA-256 of sets, by name and split


def _of_labelled(chapter: Callable[..., Chapter], features: ModelFeatures, sets: Sets, seed: int) -> list[Ask]:
    return [partial(chapter, features, one, seed=seed) for one in sets.labelled]


def _class_design(features: ModelFeatures, sets: Sets, seed: int) -> list[Ask]:
    return [partial(class_design, features, one, seed=seed) for one in sets.people]


def _gendered_labels(features: ModelFeatures, sets: Sets, _seed: int) -> list[Ask]:
    return [partial(gendered_labels, features, one) for one in sets.people if "gender" in one.groups]


def _by_group(features: ModelFeatures, sets: Sets, seed: int) -> list[Ask]:
    return [partial(by_group, features, one, seed=seed) for one in sets.grouped]


def _tones(features: ModelFeatures, _sets: Sets, seed: int) -> list[Ask]:
    return [partial(tones, features, read_grouped(data_path(TONES)), seed=seed)]


def _surveillance(features: ModelFeatures, sets: Sets, seed: int) -> list[Ask]:
    is_given = sets.near_misses or sets.names
    return [partial(surveillance, features, sets.near_misses, sets.names, seed=seed)] if is_given else []


def _scenes(features: ModelFeatures, sets: Sets, seed: int) -> list[Ask]:
    return [partial(scenes, features, given=sets.choices, seed=seed)]


# In the order of the page: who is wronged, what the words do, what it looks at, whether it knows.
CHAPTERS: Mapping[str, Callable[[ModelFeatures, Sets, int], list[Ask]]] = {
    "class-design": _class_design,
    "gendered-labels": _gendered_labels,
    "by-group": _by_group,
    "tones": _tones,
    "surveillance": _surveillance,
    "wording": partial(_of_labelled, wording),
    "scenes": _scenes,
    "typographic": partial(_of_labelled, typographic),
    "shortcuts": partial(_of_labelled, shortcuts),
    "corruptions": partial(_of_labelled, corruptions),
    "pointing": partial(_of_labelled, pointing),
    "calibration": partial(_of_labelled, calibration),
}
_NEEDS = {
    "class-design": "It needs pictures of people with groups (--people), such as FairFace, UTKFace or your own.",
    "gendered-labels": "It needs pictures of people whose gender is told (--people), such as FairFace or UTKFace.",
    "by-group": "It needs a labelled set with groups (--grouped), such as Dollar Street, GeoDE or your own.",
    "surveillance": "It needs scenes with near-miss captions (--near-misses), or pictures of people by name (--names).",
}


def audit_model(
    features: ModelFeatures,
    sets: Sets,
    *,
    model: str,
    chapters: Sequence[str] = (),
    seed: int = 0,
    on_chapter: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Ask a model everything that can be asked.

    Args:
        features: of the model.
        sets: what it is asked about.
        model: what it is called.
        chapters: names of `CHAPTERS`; all by default.
        seed: of whatever is drawn.
        on_chapter: is called with the name of each chapter before it is measured.

    Raises:
        ConfigError: there is no such chapter.
    """
    for name in chapters:
        if name not in CHAPTERS:
            raise ConfigError(unknown_name(name, "", CHAPTERS, "a chapter"))
    measured: list[Chapter] = []
    not_measured: dict[str, str] = {}
    for name, ask in CHAPTERS.items():
        if chapters and name not in chapters:
            not_measured[name] = "It was not asked for."
            continue
        on_chapter(name)
        asked = ask(features, sets, seed)
        if not asked:
            not_measured[name] = _NEEDS[name]
        for number, one in enumerate(asked):
            try:
                chapter = one()
            except DiptychError as error:
                not_measured[f"{name} {number + 1}" if len(asked) > 1 else name] = str(error)
                continue
            title = f"{chapter.title}: {chapter.results[0].data.title}" if len(asked) > 1 else chapter.title
            results = tuple(replace(one, data=_identified(one.data, sets)) for one in chapter.results)
            measured.append(replace(chapter, title=title, results=results))
    return audit_of(measured, features, model=model, not_measured=not_measured, seed=seed)


def _identified(data: DataId, sets: Sets) -> DataId:
    """With the bytes that it is of, so that no two sets of one name are taken for the same."""
    return replace(data, sha256=data.sha256 or sets.digests.get((data.name, data.split), ""))


def audit_of(
    chapters: Sequence[Chapter],
    features: ModelFeatures,
    *,
    model: str,
    not_measured: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Audit:
    """Chapters with the model that they are of, and their conditions.

    Args:
        chapters: that were measured.
        features: of the model.
        model: what it is called.
        not_measured: by chapter, why.
        seed: of whatever was drawn.
    """
    identity = ModelId(name=model, fingerprint=features.fingerprint)
    return Audit(
        model=identity,
        conditions=conditions_of(features, seed=seed),
        chapters=tuple(
            replace(chapter, results=tuple(replace(result, model=identity) for result in chapter.results))
            for chapter in chapters
        ),
        not_measured=not_measured or {},
    )
