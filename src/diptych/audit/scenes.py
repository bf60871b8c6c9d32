"""Abstract and systematic tasks on drawn scenes: what a model makes of relations, counts, negation and word order.

The scenes are those of `diptych.sets.scene_tasks`, whose captions alone tell nothing. Beside each number stand chance,
an ideal observer's, and that of an observer who knows which words are true of a picture, but not their order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diptych.audit.answers import example, few
from diptych.eval.chapter import Chapter, Example, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import score_pictures
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import DataId, Result
from diptych.measures.compare import Comparison, compare_correct, compare_shares
from diptych.sets.choices import ChoiceImages
from diptych.sets.scene_tasks import MATERIALS, SCENE_TASKS, Change, Material, scene_choices, scene_counts

# Captions are whole noun phrases: "a dog to the left of a cat".
CAPTION_PROMPTS = {"bare": "{}", "paper": "a photo of {}."}
DIFFERS: dict[Change, str] = {"name": "a name", "word": "an opposite word", "order": "the order alone"}
# Whether an observer without word order can tell: of "left of" and "right of" both are true of a picture of two things.
_BOTH_TRUE = ("left-right", "above-below", "size")
_SEVERAL = 5  # things, from which on a count is no glance


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """Captions chosen right or wrong, by one prompt, of one task."""

    task: str
    material: str
    change: Change
    prompts: str
    result: Result  # whose rows are those of the change; of a pair of scenes one after the other


def scenes(
    features: ModelFeatures, *, pairs: int = 50, counts: int = 200, given: Sequence[ChoiceImages] = (), seed: int = 0
) -> Chapter:
    """All tasks on drawn scenes, and sets of right and wrong captions that are given, such as SugarCrepe or ARO.

    Args:
        features: of the model.
        pairs: of scenes, for each task, material and change of the caption.
        counts: scenes of one to ten things, of each material.
        given: other sets to choose captions on.
        seed: of the scenes and the intervals.

    Raises:
        DataError: no picture of a given set can be read.
    """
    asked = [
        one for task in SCENE_TASKS for material in MATERIALS for one in _drawn(features, task, material, pairs, seed)
    ]
    counted = [one for material in MATERIALS for one in _counting(features, material, counts, seed)]
    others = [one for choices in given for one in _given(features, choices, seed)]
    pooled = [_pooled(asked, change, prompts) for prompts in CAPTION_PROMPTS for change in DIFFERS]
    by = {(one.case["differs in"], one.case["prompts"]): one for one in pooled}
    contrasts = contrasts_of(
        [
            (f"{DIFFERS['order']} against {DIFFERS[change]}, {prompts}", _unpaired(by[DIFFERS[change], prompts],
                                                                                by[DIFFERS["order"], prompts]))
            for prompts in CAPTION_PROMPTS for change in ("name", "word")
        ] + [
            (f"{one.task}, {one.material}, {DIFFERS[one.change]}: {one.prompts} against chance", _against_chance(one))
            for one in asked if one.prompts == "bare"
        ]
    )  # fmt: skip
    return Chapter(
        name="scenes",
        title="Counts, relations, negation, order of words",
        question="Does it see how things stand to each other, or only which things there are?",
        sentences=tuple(_sentences(by, counted, asked)),
        results=(*pooled, *counted, *(one.result for one in asked), *others),
        contrasts=contrasts,
        examples=tuple(_examples(asked, pairs, seed)),
        not_measured=()
        if given
        else (
            "SugarCrepe and ARO: give their folders (--choices of `diptych audit`, --data of `diptych audit scenes`).",
        ),
        notes=(
            "Of a pair of scenes the wrong caption of one is the right one of the other: who does not look at the "
            "picture is right on half of the scenes, and on both of a pair never.",
            "Without word order means: knows which words are true of a picture. Such an observer guesses where the "
            "words are the same, and where both opposites are true (left of, right of).",
            "A tie is a miss: a text tower that adds up words, and so cannot tell orders apart, gets none of them.",
            "Scenes are simple and drawn: who fails here may know more of photographs, and the other way round.",
        ),
        conditions={"pairs": f"{pairs} of each task, material and change", "counting": f"{counts} of each material"},
    )


def _drawn(features: ModelFeatures, task: str, material: Material, pairs: int, seed: int) -> Iterator[_Asked]:
    choices = scene_choices(task, material, pairs=pairs, seed=seed)
    encoded = features.pictures(choices)
    for prompts, template in CAPTION_PROMPTS.items():
        whole = score_pictures(features, choices, encoded, templates=(template,), seed=seed)
        for change in dict.fromkeys(choices.kinds):
            changed: Change = change  # pyright: ignore[reportAssignmentType]  # what `scene_choices` wrote
            result = _part(whole, choices, encoded, change, {
                "task": task, "shown": material, "differs in": DIFFERS[changed], "prompts": prompts,
            }, _beside(task, changed))  # fmt: skip
            correct = result.rows.correct
            assert correct is not None
            both = (correct[::2] & correct[1::2]).double().mean().item()  # what no reader of captions alone gets
            result = replace(result, numbers={**result.numbers, "both of a pair": both})
            yield _Asked(task=task, material=material, change=changed, prompts=prompts, result=result)


def _beside(task: str, change: Change) -> dict[str, float]:
    guesses = change == "order" or (change == "word" and task in _BOTH_TRUE)
    return {"chance": 0.5, "without word order": 0.5 if guesses else 1.0, "ideal": 1.0}


def _part(
    whole: Result,
    choices: ChoiceImages,
    encoded: PictureFeatures,
    kind: str,
    case: dict[str, str],
    numbers: dict[str, float],
) -> Result:
    """The choices of one kind."""
    readable = set(encoded.kept)
    kinds = [one for one, image in zip(choices.kinds, choices.image_of.tolist(), strict=True) if image in readable]
    rows = whole.rows.chosen([row for row, one in enumerate(kinds) if one == kind])
    assert rows.correct is not None
    return share_of(rows.keys, rows.correct, data=whole.data, case=case, prompts=whole.prompts, numbers=numbers,
                    skipped=whole.skipped)  # fmt: skip


def _given(features: ModelFeatures, choices: ChoiceImages, seed: int) -> Iterator[Result]:
    """Each kind of a set that others made; same words, other order, is counted there, not known beforehand."""
    encoded = features.pictures(choices)
    for prompts, template in CAPTION_PROMPTS.items():
        whole = score_pictures(features, choices, encoded, templates=(template,), seed=seed)
        for kind in sorted(set(choices.kinds)):
            same = [
                sorted(right.casefold().split()) == sorted(wrong.casefold().split())
                for right, wrong, one in zip(choices.right, choices.wrong, choices.kinds, strict=True)
                if one == kind
            ]
            case = {"task": choices.name, "shown": "as given", "differs in": kind, "prompts": prompts}
            numbers = {"chance": 0.5, "same words": float(np.mean(same))}
            yield _part(whole, choices, encoded, kind, case, numbers)


def _counting(features: ModelFeatures, material: Material, counts: int, seed: int) -> Iterator[Result]:
    """How often the number is right, how often it is off by one at most, of few things and of many."""
    drawn = scene_counts(material, count=counts, seed=seed)
    encoded = features.pictures(drawn)
    for prompts, template in CAPTION_PROMPTS.items():
        whole = score_pictures(features, drawn, encoded, templates=(template,), seed=seed)
        rows = whole.rows
        assert rows.correct is not None
        assert rows.targets is not None
        assert rows.predictions is not None
        near = (rows.predictions - rows.targets).abs() <= 1
        few_things = rows.targets < _SEVERAL - 1
        classes = len(drawn.classnames)
        guess_near = float(np.mean([min(n + 1, classes - 1) - max(n - 1, 0) + 1 for n in range(classes)])) / classes
        for what, some, happened, chance in (
            ("the number", torch.ones_like(near), rows.correct, 1 / classes),
            ("off by one at most", torch.ones_like(near), near, guess_near),
            (f"the number, below {_SEVERAL} things", few_things, rows.correct, 1 / classes),
            (f"the number, from {_SEVERAL} things", ~few_things, rows.correct, 1 / classes),
        ):
            if some.any():
                yield share_of(
                    [rows.keys[row] for row in some.nonzero().flatten().tolist()],
                    happened[some],
                    data=whole.data,
                    case={"task": "counting", "shown": material, "differs in": what, "prompts": prompts},
                    prompts=whole.prompts,
                    numbers={"chance": chance, "ideal": 1.0},
                )


def _pooled(asked: Sequence[_Asked], change: Change, prompts: str) -> Result:
    """All tasks together, for one kind of wrong caption."""
    some = [one for one in asked if (one.change, one.prompts) == (change, prompts)]
    rows = [one.result.rows for one in some]
    numbers = {
        name: float(np.mean([one.result.numbers[name] for one in some]))
        for name in ("chance", "without word order", "ideal")
    }
    return share_of(
        [f"{one.result.data.name}/{key}" for one in some for key in one.result.rows.keys],
        torch.cat([one.correct for one in rows if one.correct is not None]),
        data=DataId(name="scenes", split="test"),
        case={"task": "all", "shown": "all", "differs in": DIFFERS[change], "prompts": prompts},
        prompts=some[0].result.prompts,
        numbers=numbers,
    )


def _unpaired(a: Result, b: Result) -> Comparison:
    return compare_shares(round(a.value * a.n), a.n, round(b.value * b.n), b.n)


def _against_chance(asked: _Asked) -> Comparison:
    """The model against one that always takes the caption of a pair's first scene, and so is right on half."""
    correct = asked.result.rows.correct
    assert correct is not None
    return compare_correct(torch.arange(len(correct)) % 2 == 0, correct)


