"""The same pictures and classes, asked about in many wordings: how much an answer hangs on the words around it.

Source: CLIP, arXiv:2103.00020, sections 3.1.4 and 6, which names the choice of prompts as a matter of trial and error.
The wordings are data, in `wordings.toml`. Letters: n pictures, W wordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diptych.audit.answers import Answers, Subject, example, few, subject_of, weights_of
from diptych.config import from_dict, read_toml
from diptych.data.prompts import check_templates, with_article
from diptych.errors import DataError
from diptych.eval.chapter import Chapter, contrasts_of, mean_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import DataId, Result
from diptych.eval.tasks import Prompts
from diptych.measures.compare import compare_correct
from diptych.sets.labelled import LabelledImages

NameChange = Literal["as it is", "capitals", "title", "plural", "swapped letters", "lost letter", "doubled letter"]
_HARD = ("typo", "language")  # what no model is expected to bear
_SHIPPED = Path(__file__).with_name("wordings.toml")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One way to ask: a template, and what becomes of class names before they go into it."""

    kind: str  # what is varied: "template", "article", "typo", ...
    template: str
    name: NameChange = "as it is"
    article: bool = False  # whether "a" before the gap becomes "an" before a vowel

    @property
    def title(self) -> str:
        changed = [self.name] * (self.name != "as it is") + ["an where it belongs"] * self.article
        return self.template + (f" ({', '.join(changed)})" if changed else "")


@dataclass(frozen=True, kw_only=True)
class WordingTable:
    """A file of wordings."""

    wording: tuple[Wording, ...]


def read_wordings(path: Path = _SHIPPED) -> tuple[Wording, ...]:
    """The wordings of a file, of which the first is the one to compare with.

    Raises:
        DataError: a template has no gap, or there are fewer than two wordings, or two of them are one.
        ConfigError: the file is no such table.
    """
    found = from_dict(WordingTable, read_toml(path)).wording
    if len({one.title for one in found}) < max(2, len(found)):
        raise DataError(f"{path} must hold two wordings or more, none of them twice. It does not.")
    check_templates([one.template for one in found])
    return found


def worded(name: str, change: NameChange, *, seed: int = 0) -> str:
    """A class name as a wording has it; a typo falls on the same letter of the same name each time.

    >>> worded("wolf", "plural")
    'wolves'
    """
    match change:
        case "as it is":
            return name
        case "capitals":
            return name.upper()
        case "title":
            return name.title()
        case "plural":
            return _plural(name)
        case _:
            return _mistyped(name, change, seed)


def wording(
    features: ModelFeatures,
    data: LabelledImages,
    *,
    pictures: int = 300,
    wordings: Sequence[Wording] | None = None,
    seed: int = 0,
) -> Chapter:
    """Accuracy over wordings: mean, worst, spread, and how often an answer changes with the wording alone.

    Args:
        features: of the model.
        data: labelled pictures.
        pictures: how many are drawn.
        wordings: those that ship by default; the first is the base.
        seed: of the pictures, typos and intervals.

    Raises:
        DataError: no picture can be read, or all are of one class.
    """
    subject = subject_of(data, pictures, seed=seed)
    found, asked = features.pictures(subject.pictures), wordings or read_wordings()
    told = [_prompts(subject, one, seed) for one in asked]
    answers = [subject.answers(found, weights_of(features, prompts)) for prompts in told]
    base = answers[0]
    each = [
        share_of(base.keys, one.correct, case={"wording": how.title, "varies": how.kind}, prompts=prompts,
                 data=subject.data, skipped=found.skipped)
        for how, one, prompts in zip(asked, answers, told, strict=True)
    ]  # fmt: skip
    predictions = torch.stack([one.predictions for one in answers])  # [W, n]
    plain = [number for number, how in enumerate(asked) if how.kind not in _HARD]
    over_all = _over(range(len(asked)), "all", each, answers, subject.data, seed)
    over_plain = _over(plain, "plain English", each, answers, subject.data, seed) if len(plain) > 1 else ()
    contrasts = contrasts_of(
        [
            (f"{how.title} against {asked[0].title}", compare_correct(base.correct, one.correct, seed=seed))
            for how, one in zip(asked[1:], answers[1:], strict=True)
        ]
    )
    worst, best = min(each, key=lambda one: one.value), max(each, key=lambda one: one.value)
    lower = [one for one in contrasts if one.is_significant and one.comparison.difference < 0]
    return Chapter(
        name="wording",
        title="Prompt sensitivity",
        question="How much does an answer hang on the words around the class name?",
        sentences=(
            *([_sentence("correct English wordings", over_plain)] if over_plain else []),
            _sentence("wordings, with typos and other languages" if over_plain else "wordings", over_all),
            f"The worst wording is {worst.case['wording']!r}, {said(worst)}; the best {best.case['wording']!r}, "
            f"{said(best)}. {len(lower)} of {len(contrasts)} are significantly worse than {asked[0].title!r}.",
        ),
        results=(*over_plain, *over_all, *each),
        contrasts=contrasts,
        examples=tuple(
            example(base.keys[row], _told(subject, predictions[:, row]), subject.pictures.open(found.kept[row]))
            for row in few(base.correct & (predictions != base.predictions).any(dim=0))
        ),
        notes=(
            "The best of many wordings is chosen by looking: it flatters a model that is measured with it.",
            "Class names stay English where the template is of another language.",
        ),
        conditions=subject.conditions
        | {
            "wordings": str(len(asked)),
            "compared with": asked[0].title,
            "texts that were cut": f"{sum(features.too_long(prompts.sentences) for prompts in told):,}",
        },
    )


