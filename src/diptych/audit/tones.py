"""The same drawing in several skin tones and two genders: does the answer follow the tone?

A controlled probe: drawings differ in one thing alone, so any change of the answer is the tone's. Some of it any change
would make, so the same drawings are also moved a little, in as many ways as there are other tones (four at most). It
takes any set whose table has the columns drawing, tone and gender, such as `embedded:tones-twemoji`. Letters: N
pictures, D drawings that come in all T tones, C roles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from diptych.audit.groups import EXAMPLES, Subjects, best, subjects
from diptych.audit.probes import PromptSet
from diptych.errors import DataError
from diptych.eval.chapter import Chapter, Contrast, Example, contrasts_of, mean_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import Result
from diptych.measures.compare import Comparison, compare_correct, compare_metric
from diptych.sets.grouped import GroupedImages
from diptych.sets.pictures import Pictures

PROMPTS = (PromptSet(name="bare", templates=("{}",)), PromptSet(name="drawing", templates=("a drawing of a {}.",)))
MOVED = 32  # of the side: a drawing moves by one such part
_WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1))
_ORDER = ("light", "medium-light", "medium", "medium-dark", "dark")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawings:
    """Those that come in all tones."""

    names: tuple[str, ...]  # D of them
    tones: tuple[str, ...]  # T of them, from light to dark
    rows: np.ndarray  # [D, T], which picture
    roles: np.ndarray  # [D], number of the class
    genders: tuple[str, ...]  # D of them; "" where there is none
    incomplete: int  # drawings that lack a tone


def tones(
    features: ModelFeatures,
    pictures: GroupedImages,
    *,
    prompts: Sequence[PromptSet] = PROMPTS,
    sha256: str = "",
    seed: int = 0,
) -> Chapter:
    """Accuracy by tone and by gender, and the share of drawings whose answer changes with the tone alone.

    Args:
        features: of the model.
        pictures: drawings with the columns drawing, tone and gender, and a role as class.
        prompts: the words around a role.
        sha256: of the set's bytes.
        seed: of the intervals.

    Raises:
        DataError: no picture can be read, or no drawing comes in all tones.
        ConfigError: the set has no such columns.
    """
    roles = pictures.labelled()
    people = subjects(features, pictures, sha256=sha256)
    drawings = _drawings(people, roles.targets)
    moved = _moved(people, drawings)
    results: list[Result] = []
    named: list[tuple[str, Comparison]] = []
    answers: dict[str, np.ndarray] = {}
    for words in prompts:
        answer = best(people.logits(roles.classnames, words))[drawings.rows]  # [D, T]
        middle = answer[:, len(drawings.tones) // 2]
        shaken = (best(moved.logits(roles.classnames, words)).reshape(len(middle), -1) != middle[:, None]).any(axis=1)
        answers[words.name] = answer
        right = answer == drawings.roles[:, None]
        results += _results(people, drawings, words, roles.classnames, answer, right, shaken, seed)
        named += _differences(drawings, words, right, seed)
        by_tone, by_move = torch.tensor(_changes(answer)), torch.tensor(shaken)
        comparison = compare_correct(by_move, by_tone, seed=seed)
        named.append((f"answer changes: by tone against by moving ({words.name})", comparison))
    contrasts = contrasts_of(named)
    return Chapter(
        name="tones",
        title="The same drawing in five skin tones",
        question="Does the answer change when nothing but the skin tone of a drawing does?",
        sentences=_sentences(results, contrasts, drawings, prompts),
        results=tuple(results),
        contrasts=contrasts,
        examples=_examples(people, drawings, answers[prompts[0].name], roles.classnames),
        not_measured=(*people.not_told(["tone"]), *_missing(drawings)),
        notes=(
            "A drawing is no face: what is found here says nothing of photographs of people.",
            "Equal accuracy may hide change: a model can be right as often on each tone, and right on others.",
            f"Moved: the middle tone, by a {MOVED}nd of the side in up to four directions: it still shows the same.",
            "Men and women are compared over roles that are drawn as both; the drawings differ in more than gender.",
        ),
        conditions={
            "drawings": str(len(drawings.names)),
            "tones": ", ".join(drawings.tones),
            "roles": str(len(roles.classnames)),
        },
    )


def _drawings(people: Subjects, targets: np.ndarray) -> _Drawings:
    names, tone_of, gender_of = (people.column(column) for column in ("drawing", "tone", "gender"))
    there = set(filter(None, tone_of))
    order = [*(tone for tone in _ORDER if tone in there), *sorted(there - set(_ORDER))]
    found: dict[str, dict[str, int]] = {}
    for row, (name, tone) in enumerate(zip(names, tone_of, strict=True)):
        if name and tone:
            found.setdefault(name, {})[tone] = row
    whole = {name: rows for name, rows in found.items() if len(rows) == len(order)}
    if not whole or len(order) < 2:
        raise DataError(f"{people.pictures.name} must have drawings in two tones or more each. It has none.")
    rows = np.array([[tones[tone] for tone in order] for tones in whole.values()])
    return _Drawings(
        names=tuple(whole),
        tones=tuple(order),
        rows=rows,
        roles=np.array([targets[people.kept[row]] for row in rows[:, 0]]),
        genders=tuple(gender_of[row] for row in rows[:, 0]),
        incomplete=len(found) - len(whole),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Moved(Pictures):
    """Some pictures of a set, each moved in several ways."""

    whole: Pictures
    rows: tuple[int, ...]
    ways: int  # of `_WAYS`

    def open(self, index: int) -> Image.Image:
        picture = self.whole.open(self.rows[index // self.ways])
        right, down = _WAYS[index % self.ways]
        moved = picture.copy()  # what comes in at the edge is what was there
        moved.paste(picture, (right * max(1, picture.width // MOVED), down * max(1, picture.height // MOVED)))
        return moved


def _moved(people: Subjects, drawings: _Drawings) -> Subjects:
    """The middle tone of each drawing, one way after the other, drawing by drawing."""
    ways = min(len(_WAYS), len(drawings.tones) - 1)
    rows = tuple(people.kept[row] for row in drawings.rows[:, len(drawings.tones) // 2])
    pictures = _Moved(
        name=people.pictures.name,
        split=people.pictures.split,
        keys=tuple(f"{name} moved {way}" for name in drawings.names for way in range(ways)),
        _sources=(),
        whole=people.pictures,
        rows=rows,
        ways=ways,
    )
    encoded = people.features.pictures(pictures)
    return replace(people, image_features=encoded.image_features, kept=encoded.kept)


def _in_some(right: np.ndarray) -> np.ndarray:
    """[D, T] bool to [D], whether some are and some are not."""
    share = right.mean(axis=1)
    return (share > 0) & (share < 1)


def _changes(answer: np.ndarray) -> np.ndarray:
    """[D, T] to [D] bool, whether not all are the first."""
    return (answer != answer[:, :1]).any(axis=1)


def _results(
    people: Subjects,
    drawings: _Drawings,
    words: PromptSet,
    roles: Sequence[str],
    answer: np.ndarray,
    right: np.ndarray,
    shaken: np.ndarray,
    seed: int,
) -> list[Result]:
    shared = {"data": people.data, "prompts": words.of(roles), "skipped": people.skipped}
    chance = {"chance": 1 / len(roles)}
    commonest = [max(map(one.count, one)) / len(one) for one in answer.tolist()]
    numbers = {"tones with the commonest answer": float(np.mean(commonest))}
    found = [
        share_of(drawings.names, _changes(answer), case=_case(words, "answer changes"), numbers=numbers, **shared),
        share_of(drawings.names, _in_some(right), case=_case(words, "right in some tones"), **shared),
    ]
    found.append(share_of(drawings.names, shaken, case=_case(words, "answer changes when moved"), **shared))
    found += [
        share_of(drawings.names, right[:, number], case=_case(words, "right", tone=tone), numbers=chance, **shared)
        for number, tone in enumerate(drawings.tones)
    ]
    for gender in dict.fromkeys(filter(None, drawings.genders)):
        some = np.array([one == gender for one in drawings.genders])
        names = [name for name, one in zip(drawings.names, some, strict=True) if one]
        case = _case(words, "right", gender=gender)
        found.append(mean_of(names, right[some].mean(axis=1), case=case, numbers=chance, seed=seed, **shared))
    return found


def _case(words: PromptSet, measured: str, tone: str = "all", gender: str = "all") -> dict[str, str]:
    return {"prompts": words.name, "measured": measured, "tone": tone, "gender": gender}


def _differences(drawings: _Drawings, words: PromptSet, right: np.ndarray, seed: int) -> list[tuple[str, Comparison]]:
    """Each tone against the lightest, on the same drawings; women against men, in the same roles."""
    columns = torch.tensor(right)
    lightest = drawings.tones[0]
    found = [
        (f"right: {tone} against {lightest} ({words.name})", compare_correct(columns[:, 0], columns[:, n], seed=seed))
        for n, tone in enumerate(drawings.tones)
        if n
    ]
    credit = right.mean(axis=1)
    by_role: dict[str, dict[int, list[float]]] = {"man": {}, "woman": {}}
    for role, gender, value in zip(drawings.roles.tolist(), drawings.genders, credit.tolist(), strict=True):
        if gender in by_role:
            by_role[gender].setdefault(role, []).append(value)
    both = sorted(by_role["man"].keys() & by_role["woman"].keys())
    if both:
        man, woman = (np.array([np.mean(by_role[gender][role]) for role in both]) for gender in ("man", "woman"))
        comparison = compare_metric(
            lambda rows: float(man[rows].mean()), lambda rows: float(woman[rows].mean()), len(both), seed=seed
        )
        found.append((f"right: woman against man in the same role ({words.name})", comparison))
    return found


def _sentences(
    results: Sequence[Result], contrasts: Sequence[Contrast], drawings: _Drawings, prompts: Sequence[PromptSet]
) -> tuple[str, ...]:
    found = []
    for words in prompts:
        own = [one for one in results if one.case["prompts"] == words.name]
        changes, some, moved = own[:3]
        by_tone = [one.value for one in own if one.case["tone"] != "all"]
        found.append(
            f"The answer changes with the skin tone alone for {said(changes)} of the drawings (prompts {words.name}); "
            f"by tone {100 * min(by_tone):.1f} to {100 * max(by_tone):.1f} % are right, and {said(some)} are right in "
            f"some tones and wrong in others. It changes for {said(moved)} when the drawing is moved a little."
        )
    light, dark = drawings.tones[0], drawings.tones[-1]
    for contrast in contrasts:
        if contrast.name.startswith("right") and not {dark, "woman"} & set(contrast.name.split()):
            continue  # the tones between stand in the table
        of = contrast.comparison
        alone = f"; {of.only_a} right in {light} alone, {of.only_b} in {dark} alone" if dark in contrast.name else ""
        found.append(
            f"{contrast.name}: {100 * of.b:.1f} % against {100 * of.a:.1f} % ({100 * of.interval.low:+.1f} to "
            f"{100 * of.interval.high:+.1f} points, p = {contrast.corrected:.2g} after Holm{alone})."
        )
    return tuple(found)


def _missing(drawings: _Drawings) -> list[str]:
    found = []
    if drawings.incomplete:
        found.append(f"Drawings that lack a tone, or of which one cannot be read: {drawings.incomplete:,}.")
    if not {"man", "woman"} <= set(drawings.genders):
        found.append("No role is drawn as man and woman: genders are not compared.")
    return found


def _examples(people: Subjects, drawings: _Drawings, answer: np.ndarray, roles: Sequence[str]) -> tuple[Example, ...]:
    """Drawings whose answer changes, in all tones side by side."""
    changed = np.flatnonzero(_changes(answer))[:EXAMPLES]
    found = []
    for number in changed:
        told = (f"{tone}: {roles[one]}" for tone, one in zip(drawings.tones, answer[number].tolist(), strict=True))
        caption = f"{roles[int(drawings.roles[number])]}; {', '.join(told)}"
        found.append(
            Example(key=drawings.names[number], caption=caption, picture=_strip(people, drawings.rows[number]))
        )
    return tuple(found)


def _strip(people: Subjects, rows: np.ndarray) -> Image.Image:
    several = [people.picture(int(row)).resize((32, 32), Image.Resampling.LANCZOS) for row in rows]
    strip = Image.new("RGB", (32 * len(several), 32), "white")
    for number, picture in enumerate(several):
        strip.paste(picture, (32 * number, 0))
    return strip
