"""What a data card says of a curation, as plain data that JSON takes both ways; `card_markdown.py` writes it out.

Texts of strangers (captions, addresses, licences, what was measured of a row) are in it as `shown` has them: one line,
without characters that steer a terminal or turn the direction of a page, and cut.
"""

import unicodedata
from dataclasses import dataclass

from diptych.captions.balance import BalanceCurve
from diptych.crawl.fetch import FetchSummary

CARD_FORMAT = "diptych-data-card-1"
TEXT_LENGTH = 300  # characters of a text of strangers that a card shows
_JOINERS = "\u200c\u200d"  # within words of Persian and Hindi, and within emoji


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One of several kinds, and the number of pairs of it."""

    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pairs by kind, the most frequent first."""

    kinds: int  # how many there are; at least so many where `is_exact` is false
    is_exact: bool = True  # else rare ones were forgotten on the way, and each count may be too low by `too_low`
    too_low: int = 0  # pairs
    unknown: int = 0  # pairs of which it is not known
    top: tuple[Counted, ...]


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """How a number is spread over the pairs; below 1,000 exact, above it to three digits."""

    name: str
    unit: str
    count: int  # pairs of which it is known
    least: int
    p5: int  # 5 % of the pairs have at most so much
    p25: int
    median: int
    p75: int
    p95: int
    most: int


@dataclass(frozen=True, kw_only=True)
class CauseOnCard:
    """Rows that one stage dropped for one cause."""

    cause: str
    count: int
    limit: str = ""  # what they were held against
    examples: tuple[str, ...] = ()  # what was measured of some
    cure: str = ""  # what to do about it, where it comes from fetching


@dataclass(frozen=True, kw_only=True)
class StageOnCard:
    """One stage: read = kept + dropped."""

    name: str
    read: int
    kept: int
    causes: tuple[CauseOnCard, ...] = ()

    @property
    def dropped(self) -> int:
        return self.read - self.kept


@dataclass(frozen=True, kw_only=True)
class QueryOnCard:
    """Pairs that match a query, when balance began and at the end."""

    query: str
    language: str = ""  # where each counts by itself
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class BalanceOnCard:
    """What balance did."""

    rule: str
    t: int
    curve: BalanceCurve
    largest: tuple[QueryOnCard, ...]  # by their number before


@dataclass(frozen=True, kw_only=True)
class SampleOnCard:
    """A pair as an example."""

    key: str
    shard: str  # file that holds it
    text: str
    address: str = ""
    page: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class RemovedOnCard:
    """What was removed at one time, as asked for."""

    pairs: int  # keys that were named or found
    domains: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PairsOnCard:
    """The pairs that are in the shards."""

    sources: tuple[Counted, ...] = ()
    languages: Counts
    licences: Counts
    hosts: Counts
    formats: Counts
    sizes: tuple[Quantiles, ...] = ()  # of pictures and captions; those of which something is known
    samples: tuple[SampleOnCard, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """All that the card says."""

    format: str = CARD_FORMAT
    name: str
    licence: str  # under which the set is passed on, as its maker says; may be empty
    seed: int
    recipe: str  # whole, as TOML, without the folders of the machine
    versions: dict[str, str]
    pairs: int
    shards: int
    bytes: int  # of the shards
    manifest_sha256: str
    stages: tuple[StageOnCard, ...]  # as they were when the shards were written
    balance: BalanceOnCard | None = None
    fetch: FetchSummary | None = None
    kept: PairsOnCard
    removed: tuple[RemovedOnCard, ...] = ()
    not_measured: tuple[str, ...]  # sentences that hold for this recipe

    @property
    def read(self) -> int:
        """Rows that the sources gave."""
        return self.stages[0].read if self.stages else 0

    @property
    def adds_up(self) -> bool:
        """Whether read = kept + dropped by cause at each stage, and what one kept is what the next one read."""
        sums = all(stage.dropped == sum(cause.count for cause in stage.causes) for stage in self.stages)
        return sums and all(a.kept == b.read for a, b in zip(self.stages, self.stages[1:], strict=False))

    @property
    def removed_pairs(self) -> int:
        """Pairs of the last stage that are not in the shards, as they had to be removed."""
        return self.stages[-1].kept - self.pairs if self.stages else 0


def shown(text: str | None, length: int = TEXT_LENGTH) -> str:
    r"""A text of strangers on one line, captions parted by a slash; cut, with an ellipsis where it was longer.

    >>> shown("a dog\non a sofa\u202e", 12)
    'a dog / on a…'
    """
    head = (text or "")[: 2 * length + 2].replace("\r\n", "\n").strip()
    plain = " ".join("".join(map(_shown_character, head.replace("\n", " / "))).split())
    return plain if len(plain) <= length and len(text or "") <= 2 * length else plain[:length].rstrip() + "…"


def _shown_character(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return character if character in _JOINERS else ""
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "\ufffd" if kind in ("Cs", "Co", "Cn") else character
