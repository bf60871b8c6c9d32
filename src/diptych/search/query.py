"""What is searched for: words and pictures, added and taken away, each with its weight.

    query = ["+" | "-"] term {("+" | "-") term}
    term  = [number "*"] item
    item  = "words in quotes" | image:path | image:"path with spaces" | words or a path as they stand

An operator stands between spaces or beside quotes: `t-shirt` is one word, `shirt - "stripes"` two terms. An unquoted
item that ends as a picture's or a video's file does is one; a video counts as the mean of its frames.

>>> [(term.weight, term.text) for term in Query.parse('"red car" - 0.5 * truck').terms]
[(1.0, 'red car'), (-0.5, 'truck')]
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diptych.data.endings import kind_of
from diptych.data.images import ImageSource
from diptych.data.video import sample_frames
from diptych.errors import ConfigError, DataError, TextError
from diptych.files import expanded
from diptych.measures.unit_length import unit_length
from diptych.weights.dual_encoder import DualEncoder

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*\*\s*")
_PREFIX = "image:"
_SMALLEST = 1e-4  # norm of a sum of unit vectors below which its direction is rounding


@dataclass(frozen=True)
class Term:
    """One part of a query: words, or a picture; a video by its path."""

    weight: float
    text: str = ""
    image: ImageSource | None = None


@dataclass(frozen=True)
class Query:
    """A weighted sum of words and pictures.

    Args:
        terms: at least one, and one with a weight above 0.

    Raises:
        ConfigError: there is nothing to search for.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not all(math.isfinite(term.weight) for term in self.terms):
            raise ConfigError("the weights of a query must be finite numbers.")
        if not any(term.weight > 0 for term in self.terms):
            raise ConfigError(
                'a query must look for something: words or a picture with a weight above 0, e.g. "a dog".'
            )

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Read a query as it is typed; the grammar is in the docstring of this file.

        Raises:
            ConfigError: it is empty, a quote does not end, or an operator has nothing behind it.
            DataError: a picture that it names does not exist.
        """
        terms = parts_of(text, is_picture=_names_a_picture)
        return cls(tuple(_picture_term(part) if part.is_picture else Term(part.weight, part.item) for part in terms))

    @classmethod
    def of(cls, asked: "Query | ImageSource") -> "Query":
        """A query in any form: one as it is, words by `parse`, and what else `open_image` takes as a picture.

        Raises:
            ConfigError: words are no valid query, or there are several pictures.
        """
        if isinstance(asked, list | tuple):
            raise ConfigError('a query must be words, a picture or a Query, which adds several: "a dog + image:a.jpg".')
        if isinstance(asked, str):
            return cls.parse(asked)
        return asked if isinstance(asked, Query) else cls((Term(1.0, image=asked),))

    def without(self, *texts: str, weight: float = 1.0) -> "Query":
        """The same query with words taken away."""
        return Query((*self.terms, *(Term(-weight, text) for text in texts)))

    def features(self, bundle: DualEncoder) -> np.ndarray:
        """The query in the model's space.

        Returns:
            [D] float32, unit length: the sum of weight times unit feature, over the terms.

        Raises:
            ImageError: a picture cannot be read.
            TextError: words are too long for the model, or it reads none of them.
            ConfigError: the terms cancel out.
        """
        texts = [term for term in self.terms if term.image is None]
        films = [term for term in self.terms if isinstance(term.image, Path) and _kind(term.image) == "video"]
        images = [term for term in self.terms if term.image is not None and term not in films]
        parts: list[tuple[Sequence[float], np.ndarray]] = []
        if texts:
            if unread := next((one for one in bundle.unread([term.text for term in texts]) if one.is_whole), None):
                raise TextError(str(unread))
            parts.append(
                (
                    [bundle.text_weight * term.weight for term in texts],
                    bundle.encode_texts([term.text for term in texts]),
                )
            )
        if images:
            pictures = [term.image for term in images if term.image is not None]
            parts.append(([term.weight for term in images], bundle.encode_images(pictures)))
        for term in films:
            assert isinstance(term.image, Path)
            frames = bundle.encode_images([frame.image for frame in sample_frames(term.image)])  # [F, D]
            parts.append(([term.weight], unit_length(frames.mean(axis=0, keepdims=True))))
        return weighted_sum(parts)


def weighted_sum(parts: Sequence[tuple[Sequence[float], np.ndarray]]) -> np.ndarray:
    """What a query of several terms looks for, in the model's space.

    Args:
        parts: at least one; of each the weights of T terms, and their features [T, D], unit length.

    Returns:
        [D] float32, unit length: the sum of weight times feature, over the terms of all parts.

    Raises:
        ConfigError: the terms cancel out.
    """
    total = np.zeros(parts[0][1].shape[1], np.float32)  # [D]
    for weights, features in parts:
        total += np.array(weights, np.float32) @ features
    if np.linalg.norm(total) < _SMALLEST:
        raise ConfigError("the terms of the query cancel out: nothing is left to look for. Change one of them.")
    return unit_length(total)


class QueryPart(NamedTuple):
    """One part of a query as it is typed."""

    weight: float
    item: str  # words, or what a picture is called
    is_picture: bool


def parts_of(text: str, *, is_picture: Callable[[str], bool]) -> list[QueryPart]:
    """The parts of a query as it is typed; nothing is opened.

    Args:
        text: by the grammar in the docstring of this file.
        is_picture: whether an item without quotes is what a picture is called.

    Raises:
        ConfigError: it is empty, a quote does not end, or an operator has nothing behind it.
    """
    parts: list[QueryPart] = []
    rest = text.strip()
    while rest or not parts:
        sign, rest = _operator(rest, first=not parts)
        weight = 1.0
        if match := _WEIGHT.match(rest):
            weight, rest = float(match[1]), rest[match.end() :]
        item, picture, rest = _item(rest, is_picture)
        if not item:
            raise ConfigError(f"each part of a query must have words or a picture. Got {text!r}.")
        parts.append(QueryPart(sign * weight, item, picture))
    return parts


def _operator(rest: str, *, first: bool) -> tuple[int, str]:
    if rest[:1] in ("+", "-") and (not first or rest[1:2] in (" ", '"')):
        return -1 if rest[0] == "-" else 1, rest[1:].lstrip()
    return 1, rest  # also two quoted items side by side: they are added


def _item(rest: str, is_picture: Callable[[str], bool]) -> tuple[str, bool, str]:
    """The next item, whether it is a picture, and what follows."""
    if rest[:1] in ("+", "-") and rest[1:2] in ("", " ", '"'):  # a second operator
        return "", False, rest
    prefixed = rest.startswith(_PREFIX)
    rest = rest.removeprefix(_PREFIX)
    if rest.startswith('"'):
        end = rest.find('"', 1)
        if end < 0:
            raise ConfigError(f"a quote in a query must end. Got {rest!r}.")
        return rest[1:end].strip(), prefixed, rest[end + 1 :].lstrip()
    # Up to an operator between spaces, at the end, or a quote after a space.
    match = re.search(r'\s+(?=[+-](?:\s|"|$))|\s+(?=(?:(?:\d+(?:\.\d+)?|\.\d+)\s*\*\s*)?")', rest)
    item, following = (rest[: match.start()], rest[match.end() :]) if match else (rest, "")
    item = item.strip()
    return item, prefixed or is_picture(item), following


def _names_a_picture(item: str) -> bool:
    """Also a file of any other kind that is there: it is refused by name rather than taken for words."""
    path = expanded(item)
    try:
        return _kind(path) in ("picture", "video") or (bool(path.suffix) and path.is_file())
    except (OSError, ValueError):  # longer than a name may be, or with a null character
        return False


def _kind(path: Path) -> str:
    return kind_of(path.name).what


def _picture_term(part: QueryPart) -> Term:
    path = expanded(part.item)
    if not path.is_file():
        name = part.item
        raise DataError(f'{name} must be a picture, and no such file exists. To search for the words, write "{name}".')
    return Term(part.weight, image=path)
