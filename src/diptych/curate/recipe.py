"""CurateRecipe: everything that decides a curation, from TOML; and the stages that it means, in their order.

Rules on texts come first, as they cost least; then matching and balance, so that what no query needs is never fetched;
then pictures, described once and judged by what was written down of them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diptych.captions.balance import Balance, Cap
from diptych.captions.match import Match
from diptych.captions.repeated_texts import RepeatedTexts
from diptych.captions.text_rules import TextRules
from diptych.config import apply_overrides, from_dict, read_toml, to_dict
from diptych.crawl.fetch import FetchPictures
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.read import PairSource
from diptych.curate.decontaminate import Decontaminate
from diptych.curate.describe import Describe
from diptych.curate.duplicates import SameBytes, SameLook, SamePair
from diptych.curate.meaning import SameMeaning
from diptych.curate.people import People
from diptych.curate.picture_rules import PictureRules
from diptych.curate.pipeline import Pipeline
from diptych.curate.scores import BestShare, ClipScore, DenyPictures
from diptych.curate.text_in_pictures import TextInPictures
from diptych.errors import ConfigError
from diptych.rows.stage import CurateStage

_NO_PATH = re.compile(r"~|[A-Za-z][A-Za-z0-9+.-]+:")  # a home, an embedded set, a URL
_PATHS = {"sources": ("path", "image_folder"), "match": ("queries",), "overlap": ("data",), "deny": ("deny_list",)}
_PATHS_OF_RULES = ("file", "phrases", "model")


@dataclass(frozen=True, kw_only=True)
class BalanceOptions:
    """How many pairs a query may bring in; see `captions/balance.py`."""

    rule: Literal["metaclip", "cap"] = "metaclip"  # independent draws; or exactly the t smallest of each query
    t: int = 20_000
    per_language: bool = False  # t for each language, so that its tail has the share that the reference's has
    reference: str = "en"

    def __post_init__(self) -> None:
        if self.rule not in ("metaclip", "cap"):
            raise ConfigError(f"balance.rule must be metaclip or cap. Got {self.rule!r}.")


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Which duplicates are dropped; `false` leaves a kind out."""

    bytes: SameBytes | Literal[False] = field(default_factory=SameBytes)
    look: SameLook | Literal[False] = field(default_factory=SameLook)
    features: SameMeaning | None = None  # needs describe.model


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What comes out."""

    samples: int = 10_000  # a shard

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"shards.samples must be at least 1. Got {self.samples}.")


@dataclass(frozen=True, kw_only=True)
class CurateRecipe:
    """From sources to shards. What is None is left out."""

    name: str = ""  # of the set, for its card
    licence: str = ""  # under which the set is passed on, for its card
    seed: int = 0  # of the draws
    part_rows: int = 100_000  # rows of a part of tables and of pairs; a WARC file is a part of its own
    sources: tuple[PairSource, ...]
    pairs: SamePair = field(default_factory=SamePair)
    text: TextRules = field(default_factory=TextRules)
    repeated: RepeatedTexts | None = None
    match: Match | None = None
    balance: BalanceOptions | None = None
    fetch: Fetch = field(default_factory=Fetch)
    describe: Describe = field(default_factory=Describe)
    pictures: PictureRules = field(default_factory=PictureRules)
    duplicates: Duplicates = field(default_factory=Duplicates)
    overlap: Decontaminate | None = None
    deny: DenyPictures | None = None
    score: ClipScore | None = None
    text_in_pictures: TextInPictures | None = None
    best: BestShare | None = None  # of one of the two scores
    people: People | None = None  # last: it may change pictures
    shards: Shards = field(default_factory=Shards)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("a recipe of curation must name at least one [[sources]]. It names none.")
        if self.part_rows < 1:
            raise ConfigError(f"part_rows must be at least 1. Got {self.part_rows}.")
        if self.balance and not self.match:
            raise ConfigError("[balance] needs [match], which says which queries a text has. The recipe has none.")
        if self.duplicates.features and not self.describe.model:
            raise ConfigError("[duplicates.features] needs describe.model, which makes the features. It names none.")
        if self.best and not (self.text_in_pictures if self.best.column == "masked_score" else self.score):
            raise ConfigError(f"[best] needs the stage that gives {self.best.column}, and the recipe has none.")

    def pipeline(self) -> Pipeline:
        """The stages that it means."""
        return Pipeline(sources=self.sources, part_rows=self.part_rows, stages=tuple(self._stages()))

    def _stages(self) -> Sequence[CurateStage]:
        same = self.duplicates
        fetch = FetchPictures(options=self.fetch, sources=tuple(source.pairs for source in self.sources))
        stages = (
            self.pairs, self.text, self.repeated, self.match, self._balance(), fetch, self.describe, self.pictures,
            same.bytes, same.look, same.features, self.overlap, self.deny, self.score, self.text_in_pictures, self.best,
            self.people,
        )  # fmt: skip
        return [stage for stage in stages if stage]

    def _balance(self) -> Balance | Cap | None:
        if not (self.balance and self.match):
            return None
        options = {name: value for name, value in to_dict(self.balance).items() if name != "rule"}
        kind = Balance if self.balance.rule == "metaclip" else Cap
        return kind(queries=self.match.queries, seed=self.seed, **options)


def read_curate_recipe(path: Path, overrides: Sequence[str] = ()) -> CurateRecipe:
    """A recipe from a TOML file, with `dotted.key=value` options put over it.

    Relative paths in the file are from its folder, those in options from the current directory; all come out absolute.

    Raises:
        ConfigError: the file is not there or not TOML, or an option is unknown, missing or of the wrong type.
    """
    data = _with_absolute_paths(read_toml(path), path.absolute().parent)
    return from_dict(CurateRecipe, _with_absolute_paths(apply_overrides(data, overrides), Path.cwd()))


def _with_absolute_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    plain = {**data}
    for name, keys in _PATHS.items():
        table = plain.get(name)
        if isinstance(table, list):
            plain[name] = [_changed(one, keys, folder) for one in table]
        elif isinstance(table, Mapping):
            plain[name] = _changed(table, keys, folder)
    if isinstance(text := plain.get("text"), Mapping) and isinstance(rules := text.get("rules"), list):
        plain["text"] = {**text, "rules": [_changed(rule, _PATHS_OF_RULES, folder) for rule in rules]}
    return plain


def _changed(table: Any, keys: Sequence[str], folder: Path) -> Any:
    if not isinstance(table, Mapping):
        return table
    paths = {key: table[key] for key in keys if key in table}
    return {**table, **{key: _absolute(value, folder) for key, value in paths.items()}}


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(one, folder) for one in value]
    is_path = isinstance(value, str) and value and not _NO_PATH.match(value)
    return os.path.normpath(folder / value) if is_path else value
