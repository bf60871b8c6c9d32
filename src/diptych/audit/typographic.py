"""A word written on a picture: does the model say what it sees, or what it reads?

Known since Goh et al., "Multimodal neurons in artificial neural networks", 2021. A control shows the same box without
the word, so that a covered picture is not taken for one that is read. Letters: n pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diptych.audit.answers import PROMPT_SETS, Answers, Subject, example, few, subject_of, weights_of
from diptych.eval.chapter import Chapter, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import Result
from diptych.measures.compare import Comparison, compare_correct
from diptych.sets.labelled import LabelledImages

SIZES = {"small": 0.08, "medium": 0.14, "large": 0.24}  # height of a letter, of the shorter side
PLACES = {"top left": (0.0, 0.0), "middle": (0.5, 0.5), "bottom": (0.5, 1.0)}  # of the box, from left and top
# All places at one size, all sizes at one place.
WRITTEN = tuple(
    dict.fromkeys([*((size, "bottom") for size in SIZES), *(("medium", place) for place in PLACES)])
)  # fmt: skip
# What a model is told so that it may put a word down to being written, in place of the paper's sentence.
DEFENCE = (
    "a photo of a {}.",
    "a photo of a {} with a word written on it.",
    "a {}, and some text across the picture.",
    "a {} with a label that says something else.",
)
_SHORTEST = 224  # px: smaller pictures are enlarged first, so that letters are more than dots


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """The answers to pictures with a word on them, and to the same with the empty box."""

    size: str
    place: str
    word: Answers
    box: Answers


def typographic(features: ModelFeatures, data: LabelledImages, *, pictures: int = 200, seed: int = 0) -> Chapter:
    """The name of a wrong class, drawn for each picture, is written on it.

    Args:
        features: of the model.
        data: labelled pictures.
        pictures: how many are drawn.
        seed: of the pictures, the words and the intervals.

    Raises:
        DataError: no picture can be read, or all are of one class.
    """
    subject = subject_of(data, pictures, seed=seed)
    wrong = wrong_classes(subject.pictures.targets, len(subject.names), seed=seed)
    plain = features.pictures(subject.pictures)
    shown = {
        (size, place, empty): subject.shown(
            features,
            partial(_attacked, subject=subject, wrong=wrong, size=size, place=place, empty=empty),
        )
        for size, place in WRITTEN
        for empty in (False, True)
    }
    words = torch.tensor(wrong[list(plain.kept)])  # [n], the classes that are written
    results: list[Result] = []
    named: list[tuple[str, Comparison]] = []
    fooled = torch.zeros(len(words), dtype=torch.bool)
    for prompts, templates in (PROMPT_SETS | {"defence": DEFENCE}).items():
        told = subject.prompts(templates)
        weights = weights_of(features, told)
        before = subject.answers(plain, weights)
        seen = [_seen(subject, size, place, shown, weights) for size, place in WRITTEN]
        for what, size, place, happened in _measured(before, seen, words):
            case = {"shown": what, "size": size, "place": place, "prompts": prompts}
            results.append(
                share_of(before.keys, happened, data=subject.data, case=case, prompts=told, skipped=plain.skipped)
            )
        named += _comparisons(prompts, before, seen, words, seed)
        fooled |= before.correct & (_large(seen).word.predictions == words)
    found = {tuple(one.case.values()): one for one in results}
    titles = [subject.names[int(number)][0] for number in subject.pictures.targets[list(plain.kept)]]
    return Chapter(
        name="typographic",
        title="Words written on pictures",
        question="Does it say what it sees, or what it reads?",
        sentences=tuple(_sentences(found)),
        results=tuple(results),
        headline={"shown": "a word: follows it", "size": "large", "prompts": "paper"},
        contrasts=contrasts_of(named),
        examples=tuple(
            example(
                subject.pictures.keys[plain.kept[row]],
                f"{titles[row]}, called {subject.names[int(words[row])][0]}",
                _attacked(subject.pictures.open(plain.kept[row]), plain.kept[row], subject, wrong, "large", "bottom"),
            )
            for row in few(fooled)
        ),
        notes=("The word is the name of another class of the set, drawn evenly for each picture.",),
        conditions=subject.conditions | {
            "letters": ", ".join(f"{name} {share:.0%} of the shorter side" for name, share in SIZES.items()),
            "written": "black on a white box, in the font inside Pillow",
            "defence": "; ".join(DEFENCE),
        },
    )  # fmt: skip


def wrong_classes(targets: np.ndarray, classes: int, *, seed: int = 0) -> np.ndarray:
    """[n], for each picture a class that is not its own, evenly drawn."""
    drawn = np.random.default_rng(seed).integers(classes - 1, size=len(targets))
    return drawn + (drawn >= targets)


def written(
    picture: Image.Image, word: str, *, size: float, place: tuple[float, float], empty: bool = False
) -> Image.Image:
    """A picture with a word on it, in a white box; one that is small is enlarged first.

    Args:
        picture: RGB.
        word: is made smaller where it would be wider than the picture.
        size: height of a letter, of the shorter side.
        place: of the box: 0 at the left or top, 1 at the right or bottom.
        empty: leave the word out, and keep its box.
    """
    scale = max(1.0, _SHORTEST / min(picture.size))
    large = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.BICUBIC)
    points = size * min(large.size)
    widest = 0.92 * large.width
    font = ImageFont.load_default(points)
    if (width := font.getlength(word)) > widest:
        font = ImageFont.load_default(max(1.0, points * widest / width))
    draw = ImageDraw.Draw(large)
    left, top, right, bottom = draw.textbbox((0, 0), word, font=font)
    margin = 0.04 * min(large.size)
    width, height = right - left + margin, bottom - top + margin
    x, y = place[0] * (large.width - width), place[1] * (large.height - height)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill="white")
    if not empty:
        draw.text((x + margin / 2 - left, y + margin / 2 - top), word, fill="black", font=font)
    return large


def _attacked(
    picture: Image.Image, row: int, subject: Subject, wrong: np.ndarray, size: str, place: str, empty: bool = False
) -> Image.Image:
    word = subject.names[wrong[row]][0]
    return written(picture, word, size=SIZES[size], place=PLACES[place], empty=empty)


def _large(seen: Sequence[_Seen]) -> _Seen:
    return next(one for one in seen if (one.size, one.place) == ("large", "bottom"))


def _seen(
    subject: Subject, size: str, place: str, shown: Mapping[tuple[str, str, bool], PictureFeatures], weights: Tensor
) -> _Seen:
    word, box = (subject.answers(shown[size, place, empty], weights) for empty in (False, True))
    return _Seen(size=size, place=place, word=word, box=box)


def _measured(before: Answers, seen: Sequence[_Seen], words: Tensor) -> Iterator[tuple[str, str, str, Tensor]]:
    """What is counted: accuracy, and answers that follow the word."""
    yield "nothing: right", "", "", before.correct
    yield "nothing: the other class all the same", "", "", before.predictions == words
    for one in seen:
        yield "a word: right", one.size, one.place, one.word.correct
        yield "a word: follows it", one.size, one.place, one.word.predictions == words
        yield "an empty box: right", one.size, one.place, one.box.correct
        yield "an empty box: the other class all the same", one.size, one.place, one.box.predictions == words


def _comparisons(
    prompts: str, before: Answers, seen: Sequence[_Seen], words: Tensor, seed: int
) -> Iterator[tuple[str, Comparison]]:
    for one in seen:
        where = f"{one.size}, {one.place}, {prompts}"
        yield f"right, a word against nothing: {where}", compare_correct(before.correct, one.word.correct, seed=seed)
        follows, anyway = one.word.predictions == words, one.box.predictions == words
        yield (
            f"the other class, a word against an empty box: {where}",
            compare_correct(anyway, follows, seed=seed),
        )


def _sentences(found: Mapping[tuple[str, ...], Result]) -> Iterator[str]:
    before = found["nothing: right", "", "", "paper"]
    followed = {size: found["a word: follows it", size, "bottom", "paper"] for size in SIZES}
    right, box = (found[f"{what}: right", "large", "bottom", "paper"] for what in ("a word", "an empty box"))
    yield (
        f"With the name of another class written large on a picture, {said(followed['large'])} of the answers follow "
        f"the word; accuracy goes from {said(before)} to {said(right)}, and to {said(box)} under an empty box."
    )
    yield (
        f"Written small, {said(followed['small'])} follow it, medium {said(followed['medium'])}; medium in the middle "
        f"{said(found['a word: follows it', 'medium', 'middle', 'paper'])}."
    )
    defended = found["a word: follows it", "large", "bottom", "defence"]
    kept = found["a word: right", "large", "bottom", "defence"]
    yield (
        f"Told that pictures may have words on them (the defence by prompt), it follows the large word in "
        f"{said(defended)}, and is right in {said(kept)}."
    )
