"""What an answer follows: the object or what is behind it, its shape or its texture, its colour, or a frame and a mark.

Each picture is shown again with one thing changed. Where two answers compete (the object before another's picture, the
shape of one in the texture of another, after Geirhos et al., arXiv:1811.12231), it is counted which of them is given.
Letters: n pictures.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.audit.answers import PROMPT_SETS, Answers, Subject, example, few, subject_of, weights_of
from diptych.audit.compose import before, in_texture, object_changes, object_mask, plain_changes
from diptych.errors import ImageError
from diptych.eval.chapter import Chapter, Example, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import Result
from diptych.measures.compare import Comparison, compare_correct
from diptych.sets.changed import Change, changed, chosen
from diptych.sets.labelled import LabelledImages

_AS_IT_IS = "as it is"
_BEFORE, _IN_TEXTURE = "before another class", "in the texture of another class"
_ITS_OWN = "before its own class"
_MOST = 12  # examples
_ENOUGH = 0.5  # share of the pictures whose object can be cut out, below which it is said and not measured


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    """The pictures with one thing changed."""

    varies: str
    name: str
    subject: Subject  # all pictures, or those whose object can be cut out
    change: Change
    found: PictureFeatures
    other: Tensor | None = None  # [n of `subject`] the class that competes, by what is behind, or by texture


def shortcuts(features: ModelFeatures, data: LabelledImages, *, pictures: int = 200, seed: int = 0) -> Chapter:
    """Answers to the same pictures with one thing changed.

    Args:
        features: of the model.
        data: labelled pictures.
        pictures: how many are drawn.
        seed: of the pictures, what they are composed with, and the intervals.

    Raises:
        DataError: no picture can be read, or all are of one class.
    """
    subject = subject_of(data, pictures, seed=seed)
    plain = features.pictures(subject.pictures)
    rows = _cut_out(subject)
    can_cut = len(rows) >= max(2, _ENOUGH * len(subject.pictures))
    shown = [*_changed(features, subject, plain_changes(seed))]
    if can_cut:
        cut = replace(subject, pictures=chosen(subject.pictures, rows))
        shown += [*_changed(features, cut, object_changes()), *_composed(features, cut, seed)]
    results: list[Result] = []
    named: list[tuple[str, Comparison]] = []
    examples: list[Example] = []
    for prompts, templates in PROMPT_SETS.items():
        told = subject.prompts(templates)
        weights = weights_of(features, told)
        as_it_is = subject.answers(plain, weights)
        case = {"varies": "", "shown": _AS_IT_IS, "counted": "right", "prompts": prompts}
        results.append(share_of(as_it_is.keys, as_it_is.correct, data=subject.data, case=case, prompts=told,
                                skipped=plain.skipped))  # fmt: skip
        for one in shown:
            then = one.subject.answers(one.found, weights)
            first = _same_rows(as_it_is, then)
            case = {"varies": one.varies, "shown": one.name, "prompts": prompts}
            for counted, happened in _counted(one, first, then):
                results.append(share_of(then.keys, happened, data=subject.data, case=case | {"counted": counted},
                                        prompts=told, skipped=one.found.skipped))  # fmt: skip
            named.append((f"right, {one.name}: {prompts}", compare_correct(first.correct, then.correct, seed=seed)))
            if prompts == "bare":
                examples += _example(one, first, then)
    return Chapter(
        name="shortcuts",
        title="What an answer follows",
        question="Does it know the object, or its background, colour, texture, or what is around it?",
        sentences=tuple(_sentences(results)),
        results=tuple(results),
        headline={"shown": _BEFORE, "counted": "right"},
        contrasts=contrasts_of(named),
        examples=tuple(examples[:: max(1, -(-len(examples) // _MOST))]),
        not_measured=tuple(_not_measured(shown, len(rows), len(subject.pictures))),
        notes=(
            "Where an object stands before another picture, only pictures on a plain ground are counted.",
            "Edges alone leave the shape, shuffled parts colour and texture: neither is as a photograph any more.",
        ),
        conditions=subject.conditions | {"cut out": f"{len(rows):,} of the pictures"},
    )  # fmt: skip


def _not_measured(shown: Sequence[_Shown], cut: int, pictures: int) -> Iterator[str]:
    names = {one.name for one in shown}
    if "silhouette" not in names:
        yield (
            f"Backgrounds, silhouettes and textures of another: the object can be cut out of {cut:,} of {pictures:,} "
            "pictures; the others have no plain ground."
        )
    elif _ITS_OWN not in names:
        yield "Objects before a picture of their own class: no class has two pictures among those drawn."


def partners(targets: np.ndarray, *, same: bool, seed: int = 0) -> list[int]:
    """For each picture another one, drawn evenly: of its own class (itself, where it is alone) or of another class.

    Args:
        targets: [n] class numbers, of two classes or more where `same` is False.
        same: whether it is of the same class.
        seed: of the draw.
    """
    rng, found = np.random.default_rng(seed), []
    for row, target in enumerate(targets.tolist()):
        candidates = ((targets == target) == same).nonzero()[0]
        others = candidates[candidates != row]
        found.append(int(others[rng.integers(len(others))]) if len(others) else row)
    return found


def _cut_out(subject: Subject) -> list[int]:
    """The pictures whose object stands on a plain ground."""
    found = []
    for index in range(len(subject.pictures)):
        with contextlib.suppress(ImageError):  # counted where the pictures are encoded
            if object_mask(subject.pictures.open(index)) is not None:
                found.append(index)
    return found


def _changed(
    features: ModelFeatures, subject: Subject, changes: Mapping[str, Mapping[str, Change]]
) -> Iterator[_Shown]:
    for varies, some in changes.items():
        for name, change in some.items():
            found = subject.shown(features, change)
            yield _Shown(varies=varies, name=name, subject=subject, change=change, found=found)


def _composed(features: ModelFeatures, cut: Subject, seed: int) -> Iterator[_Shown]:
    """Objects before pictures that go with them and against, and in the texture of others."""
    targets = cut.pictures.targets
    for varies, name, how, same in (
        ("background", _ITS_OWN, before, True),
        ("background", _BEFORE, before, False),
        ("texture", _IN_TEXTURE, in_texture, False),
    ):
        classes = len(np.unique(targets))
        if classes == len(targets) if same else classes < 2:
            continue
        others = partners(targets, same=same, seed=seed)
        change = partial(_with_partner, whole=cut.pictures, others=others, how=how)
        other = None if same else torch.tensor(targets[others])
        found = cut.shown(features, change)
        yield _Shown(varies=varies, name=name, subject=cut, change=change, found=found, other=other)


def _with_partner(
    picture: Image.Image,
    index: int,
    whole: LabelledImages,
    others: Sequence[int],
    how: Callable[[Image.Image, Image.Image], Image.Image],
) -> Image.Image:
    return how(picture, whole.open(others[index]))


def _same_rows(whole: Answers, some: Answers) -> Answers:
    """Those of all answers that are of the same pictures."""
    row_of = {key: row for row, key in enumerate(whole.keys)}
    rows = [row_of[key] for key in some.keys]
    return Answers(
        keys=some.keys,
        targets=whole.targets[rows],
        predictions=whole.predictions[rows],
        correct=whole.correct[rows],
    )


def _counted(one: _Shown, first: Answers, then: Answers) -> Iterator[tuple[str, Tensor]]:
    yield "right", then.correct
    yield "answer changed", then.predictions != first.predictions
    if one.other is not None:
        yield "follows the other", then.predictions == one.other[list(one.found.kept)]


def _example(one: _Shown, first: Answers, then: Answers) -> list[Example]:
    """The first picture that was right before and is not now."""
    names = [some[0] for some in one.subject.names]
    return [
        example(
            then.keys[row],
            f"{names[int(first.targets[row])]}, {one.name}: called {names[int(then.predictions[row])]}",
            changed(one.subject.pictures, one.change).open(one.found.kept[row]),
        )
        for row in few(first.correct & ~then.correct)[:1]
    ]


def _sentences(results: Sequence[Result]) -> Iterator[str]:
    found = {(one.case["shown"], one.case["counted"]): one for one in results if one.case["prompts"] == "bare"}
    base = found[_AS_IT_IS, "right"]
    fallen = sorted((one for one in found.values() if one.case["counted"] == "right"), key=lambda one: one.value)[:3]
    worst = "; ".join(f"{one.case['shown']} ({said(one)})" for one in fallen if one is not base)
    yield f"Right as they are: {said(base)}. Least is left with {worst}."
    for name, what in ((_BEFORE, "the picture behind"), (_IN_TEXTURE, "the texture")):
        if (name, "right") in found:
            object_, other = said(found[name, "right"]), said(found[name, "follows the other"])
            yield f"{name[0].upper()}{name[1:]}, its answer follows the object in {object_} and {what} in {other}."
    frames = [
        one for one in found.values() if one.case["varies"] in ("border", "mark") and one.case["counted"] != "right"
    ]
    most = max(frames, key=lambda one: one.value)
    yield f"Of frames and marks, {most.case['shown']} changes most answers: {said(most)}."
