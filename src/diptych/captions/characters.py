"""Many texts as one array of characters: what is counted and hashed of each, without a loop over texts.

A word is a run of letters, marks and digits. In scripts that put no spaces between words each character is a word of
its own here, so that a phrase is found wherever it stands. Case, width and other compatible forms of one character do
not count; marks that only direct the flow of a text are passed over.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LETTER, DIGIT, SPACE, DENSE, SYLLABIC, PASSED = 1, 2, 4, 8, 16, 32
SPACELESS = DENSE | SYLLABIC
DENSE_WORD, SYLLABIC_WORD = 2, 4  # characters that stand for a word on average: 小狗, สุนัข

_CODES = 0x110000
_ASSIGNED = 0x32000  # beyond lie no letters, but private characters and selectors
_DENSE_RANGES = (  # Han, kana, bopomofo
    (0x2E80, 0x2FE0),
    (0x3005, 0x3008),
    (0x3021, 0x302A),
    (0x3041, 0x3130),
    (0x31A0, 0x31C0),
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x1B000, 0x1B170),
    (0x20000, 0x32000),
)
_SYLLABIC_RANGES = (  # Thai and Lao, Tibetan, Burmese, Khmer, Tai, Javanese
    (0x0E01, 0x0F00),
    (0x0F00, 0x1000),
    (0x1000, 0x10A0),
    (0x1780, 0x1800),
    (0x1950, 0x19E0),
    (0x1A20, 0x1AB0),
    (0xA980, 0xA9E0),
)
_HASHED = 8192  # texts at a time: what more of them need falls out of the processor's cache
_PARTED = r"[\pM\x{1100}-\x{11FF}]"  # a mark, or a part of a Korean syllable
_BASE = 0x9E3779B97F4A7C15 | 1  # odd: it has an inverse among numbers of 64 bits
_INVERSE = pow(_BASE, -1, 1 << 64)


class _Tables(NamedTuple):
    """Of each code point."""

    fold: np.ndarray  # uint32: the character that it is the same as
    flags: np.ndarray  # uint8, of what kind that is
    hash: np.ndarray  # uint64


@cache
def _tables() -> _Tables:
    fold = np.arange(_CODES, dtype=np.uint32)
    flags = np.zeros(_CODES, np.uint8)
    for code in range(_ASSIGNED):
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] in "LM":
            flags[code] = LETTER
            same = unicodedata.normalize("NFKC", character).casefold()
            if len(same) == 1:
                fold[code] = ord(same)
        elif kind[0] == "N":
            flags[code] = DIGIT
            same = unicodedata.normalize("NFKC", character)
            if len(same) == 1:
                fold[code] = ord(same)
        elif kind[0] == "Z" or kind == "Cc":
            flags[code] = SPACE
        elif kind == "Cf":
            flags[code] = PASSED
    flags[0xFE00:0xFE10] = PASSED  # selectors of a character's look
    for ranges, flag in ((_DENSE_RANGES, DENSE), (_SYLLABIC_RANGES, SYLLABIC)):
        for first, end in ranges:
            flags[first:end] |= np.where(flags[first:end] & LETTER, flag, 0).astype(np.uint8)
    return _Tables(fold, flags, mixed(np.arange(_CODES, dtype=np.uint64)))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, each bit of which depends on all of those that came; one to one.

    Source: the finaliser of splitmix64, Steele et al., OOPSLA 2014.
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of N texts, one after another."""

    hashes: np.ndarray  # [W] uint64
    first: np.ndarray  # [W], its first character
    last: np.ndarray  # [W], its last
    starts: np.ndarray  # [N + 1], where the words of each text begin
    of_text: np.ndarray  # [W] number of the text