def _over(
    which: Sequence[int], varies: str, each: Sequence[Result], answers: Sequence[Answers], data: DataId, seed: int
) -> tuple[Result, Result, Result]:
    """The mean over some wordings, the share of pictures whose answer changes among them, and of those always right."""
    some = [each[number] for number in which]
    keys, prompts, skipped = answers[0].keys, some[0].prompts, some[0].skipped
    correct = torch.stack([answers[number].correct for number in which])  # [W, n]
    predictions = torch.stack([answers[number].predictions for number in which])
    best, worst = max(one.value for one in some), min(one.value for one in some)
    numbers = {"best": best, "worst": worst, "spread": best - worst}
    mean = mean_of(keys, correct.double().mean(dim=0), data=data, case={"wording": "mean", "varies": varies},
                   prompts=prompts, numbers=numbers, skipped=skipped, seed=seed)  # fmt: skip
    differs, always = (
        share_of(keys, happened, data=data, case={"wording": what, "varies": varies}, prompts=prompts, skipped=skipped)
        for what, happened in (
            ("answer changes", (predictions != predictions[0]).any(dim=0)),
            ("right in each", correct.all(dim=0)),
        )
    )
    return mean, differs, always


def _sentence(what: str, found: tuple[Result, Result, Result]) -> str:
    mean, differs, always = found
    return (
        f"Over {what}, accuracy goes from {mean.numbers['worst']:.1%} to {mean.numbers['best']:.1%}, a spread of "
        f"{100 * mean.numbers['spread']:.1f} points around {said(mean)}; with the wording alone the answer changes for "
        f"{said(differs)} of the pictures, and {said(always)} are right in each."
    )


def _prompts(subject: Subject, how: Wording, seed: int) -> Prompts:
    names = tuple(tuple(worded(name, how.name, seed=seed) for name in some) for some in subject.names)
    if how.article:
        # The gap takes the article with it: "a photo of a {}." becomes "a photo of {}." and "an apple".
        template = how.template.replace("a {}", "{}")
        articled = tuple(tuple(map(with_article, some)) for some in names)
        return subject.prompts((template,), articled)
    return subject.prompts((how.template,), names)


def _told(subject: Subject, predictions: Tensor) -> str:
    """What a picture is called in the base wording, and in others."""
    base, *others = [subject.names[number][0] for number in dict.fromkeys(predictions.tolist())]
    return f"{base}; in other wordings {', '.join(others[:3])}"


def _plural(name: str) -> str:
    """By the rules for regular nouns; good enough for a probe of wording."""
    lower = name.casefold()
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return f"{name}es"
    if lower.endswith("y") and not lower.endswith(("ay", "ey", "oy", "uy")):
        return f"{name[:-1]}ies"
    if lower.endswith(("lf", "af", "ife")):
        return f"{name.removesuffix('e')[:-1]}ves"
    return f"{name}s"


def _mistyped(name: str, change: NameChange, seed: int) -> str:
    """One letter that is not the first of its word; names that have none stay as they are."""
    inner = [at for at in range(1, len(name)) if name[at].isalpha() and name[at - 1].isalpha()]
    if change == "swapped letters":
        inner = [at for at in inner if at >= 2 and name[at - 2].isalpha() and name[at] != name[at - 1]] or inner
    if not inner:
        return name
    at = inner[int(np.random.default_rng([seed, *name.encode()]).integers(len(inner)))]
    match change:
        case "swapped letters":
            return name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :]
        case "lost letter":
            return name[:at] + name[at + 1 :]
        case _:
            return name[:at] + name[at] + name[at:]
