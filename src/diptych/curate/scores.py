"""Stages that score pictures with a model: how well text and picture fit, and what a deny list names.

A score is a cosine, rounded to 4 digits: what a model gives differs in the next ones from batch to batch.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.curate.seen_pictures import BATCH, model_of, seen, unreadable
from diptych.data.prompts import read_lines
from diptych.embed import encode_fast
from diptych.errors import ConfigError, ImageError
from diptych.measures.deny_scores import deny_scores
from diptych.rows.columns import PICTURE, with_column
from diptych.rows.stage import Judged, Whole
from diptych.weights.dual_encoder import DualEncoder

_DIGITS = 10_000  # steps of a score within 1


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """How well text and picture fit: the cosine of their features, in the column `clip_score` float32.

    Of a row with several captions it is their mean. Texts that are too long for the model are cut. Scores of two models
    cannot be compared, so there is no threshold that suits all; `BestShare` finds one.

    Source: LAION-400M (arXiv:2111.02114: at least 0.3 of OpenAI's ViT-B/32) and DataComp (arXiv:2304.14108, section
    4.2: the best 30 % by ViT-L/14 made its best baseline of this kind).
    """

    model: str | None = None  # a name as `diptych.load` takes it; None is the model that ships
    min_score: float | None = None  # a row with a lower one is dropped; None drops none
    prefix: str = ""  # put before each caption
    name: ClassVar[str] = "clip-score"
    reads_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise ConfigError(f"min_score must be a cosine, from -1 to 1. Got {self.min_score}.")

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002  # as all stages take it
        bundle = model_of(self.model)
        good, features, gone = encoded(bundle, rows)
        texts = [text.split("\n") for text in good["text"].to_pylist()]
        scores = rounded(caption_scores(bundle, features, texts, self.prefix))
        kept = with_column(good, "clip_score", pa.array(scores))
        return judged_by_score(kept, "clip_score", self.min_score, self.name, gone)


@dataclass(frozen=True, kw_only=True)
class DenyPictures:
    """Pictures that show what a list names: the highest cosine with a line of it is at least `threshold`.

    `diptych filter --examples` chooses the threshold on labelled pictures, and says what it misses and what it takes
    wrongly. A filter like this is for sorting; what it drops is in the ledger with the line that it was nearest to.

    Source: CLIP, arXiv:2103.00020, section 7.1, on what such a classifier can do, and to whom.
    """

    deny_list: Path  # a concept a line: "a photo of a gun"
    threshold: float
    model: str | None = None
    name: ClassVar[str] = "deny-pictures"
    reads_pictures: ClassVar[bool] = True

    def files(self) -> list[str]:
        """Paths that the options name."""
        return [str(self.deny_list)]

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002
        good, features, gone = encoded(model_of(self.model), rows)
        concepts, texts = _concepts(self.deny_list, self.model)
        best, which = deny_scores(features, texts)
        scores = rounded(best)
        values = [f"{score:.4f} {concepts[i]}" for score, i in zip(scores.tolist(), which.tolist(), strict=True)]
        limit = f"below {self.threshold:g} for each line of {self.deny_list.name}"
        keep = pa.array(scores < np.float32(self.threshold))
        judged = Judged.by(good, keep, self.name, value=pa.array(values, pa.string()), limit=limit)
        return Judged(kept=judged.kept, dropped=pa.concat_tables([gone, judged.dropped]))


@functools.cache
def _concepts(deny_list: Path, model: str | None) -> tuple[list[str], np.ndarray]:
    concepts = read_lines(deny_list)
    return concepts, model_of(model).encode_texts(concepts)  # [C, D]


@dataclass(frozen=True, kw_only=True)
class BestShare:
    """The rows with the highest scores of the whole: "the best 30 %".

    The threshold is the highest score that at least this share of all rows reaches; ties with it are kept. It is exact
    whatever the parts are, as scores are counted in steps of 0.0001. Rows without a score are dropped.

    Source: DataComp, arXiv:2304.14108, section 4.2 and released code.
    """

    share: float = 0.3
    column: str = "clip_score"  # or "masked_score", of `TextInPictures`
    name: ClassVar[str] = "best-share"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share must be above 0 and at most 1. Got {self.share}.")

    def count(self, rows: pa.Table) -> pa.Table:
        scores = rows[self.column].drop_null().to_numpy()
        steps, counts = np.unique(np.rint(scores.astype(np.float64) * _DIGITS).astype(np.int64), return_counts=True)
        return pa.table({"score": steps, "rows": counts.astype(np.int64)})

    def total(self, counts: Iterable[pa.Table]) -> pa.Table:
        """One row: `at_least`, the threshold, and `rows`, how many have a score; none where no row has one."""
        counts = [self.count(_none(self.column)), *counts]
        both = (
            pa.concat_tables(counts).group_by("score").aggregate([("rows", "sum")]).sort_by([("score", "descending")])
        )
        reached = np.cumsum(both["rows_sum"].to_numpy())
        if not len(reached):
            return pa.table({"at_least": pa.array([], pa.float64()), "rows": pa.array([], pa.int64())})
        at = int(np.searchsorted(reached, self.share * reached[-1] - 1e-9))
        threshold = both["score"][min(at, len(reached) - 1)].as_py() / _DIGITS
        return pa.table({"at_least": [threshold], "rows": [int(reached[-1])]})

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        assert whole.facts is not None
        threshold = whole.facts["at_least"][0].as_py() if len(whole.facts) else 1.0
        among = whole.facts["rows"][0].as_py() if len(whole.facts) else 0
        scores = rows[self.column].cast(pa.float64())
        return Judged.by(
            rows,
            pc.greater_equal(scores, threshold - 0.5 / _DIGITS),
            self.name,
            value=pc.fill_null(_shown(scores), "no score"),
            limit=f"at least {threshold:.4f}, the best {self.share:.0%} of {among:,}",
        )


def _none(column: str) -> pa.Table:
    return pa.table({column: pa.array([], pa.float32())})


def encoded(bundle: DualEncoder, rows: pa.Table) -> tuple[pa.Table, np.ndarray, pa.Table]:
    """Rows whose pictures can be read, without the pictures; their features [N, D]; the ledger of the others."""
    pixels: list[np.ndarray] = []
    features = [np.empty((0, bundle.embed_dim), np.float32)]
    good: list[int] = []
    bad: list[tuple[int, ImageError]] = []
    for row, one in enumerate(seen(rows, bundle.preprocess.pixels)):
        if isinstance(one, ImageError):
            bad.append((row, one))
            continue
        good.append(row)
        pixels.append(one)
        if len(pixels) == BATCH:
            features.append(encode_fast(bundle, pixels))
            pixels.clear()
    features.append(encode_fast(bundle, pixels))
    rest = rows.drop_columns([PICTURE])
    return rest.take(pa.array(good, pa.int64())), np.concatenate(features), unreadable(rows["key"], bad)


def caption_scores(
    bundle: DualEncoder, features: np.ndarray, texts: Sequence[Sequence[str]], prefix: str
) -> np.ndarray:
    """The mean cosine of each picture with its captions.

    Args:
        bundle: the model.
        features: [N, D] of the pictures, unit length.
        texts: N times one or more captions.
        prefix: put before each caption.

    Returns:
        [N] float32.
    """
    counts = np.array([len(captions) for captions in texts], np.int64)
    captions = [prefix + caption for of_one in texts for caption in of_one]
    if not captions:
        return np.empty(0, np.float32)
    text_features = bundle.encode_texts(captions, truncate=True)  # [T, D]
    cosines = (np.repeat(features, counts, axis=0) * text_features).sum(axis=1)
    return np.add.reduceat(cosines, np.cumsum(counts) - counts) / counts.astype(np.float32)


def rounded(scores: np.ndarray) -> np.ndarray:
    """[N] float32, to the 4 digits that are kept."""
    return np.round(scores.astype(np.float64), 4).astype(np.float32)


def judged_by_score(rows: pa.Table, column: str, least: float | None, cause: str, gone: pa.Table) -> Judged:
    """Rows held against a least score, with the ledger of those that could not be scored; None drops none."""
    if least is None:
        return Judged(kept=rows, dropped=gone)
    scores = rows[column].cast(pa.float64())
    keep = pc.greater_equal(scores, least - 0.5 / _DIGITS)
    judged = Judged.by(rows, keep, cause, value=_shown(scores), limit=f"a score of at least {least:g}")
    return Judged(kept=judged.kept, dropped=pa.concat_tables([gone, judged.dropped]))


def _shown(scores: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if score is None else f"{score:.4f}" for score in scores.to_pylist()], pa.string())
