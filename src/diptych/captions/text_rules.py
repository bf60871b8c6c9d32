"""Rules over texts: which captions do not describe a picture, each rule with a name, thresholds and what it measured.

A row's text holds its captions, one a line; each is judged by itself. A row is dropped by the rule that takes its last
caption; else it keeps those that pass, and its column `captions_dropped` says how many did not. Rules look at whole
columns at once: a million captions pass the default ones in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.captions import Captions
from diptych.captions.language import Languages
from diptych.captions.text_counts import Length, Letters, Repetition
from diptych.captions.text_lists import Boilerplate, DenyWords, Watermarks
from diptych.captions.text_patterns import FileNames, PersonalData
from diptych.rows.columns import with_column
from diptych.rows.stage import DROPPED, Judged, Whole

_SLICE_BYTES = 1 << 20  # of text that is judged at a time: more falls out of the processor's cache
_FEW = 0.8  # share of captions that are left, below which the others are no longer looked at

TextRule = Length | Letters | Repetition | FileNames | Boilerplate | Watermarks | PersonalData | DenyWords | Languages
DEFAULT_RULES: tuple[TextRule, ...] = (
    FileNames(),  # first: IMG_1234 is told as the name that it is, not as one word
    Length(),
    Letters(),
    Repetition(),
    Boilerplate(),
    Watermarks(),
    PersonalData(),
)


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """The stage of rules over texts: the first that drops a row names the cause."""

    rules: tuple[TextRule, ...] = DEFAULT_RULES
    name: ClassVar[str] = "text"

    def files(self) -> list[str]:
        """Paths that the rules name."""
        named = [getattr(rule, option, None) for rule in self.rules for option in ("file", "phrases", "model")]
        return [str(path) for path in named if path]

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002
        """Judge the captions of N rows; adds the column `captions_dropped` int32."""
        parts = [self._judged(part) for part in _slices(rows)]
        return Judged(
            kept=pa.concat_tables(part.kept for part in parts),
            dropped=pa.concat_tables(part.dropped for part in parts),
        )

    def _judged(self, rows: pa.Table) -> Judged:
        captions, row = _captions(rows)
        at = np.arange(len(captions))  # numbers of those that are still looked at, among all
        alive = np.ones(len(captions), bool)
        left = np.bincount(row, minlength=len(rows))  # [N] captions of each row that nothing dropped yet
        before_rules = left.copy()
        causes = np.full(len(rows), -1, np.int32)
        values: list[str | None] = [None] * len(rows)
        texts, languages = captions.texts, captions.languages
        for number, rule in enumerate(self.rules):
            verdict = rule.judge(captions)
            gone = np.flatnonzero(~verdict.keep & alive[at])
            alive[at[gone]] = False
            left -= np.bincount(row[at[gone]], minlength=len(rows))
            last = gone[(left[row[at[gone]]] == 0) & _firsts(row[at[gone]])]
            causes[row[at[last]]] = number
            for index, value in zip(row[at[last]].tolist(), verdict.values(last), strict=True):
                values[index] = value
            if verdict.captions is not None:
                captions = verdict.captions
                texts, languages = _put(texts, at, captions.texts), _put(languages, at, captions.languages)
            if alive[at].sum() < _FEW * len(at):
                stay = np.flatnonzero(alive[at])
                at, captions = at[stay], captions.take(stay)
        keep = causes < 0
        return Judged(
            kept=_kept(rows, keep, texts, languages, row, alive, before_rules - left),
            dropped=self._ledger(rows["key"], causes, values),
        )

    def _ledger(self, keys: Any, causes: np.ndarray, values: list[str | None]) -> pa.Table:
        gone = np.flatnonzero(causes >= 0)
        of = pa.array(causes[gone])
        columns = [
            keys.take(pa.array(gone)),
            pa.array([rule.name for rule in self.rules], pa.string()).take(of),
            pa.array([values[i] for i in gone.tolist()], pa.string()),
            pa.array([rule.limit for rule in self.rules], pa.string()).take(of),
        ]
        return pa.table(columns, schema=DROPPED)


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in order, some text at a time, at least once."""
    sizes = np.cumsum(pc.binary_length(rows["text"]).to_numpy())
    starts = np.unique(np.searchsorted(sizes, np.arange(0, sizes[-1] if len(sizes) else 0, _SLICE_BYTES))).tolist()
    for start, end in zip(starts or [0], [*starts[1:], len(rows)], strict=True):
        yield rows.slice(start, end - start)


def _captions(rows: pa.Table) -> tuple[Captions, np.ndarray]:
    """The captions of N rows, and of each the number of its row."""
    texts = rows["text"].combine_chunks()
    row = np.arange(len(rows))
    if pc.any(pc.match_substring(texts, "\n")).as_py():
        lines = pc.split_pattern(texts, "\n")
        row = pc.list_parent_indices(lines).to_numpy()
        texts = pc.list_flatten(lines)
    at = pa.array(row)
    return Captions(texts, _column(rows, "url").take(at), _column(rows, "language").take(at)), row


def _column(rows: pa.Table, name: str) -> Any:
    return rows[name].combine_chunks() if name in rows.column_names else pa.nulls(len(rows), pa.string())


def _firsts(row: np.ndarray) -> np.ndarray:
    """Which are the first of their row; rows ascend."""
    return np.concatenate([[True], row[1:] != row[:-1]])[: len(row)]


def _put(column: Any, at: np.ndarray, values: Any) -> Any:
    """A column with other values at some places."""
    mask = np.zeros(len(column), bool)
    mask[at] = True
    return pc.replace_with_mask(column, pa.array(mask), values)


def _kept(
    rows: pa.Table, keep: np.ndarray, texts: Any, languages: Any, row: np.ndarray, alive: np.ndarray, gone: np.ndarray
) -> pa.Table:
    """The rows that are kept, with those of their captions that are."""
    alive = alive & keep[row]
    which = np.flatnonzero(alive)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row[which], minlength=len(rows))[keep])]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), texts.take(pa.array(which)).cast(pa.string()))
    kept = rows.filter(pa.array(keep))
    first = which[_firsts(row[which])]
    columns = {
        "text": pc.binary_join(lists, "\n"),
        "language": languages.take(pa.array(first)),
        "captions_dropped": pa.array(gone[keep].astype(np.int32)),
    }
    for name, values in columns.items():
        kept = with_column(kept, name, values)
    return kept
