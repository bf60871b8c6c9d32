"""Limits that an audit must keep: "calibration: calibration error < 5%", for a check that a machine makes."""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

from diptych.errors import ConfigError
from diptych.eval.chapter import Audit, Chapter
from diptych.eval.result import Result

_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_FORM = re.compile(
    r"(?P<chapter>[\w-]+)\s*(:(?P<words>.*?))?(?P<sign>[<>]=?)\s*(?P<value>\d+(\.\d+)?|\.\d+)\s*(?P<percent>%?)"
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What makes an audit fail: a number of a chapter on the wrong side of a value."""

    text: str  # as it was asked for
    chapter: str
    words: tuple[str, ...]  # that all stand in a result's data, case or metric; none: every result of the chapter
    sign: str
    value: float

    def is_reached(self, result: Result) -> bool:
        return _SIGNS[self.sign](result.value, self.value)


def read_limit(text: str) -> Limit:
    """A limit as it is written: CHAPTER, or CHAPTER: WORDS, WORDS; then <, <=, > or >= and a number or a percentage.

    Raises:
        ConfigError: it is not written so.
    """
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ConfigError(
            f"a limit must be CHAPTER: WORDS > NUMBER, as in 'calibration: calibration error > 5%'. Got {text!r}."
        )
    value = float(found["value"])
    words = tuple(word.strip().casefold() for word in (found["words"] or "").split(",") if word.strip())
    return Limit(
        text=text.strip(),
        chapter=found["chapter"],
        words=words,
        sign=found["sign"],
        value=value / 100 if found["percent"] else value,
    )


def reached(audit: Audit, limits: Sequence[Limit]) -> list[str]:
    """A sentence for each number on the wrong side of a limit; none where all are kept.

    Raises:
        ConfigError: a limit is of no number of the audit: what was not measured is not passed.
    """
    sentences: list[str] = []
    for limit in limits:
        chapters = [chapter for chapter in audit.chapters if chapter.name == limit.chapter]
        concerned = [result for chapter in chapters for result in chapter.results if _is_meant(limit, result)]
        if not concerned:
            raise ConfigError(
                f"the limit {limit.text!r} must be of a number that was measured. {_there_are(chapters, audit)}"
            )
        sentences += [
            f"{limit.text}: {result.title} is {result.value:.4g}." for result in concerned if limit.is_reached(result)
        ]
    return sentences


def _is_meant(limit: Limit, result: Result) -> bool:
    said = [result.data.title, result.metric, *result.case.values()]
    return all(any(word in one.casefold() for one in said) for word in limit.words)


def _there_are(chapters: Sequence[Chapter], audit: Audit) -> str:
    if not chapters:
        return f"Chapters: {', '.join(chapter.name for chapter in audit.chapters) or 'none'}."
    cases = [", ".join((*result.case.values(), result.metric)) for result in chapters[0].results]
    return f"Numbers of {chapters[0].name}: {'; '.join(cases[:8])}{' ...' if len(cases) > 8 else ''}."
