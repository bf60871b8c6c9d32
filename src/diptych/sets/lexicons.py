"""Pictures of single words, each with a lexicon of its own, read at random.

1. IIIT5K's own layout: `testdata.mat` and the pictures it names [extra: eval, for scipy].
2. `words.jsonl` with a line `{"image": "a/1.png", "word": "OPEN", "lexicon": ["OPEN", "SHUT", ...]}` a picture.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diptych.data.texts import read_text
from diptych.errors import DataError
from diptych.sets.matlab import read_mat
from diptych.sets.pictures import Pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class WordImages(Pictures):
    """One split of a set of words."""

    words: tuple[str, ...]  # N of them
    lexicons: tuple[tuple[str, ...], ...]  # N of them, the word among them once


def read_words(folder: Path, *, split: str = "test") -> WordImages:
    """Find the pictures of words, with their lexicons; IIIT5K's of 1,000 words.

    Raises:
        DataError: the folder is of another layout, or a line of it is not as it should be.
        MissingExtraError: it is IIIT5K's, and scipy is not installed.
    """
    lists = [folder / "words.jsonl", *sorted(folder.rglob(f"{split}data.mat"))]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        raise DataError(f"{folder} must hold {split}data.mat of IIIT5K, or words.jsonl. It holds neither.")
    rows = list(_from_lines(path) if path.suffix == ".jsonl" else _from_mat(path, f"{split}data"))
    return WordImages(
        name=folder.resolve().name,
        split=split,
        keys=tuple(image for image, _, _ in rows),
        words=tuple(word for _, word, _ in rows),
        # A word that a lexicon lists twice is one candidate; the true one is always among them.
        lexicons=tuple(tuple(dict.fromkeys([word, *lexicon])) for _, word, lexicon in rows),
        _sources=tuple(path.parent / image for image, _, _ in rows),
    )


def _from_lines(path: Path) -> Iterable[tuple[str, str, list[str]]]:
    for number, line in enumerate(read_text(path).rstrip("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            yield str(row["image"]), str(row["word"]), [str(word) for word in row["lexicon"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}, must give image, word and lexicon. Not so: {error}.") from None


def _from_mat(path: Path, variable: str) -> Iterable[tuple[str, str, list[str]]]:
    table = read_mat(path).get(variable)
    try:
        assert table is not None
        for row in table:
            yield str(row["ImgName"]), str(row["GroundTruth"]), [str(word) for word in row["mediumLexi"]]
    except (AssertionError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path} must hold IIIT5K's table {variable}. It does not: {error!r}.") from None
