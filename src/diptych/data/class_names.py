"""Labels of a data set to names that a model can be told: codes become words, and what was done is said.

Folders and lists of classes often hold codes: WordNet ids (n01440764), running numbers before the name
(001.Black_footed_Albatross), underscores. A text tower would take them for words.

`imagenet_names.txt` has the 1,000 classes of ILSVRC 2012 by their WordNet ids, as CLIP names them: section 3.1.4, and
the list of its released notebook (MIT licence).
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.data.prompts import read_lines
from diptych.errors import DataError

_WORDNET_ID = re.compile(r"n\d{8}")
_ID_FIRST = re.compile(r"n\d{8}[\s._-]+(?=[^\W\d])")  # n02085620-Chihuahua
_NUMBER_FIRST = re.compile(r"(\d+)(?:\s*[._)-]+\s*|\s+)(?=[^\W\d_])")
_ONLY_SPACE = re.compile(r"[1-9]\d*\s+[^\W\d_]")  # 3 objects: an amount as much as a running number
_NUMBERED = re.compile(r"([^\W\d_]{0,8})[\s._-]?\d+")  # 7, c7, class_7
_LISTED = re.compile(r"(n\d{8})[\s,:]+(?:\d+\s+)?(\S.*)")  # n01440764 tench, Tinca tinca; n02691156 1 airplane
_LISTS = ("words.txt", "*synset*.txt", "map_*.txt", "*class_index*.json", "Labels.json")


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """C names, and how they came about."""

    names: tuple[str, ...]
    naming: str = ""  # what was done to the labels, in words; empty where they are names already


def readable_names(labels: Sequence[str], beside: Path | None = None) -> ClassNames:
    """What a model is told in place of a data set's labels.

    A WordNet id gets the name of its class of ImageNet, or the first of those that a list beside the data gives it. An
    id or a running number is cut that stands before the name in every label; an underscore becomes a space. Nothing is
    cut that labels need to differ. What has no name stays as it is, see `codes_among`.

    Args:
        labels: C, as the data has them.
        beside: the folder of the data; lists of WordNet ids are looked for in it, one below it and up to two above it.

    >>> readable_names(["n01440764", "n01443537"]).names
    ('tench', 'goldfish')
    >>> readable_names(["001.Black_footed_Albatross", "002.Laysan_Albatross"]).names
    ('Black footed Albatross', 'Laysan Albatross')
    """
    done: list[str] = []
    names = _of_wordnet_ids(labels, beside)
    if names != list(labels):
        done.append(_told("WordNet ids by their names", labels, names))
    for what, step in (
        ("WordNet ids cut", _without_ids),
        ("leading numbers cut", _without_numbers),
        ("_ as a space", lambda some: [name.replace("_", " ") for name in some]),
    ):
        changed = step(names)
        if changed != names and len(set(changed)) == len(set(names)):
            done.append(_told(what, names, changed))
            names = changed
    return ClassNames(names=tuple(names), naming="; ".join(done))


def codes_among(names: Sequence[str]) -> str:
    """What is to be said of names that are numbers throughout (0, 1, ...; c0, c1, ...); else an empty string.

    Raises:
        DataError: some are WordNet ids, of which no list gives the name.
    """
    if ids := [name for name in names if _WORDNET_ID.fullmatch(name)]:
        raise DataError(
            f"classes must have names. {len(ids):,} of {len(names):,} are WordNet ids beside ImageNet's 1,000 classes, "
            f"e.g. {ids[0]}: put words.txt beside the data, a line ID NAME each, or classnames.txt."
        )
    prefixes = {match[1].casefold() if (match := _NUMBERED.fullmatch(name)) else None for name in names}
    if len(names) < 2 or len(prefixes) > 1 or None in prefixes:
        return ""
    return f"names are numbers ({names[0]}, {names[1]}, ...), told as they are: a classnames.txt can name them"


@functools.cache
def imagenet_names() -> Mapping[str, str]:
    """Names of ImageNet's 1,000 classes by their WordNet ids, in the order of the ids, which is that of the classes."""
    lines = read_lines(Path(__file__).with_name("imagenet_names.txt"))
    return {line[:9]: line[10:] for line in lines}


def _of_wordnet_ids(labels: Sequence[str], beside: Path | None) -> list[str]:
    known = imagenet_names()
    if beside and any(_WORDNET_ID.fullmatch(label) and label not in known for label in labels):
        known = {**_listed_beside(beside), **known}
    return [known.get(label, label) for label in labels]


def _without_ids(names: Sequence[str]) -> list[str]:
    if not all(map(_ID_FIRST.match, names)):
        return list(names)
    return [_first_of(_ID_FIRST.sub("", name, count=1)) for name in names]


def _without_numbers(names: Sequence[str]) -> list[str]:
    found = [_NUMBER_FIRST.match(name) for name in names]
    numbers = {match[1] for match in found if match}
    if len(numbers) < len(names) or all(map(_ONLY_SPACE.match, names)):  # no running number: 5 dogs, 5 cats
        return list(names)
    return [_NUMBER_FIRST.sub("", name, count=1) for name in names]


def _listed_beside(folder: Path) -> dict[str, str]:
    """Names by WordNet id, of the lists in a folder, one below it and up to two above it; the nearest counts."""
    found: dict[str, str] = {}
    here = folder.resolve()
    nested = [(here, f"*/{pattern}") for pattern in _LISTS]  # an archive that was unpacked into the folder
    above = [(place, pattern) for place in here.parents[:2] for pattern in _LISTS]
    for place, pattern in [*((here, pattern) for pattern in _LISTS), *nested, *above]:
        for path in filter(Path.is_file, sorted(place.glob(pattern))):
            for id_, name in _pairs_in(path):
                found.setdefault(id_, _first_of(name))
    return found


def _pairs_in(path: Path) -> list[tuple[str, str]]:
    """Ids and names of a list: a line `ID NAME` each; or JSON, `{"ID": "NAME"}` or `{"0": ["ID", "NAME"]}`."""
    if path.suffix != ".json":
        return [(match[1], match[2]) for line in read_lines(path) if (match := _LISTED.fullmatch(line))]
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be JSON, as it lies beside WordNet ids. It cannot be read: {error}.") from None
    rows = content.items() if isinstance(content, dict) else []
    pairs = [tuple(value) if isinstance(value, list) else (key, value) for key, value in rows]
    return [(str(pair[0]), str(pair[1])) for pair in pairs if len(pair) == 2 and _WORDNET_ID.fullmatch(str(pair[0]))]


def _first_of(names: str) -> str:
    """Of synonyms the first: "tench, Tinca tinca" is a tench."""
    return names.split(",")[0].strip()


def _told(what: str, before: Sequence[str], after: Sequence[str]) -> str:
    """An example tells it."""
    row = next(row for row, name in enumerate(before) if name != after[row])
    return f"{what} ({before[row]} -> {after[row]})"
