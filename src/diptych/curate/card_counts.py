"""Counts over any number of pairs in a bounded amount of memory: kinds, and how a number is spread."""

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.curate.card_data import Counted, Counts, PairsOnCard, Quantiles, SampleOnCard, shown

MOST_KINDS = 1_000_000  # that are counted at a time: some 100 MB
_DIGITS = 3  # that a value keeps; so there are some 900 different ones for each power of ten
_SIZES = (("width", "px"), ("height", "px"), ("bytes", "bytes"), ("text", "characters"))
_CALLED = {"bytes": "file", "text": "caption"}  # on the card


class Frequent:
    """How often each kind comes, of any number of kinds.

    Up to `most` kinds are counted exactly. Where there are more, the rare ones are forgotten as Misra and Gries do
    (1982): each count is then too low by `too_low` at most, and what comes more often than that is never lost.

    Args:
        most: kinds that are held at a time; a part may bring as many again for a moment.
    """

    def __init__(self, most: int = MOST_KINDS) -> None:
        self.most = most
        self.too_low = 0
        self.unknown = 0
        self._counts: Counter[str] = Counter()

    def add(self, values: Any) -> None:
        """Count a column of strings; null and empty ones are unknown."""
        for entry in pc.value_counts(values).to_pylist():
            if entry["values"]:
                self._counts[entry["values"]] += entry["counts"]
            else:
                self.unknown += entry["counts"]
        if len(self._counts) > self.most:
            ranked = np.sort(np.fromiter(self._counts.values(), np.int64))[::-1]
            less = int(ranked[self.most])
            self.too_low += less
            self._counts = Counter({kind: count - less for kind, count in self._counts.items() if count > less})

    def counts(self, top: int) -> Counts:
        """The most frequent ones; of equally frequent ones the first by name."""
        ranked = sorted(self._counts.items(), key=lambda one: (-one[1], one[0]))[:top]
        return Counts(
            kinds=self.most + 1 if self.too_low else len(self._counts),
            is_exact=not self.too_low,
            too_low=self.too_low,
            unknown=self.unknown,
            top=tuple(Counted(name=shown(name), count=count) for name, count in ranked),
        )


class ValueCounts:
    """How a number is spread: counts by value, which keeps three digits, so that their number is bounded."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._least: int | None = None
        self._most = 0

    def add(self, values: Any) -> None:
        """Count a column of numbers, none below 0; null is left out."""
        numbers = pc.drop_null(values).to_numpy().astype(np.int64)
        if not len(numbers):
            return
        least = int(numbers.min())
        self._least = least if self._least is None else min(self._least, least)
        self._most = max(self._most, int(numbers.max()))
        scale = 10 ** np.maximum(0, np.floor(np.log10(np.maximum(numbers, 1))).astype(np.int64) - (_DIGITS - 1))
        found, counts = np.unique(numbers // scale * scale, return_counts=True)
        self._counts.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def quantiles(self, name: str, unit: str) -> Quantiles | None:
        """What is known of it; None where that is nothing."""
        if self._least is None:
            return None
        values = sorted(self._counts)
        below = np.cumsum([self._counts[value] for value in values])
        at = [values[int(np.searchsorted(below, share * below[-1] - 1e-9))] for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        p5, p25, median, p75, p95 = (max(self._least, value) for value in at)
        return Quantiles(
            name=name, unit=unit, count=int(below[-1]), least=self._least, p5=p5, p25=p25, median=median, p75=p75,
            p95=p95, most=self._most,
        )  # fmt: skip


class PairFacts:
    """What a card tells of the pairs in the shards, from tables of them one after the other.

    Args:
        sources: name of each, by its number.
        samples: pairs to show: those with the smallest keys, which are hashes, so that these are drawn at random.
        top: hosts, languages and licences that are named.
    """

    def __init__(self, sources: list[str], *, samples: int = 12, top: int = 20) -> None:
        self._names, self._top = sources, top
        self._most_samples, self._samples = samples, list[SampleOnCard]()
        self._sources: Counter[int] = Counter()
        self._kinds = {name: Frequent() for name in ("language", "licence", "host", "format")}
        self._spreads = {name: ValueCounts() for name, _ in _SIZES}
        self.pairs = 0

    def add(self, rows: pa.Table, shards: list[str]) -> None:
        """Count the pairs of a table.

        Args:
            rows: N rows with `key`, `text`, `url`, `page`, `licence`, `language`, `source`, and where they are known
                `width`, `height`, `bytes`, `format`.
            shards: [N] file that holds each.
        """
        self.pairs += len(rows)
        for entry in pc.value_counts(rows["source"]).to_pylist():
            self._sources[entry["values"]] += entry["counts"]
        for name, kinds in self._kinds.items():
            if name == "host":
                kinds.add(hosts_of(rows["url"]))
            elif name in rows.column_names:
                kinds.add(rows[name])
            else:
                kinds.unknown += len(rows)
        for name, spread in self._spreads.items():
            if name == "text":
                spread.add(pc.utf8_length(pc.list_flatten(pc.split_pattern(rows["text"], "\n"))))
            elif name in rows.column_names:
                spread.add(rows[name])
        self._add_samples(rows, shards)

    def _add_samples(self, rows: pa.Table, shards: list[str]) -> None:
        first = pc.sort_indices(rows["key"])[: self._most_samples]
        names = ("key", "text", "url", "page", "licence")
        for row, place in zip(rows.select(names).take(first).to_pylist(), first.to_pylist(), strict=True):
            told = {"address": row["url"], "page": row["page"], "licence": row["licence"], "text": row["text"]}
            plain = {name: shown(value) for name, value in told.items()}
            self._samples.append(SampleOnCard(key=row["key"], shard=shards[place], **plain))
        self._samples = sorted(self._samples, key=lambda sample: sample.key)[: self._most_samples]

    def on_card(self) -> PairsOnCard:
        """All of it."""
        kinds = {name: found.counts(self._top) for name, found in self._kinds.items()}
        sizes = [self._spreads[name].quantiles(_CALLED.get(name, name), unit) for name, unit in _SIZES]
        return PairsOnCard(
            sources=tuple(
                Counted(name=shown(name), count=self._sources[number]) for number, name in enumerate(self._names)
            ),
            languages=kinds["language"],
            licences=kinds["licence"],
            hosts=kinds["host"],
            formats=kinds["format"],
            sizes=tuple(size for size in sizes if size),
            samples=tuple(self._samples),
        )


def hosts_of(addresses: Any) -> pa.Array:
    """[N] addresses to [N] hosts in lower case, without port; empty where there is none."""
    unique = addresses.combine_chunks() if isinstance(addresses, pa.ChunkedArray) else addresses
    return pa.array([_host(address) for address in unique.to_pylist()], pa.string())


def _host(address: str | None) -> str:
    try:
        return (urlsplit((address or "").strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""