@dataclass(frozen=True)
class Characters:
    """The characters of N texts, one after another: folded, without those that are passed over."""

    codes: np.ndarray  # [M] uint32
    starts: np.ndarray  # [N + 1], where the characters of each text begin

    @classmethod
    def of(cls, texts: Any) -> Self:
        """[N] texts, an Arrow array; null counts as the empty text."""
        texts = pc.fill_null(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts, "")
        texts = _composed(texts.cast(pa.large_string()))
        _, offset_buffer, data = texts.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data else np.empty(0, np.uint8)
        starts = before((data & 0xC0) != 0x80)[offsets - offsets[0]]  # of bytes, those that begin a character
        codes = np.frombuffer(data.tobytes().decode("utf-8").encode("utf-32-le"), np.uint32)
        passed = _tables().flags[codes] == PASSED
        if passed.any():
            starts = starts - before(passed)[starts]
            codes = codes[~passed]
        return cls(_tables().fold[codes], starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def flags(self) -> np.ndarray:
        """[M] uint8."""
        return _tables().flags[self.codes]

    @cached_property
    def visible(self) -> np.ndarray:
        """[N] how many characters of each text are no white space."""
        return np.diff(self.starts) - self.count(SPACE)

    def count(self, flags: int) -> np.ndarray:
        """[N] how many characters of each text have one of these flags."""
        return self.count_where((self.flags & flags) != 0)

    def count_where(self, mask: np.ndarray) -> np.ndarray:
        """[N] how many of the [M] booleans are true in each text."""
        return np.diff(before(mask)[self.starts])

    @cached_property
    def of_text(self) -> np.ndarray:
        """[M] number of the text that each character is of."""
        return np.repeat(np.arange(len(self), dtype=np.uint32), np.diff(self.starts))

    @cached_property
    def opens(self) -> np.ndarray:
        """[M] whether a text begins here."""
        opens = np.zeros(len(self.codes) + 1, bool)
        opens[self.starts[:-1]] = True
        return opens[:-1]

    @cached_property
    def words(self) -> Words:
        """What is between spaces and signs; see the head of this file for scripts without spaces."""
        is_word = (self.flags & (LETTER | DIGIT)) != 0
        alone = (self.flags & SPACELESS) != 0
        cut = self.opens.copy()  # [M] no word goes on from the character before
        if len(cut):
            cut[1:] |= ~is_word[:-1] | alone[:-1] | alone[1:]
        first = np.flatnonzero(is_word & cut)
        after = np.append(cut[1:] | ~is_word[1:], True)[: len(cut)]
        last = np.flatnonzero(is_word & after)
        starts = np.searchsorted(first, self.starts)
        return Words(
            hashes=_hashed(self.codes, first, last + 1),
            first=first,
            last=last,
            starts=starts,
            of_text=np.repeat(np.arange(len(self), dtype=np.uint32), np.diff(starts)),
        )

    def hashes(self) -> np.ndarray:
        """[N] uint64: equal where the texts are but for case and white space; 2^-64 that others are."""
        visible = (self.flags & SPACE) == 0
        starts = before(visible)[self.starts]
        return _hashed(self.codes[visible], starts[:-1], starts[1:])


def hashes_of(texts: Any) -> np.ndarray:
    """`Characters.hashes` of [N] texts, an Arrow array: [N] uint64, some thousand at a time."""
    parts = (texts.slice(start, _HASHED) for start in range(0, len(texts), _HASHED))
    return np.concatenate([np.empty(0, np.uint64), *(Characters.of(part).hashes() for part in parts)])


def _composed(texts: Any) -> Any:
    """Letters and the marks on them as one character each, where there is one."""
    if pc.all(pc.string_is_ascii(texts)).as_py():
        return texts
    parted = pc.match_substring_regex(texts, _PARTED)
    # One by one: pyarrow 25 takes letters apart whichever form it is asked for.
    composed = [unicodedata.normalize("NFC", text) for text in texts.filter(parted).to_pylist()]
    return pc.replace_with_mask(texts, parted, pa.array(composed, texts.type))


def _hashed(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hashes of stretches: a polynomial in `_BASE`, all at once by the sums before each character."""
    with np.errstate(over="ignore"):
        powers = np.full(len(codes) + 1, _BASE, np.uint64)
        powers[0] = 1
        np.multiply.accumulate(powers, out=powers)
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(_tables().hash[codes] * powers[:-1], out=sums[1:])
        powers[1:] = _INVERSE
        np.multiply.accumulate(powers, out=powers)
        return mixed((sums[ends] - sums[starts]) * powers[starts])


def before(mask: np.ndarray) -> np.ndarray:
    """How many of [M] booleans are true before each place: [M + 1] int64."""
    counts = np.zeros(len(mask) + 1, np.int64)
    np.cumsum(mask, out=counts[1:])
    return counts


def most_frequent(groups: np.ndarray, hashes: np.ndarray, count: int) -> np.ndarray:
    """How often the most frequent value of each group comes.

    Args:
        groups: [M] uint32, ascending.
        hashes: [M] uint64; two that agree in their upper 32 bits within a group count as one.
        count: of groups.

    Returns:
        [count] int64; 0 for a group without a value.
    """
    most = np.zeros(count, np.int64)
    if not len(hashes):
        return most
    keys = (groups.astype(np.uint64) << np.uint64(32)) | (hashes >> np.uint64(32))
    keys.sort()
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    runs = np.diff(np.append(first, len(keys)))
    of_run = (keys[first] >> np.uint64(32)).astype(np.int64)
    opens = np.flatnonzero(np.concatenate([[True], of_run[1:] != of_run[:-1]]))
    most[of_run[opens]] = np.maximum.reduceat(runs, opens)
    return most