def _sentences(by: dict[tuple[str, str], Result], counted: Sequence[Result], asked: Sequence[_Asked]) -> Iterator[str]:
    for prompts in CAPTION_PROMPTS:
        name, word, order = (by[DIFFERS[change], prompts] for change in ("name", "word", "order"))
        yield (
            f"Captions that differ in a name are told apart in {said(name)} of the scenes, those of the same words in "
            f"another order in {said(order)}, and those with an opposite word in {said(word)} ({prompts} captions; "
            "chance 50 %): the gap between the first two is how far it knows which words belong to a picture better "
            f"than how things stand in it, {100 * (name.value - order.value):.1f} points."
        )
    for one in counted:
        if one.case["differs in"] == "the number" and one.case["prompts"] == "bare":
            yield (
                f"Counting {one.case['shown']} from one to ten it gives {said(one)} rightly; chance is "
                f"{one.numbers['chance']:.0%}."
            )
    bare = sorted((one for one in asked if one.prompts == "bare"), key=lambda one: one.result.value)
    yield "Worst: " + "; ".join(
        f"{one.task} of {one.material}, {DIFFERS[one.change]}: {said(one.result)}" for one in bare[:3]
    ) + "."  # fmt: skip


def _examples(asked: Sequence[_Asked], pairs: int, seed: int) -> Iterator[Example]:
    """One failure of each task on drawings."""
    for task in asked:
        if task.prompts != "bare" or task.material != "drawings":
            continue
        rows = task.result.rows
        assert rows.correct is not None
        for row in few(~rows.correct)[:1]:
            choices = scene_choices(task.task, "drawings", pairs=pairs, seed=seed)
            number = choices.kinds.index(task.change) + row
            caption = f"it fits {choices.wrong[number]!r} better than {choices.right[number]!r}"
            yield example(rows.keys[row], caption, choices.open(number))
