"""Rules that count in captions: their length, their letters, what they repeat."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from diptych.captions.captions import Captions, Verdict, check_share
from diptych.captions.characters import (
    DENSE,
    DENSE_WORD,
    LETTER,
    SPACE,
    SPACELESS,
    SYLLABIC,
    SYLLABIC_WORD,
    Characters,
    before,
    mixed,
    most_frequent,
)
from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Length:
    """Captions that are too short or too long.

    A word is what stands between spaces and has a letter or digit. In scripts without spaces 2 characters (Han, kana)
    or 4 (Thai, Lao, Khmer, Burmese, Tibetan) stand for a word, and one of the first kind counts as two characters.
    White space is not counted.

    Source: DataComp's basic filter (arXiv:2304.14108, released code: at least 3 words, and 6 characters with spaces)
    and COYO-700M (its README: 3 to 256 words, at most 1,000). Here 2 words are enough: "red kite" names its picture.
    """

    kind: Literal["length"] = "length"
    min_words: int = 2
    max_words: int = 256
    min_characters: int = 5
    max_characters: int = 1000
    name: ClassVar[str] = "length"

    def __post_init__(self) -> None:
        for what in ("words", "characters"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if not 0 <= least <= most:
                raise ConfigError(f"min_{what} must be from 0 to max_{what}. Got {least} and {most}.")

    @property
    def limit(self) -> str:
        return (
            f"{self.min_words} to {self.max_words:,} words, {self.min_characters} to {self.max_characters:,} characters"
        )

    def judge(self, captions: Captions, /) -> Verdict:
        words, characters = _word_count(captions.characters), _character_count(captions.characters)
        keep = (words >= self.min_words) & (words <= self.max_words)
        keep &= (characters >= self.min_characters) & (characters <= self.max_characters)
        return Verdict(
            keep=keep, values=lambda at: [f"words: {words[i]:,}, characters: {characters[i]:,}" for i in at.tolist()]
        )


def _character_count(text: Characters) -> np.ndarray:
    return text.visible + text.count(DENSE)


def _word_count(text: Characters) -> np.ndarray:
    words = text.words
    alone = (text.flags[words.first] & SPACELESS) != 0
    spaces = before((text.flags & SPACE) != 0)
    parted = np.ones(len(alone), bool)  # from the word before, by a space or a script without
    parted[1:] = (spaces[words.first[1:]] > spaces[words.last[:-1]]) | alone[:-1]
    parted[words.starts[:-1][np.diff(words.starts) > 0]] = True
    spaced = np.diff(before(parted & ~alone)[words.starts])
    return spaced + -(-text.count(DENSE) // DENSE_WORD) + -(-text.count(SYLLABIC) // SYLLABIC_WORD)


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Captions of digits and signs: prices, dates, article numbers, rows of emoji.

    Marks on letters count as letters, and a Han character or kana as two where letters are counted.

    Source: Gopher's share of words with a letter (arXiv:2112.11446, table A1: 80 % of words) put to characters; the
    share is ours: of Flickr8k's 35,428 captions none has fewer than 80 % letters.
    """

    kind: Literal["letters"] = "letters"
    min_letters: int = 4
    min_share: float = 0.4  # of the characters that are no white space
    name: ClassVar[str] = "letters"

    def __post_init__(self) -> None:
        check_share("min_share", self.min_share)

    @property
    def limit(self) -> str:
        return f"at least {self.min_letters} letters, and {self.min_share:.0%} of the characters"

    def judge(self, captions: Captions, /) -> Verdict:
        text = captions.characters
        letters, visible = text.count(LETTER), text.visible
        keep = (letters + text.count(DENSE) >= self.min_letters) & (letters >= self.min_share * visible)
        return Verdict(keep=keep, values=lambda at: [f"{letters[i]:,} letters of {visible[i]:,}" for i in at.tolist()])


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Captions that say the same again and again: "shoes red shoes buy shoes", "cheap flights cheap flights", "=====".

    Three shares are measured: of the words, how many are the most frequent one; of pairs of neighbouring words, the
    most frequent one; of the characters, how many equal the one 1, 2 or 3 places before. Captions with fewer than
    `min_words` words, or `min_characters` characters, are not judged by the one or the other.

    Source: Gopher's repeated n-grams (arXiv:2112.11446, table A1), which are of documents; Conceptual Captions
    (Sharma et al., ACL 2018) drops much repetition without a number. Thresholds are ours: of Flickr8k's captions none
    reaches them.
    """

    kind: Literal["repetition"] = "repetition"
    max_word: float = 0.5  # share of the most frequent word
    max_pair: float = 0.4  # share of the most frequent pair of words
    max_character: float = 0.5  # share of characters that repeat one just before
    min_words: int = 5
    min_characters: int = 8
    name: ClassVar[str] = "repetition"

    def __post_init__(self) -> None:
        for what in ("max_word", "max_pair", "max_character"):
            check_share(what, getattr(self, what))

    @property
    def limit(self) -> str:
        return (
            f"at most {self.max_word:.0%} one word, {self.max_pair:.0%} one pair of words, "
            f"{self.max_character:.0%} a character again"
        )

    def judge(self, captions: Captions, /) -> Verdict:
        word, pair = self._words(captions.characters)
        character = self._characters(captions.characters)
        keep = (word <= self.max_word) & (pair <= self.max_pair) & (character <= self.max_character)

        def values(at: np.ndarray) -> list[str]:
            return [f"one word {word[i]:.0%}, pair {pair[i]:.0%}, character {character[i]:.0%}" for i in at.tolist()]

        return Verdict(keep=keep, values=values)

    def _words(self, text: Characters) -> tuple[np.ndarray, np.ndarray]:
        words = text.words
        counts = np.diff(words.starts)
        judged = _word_count(text) >= self.min_words  # where each character stands alone, more than so many of them
        word = most_frequent(words.of_text, words.hashes, len(text)) / counts.clip(min=1)
        inside = np.flatnonzero(words.of_text[1:] == words.of_text[:-1])
        pairs = mixed(words.hashes[inside] + mixed(words.hashes[inside + 1]))
        pair = most_frequent(words.of_text[inside], pairs, len(text)) / (counts - 1).clip(min=1)
        return word * judged, pair * judged

    def _characters(self, text: Characters) -> np.ndarray:
        most = np.zeros(len(text), np.int64)
        same = np.zeros(len(text.codes), bool)
        for gap in (1, 2, 3):
            same[gap:] = (text.codes[gap:] == text.codes[:-gap]) & (text.of_text[gap:] == text.of_text[:-gap])
            most = np.maximum(most, text.count_where(same))
            same[:] = False
        length = np.diff(text.starts)
        return most / length.clip(min=1) * (length >= self.min_characters)
