"""The overlap of evaluation sets with training pictures as a page: numbers, figure 17, and pairs to judge by eye.

The pairs stand by their score around the threshold, so that a person can see whether it parts copies from pictures that
are only alike, and choose another.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from diptych.measures.contamination import OverlapScore
from diptych.pages.page import IntervalPlot, PageTable, PairGroup, PicturePair, ReportPage


class SetRow(Protocol):
    """One evaluation set on the page; `SetOverlap` of `audit/overlap.py` is one."""

    @property
    def title(self) -> str: ...

    @property
    def n(self) -> int: ...  # pictures that can be read

    @property
    def overlap(self) -> int: ...  # pictures that training has as well

    @property
    def contamination(self) -> float: ...

    @property
    def score(self) -> OverlapScore | None: ...  # None where no result is at hand

    @property
    def corrected(self) -> float | None: ...  # p-value after Bonferroni's correction

    @property
    def is_significant(self) -> bool: ...


HEADER = (
    "data",
    "pictures",
    "overlap",
    "contamination",
    "All",
    "Clean",
    "Overlap",
    "99.5 % interval",
    "All - Clean",
    "p",
)


def overlap_cells(row: SetRow) -> list[str]:
    """A row of the table, under `HEADER`; the p-value is the corrected one, with a star where it is significant."""
    counts = [row.title, f"{row.n:,}", f"{row.overlap:,}", f"{row.contamination:.2%}"]
    score = row.score
    if score is None:
        return [*counts, *[""] * 6]
    interval = f"{score.interval.low:.1%} to {score.interval.high:.1%}" if score.interval else ""
    p_value = "" if row.corrected is None else f"{row.corrected:.2g}{'*' if row.is_significant else ''}"
    return [
        *counts,
        _share(score.all_),
        _share(score.clean),
        _share(score.overlapping),
        interval,
        f"{100 * score.gain:+.2f}",
        p_value,
    ]


def overlap_page(
    rows: Sequence[SetRow],
    above: Sequence[PicturePair],
    below: Sequence[PicturePair],
    *,
    threshold: float,
    conditions: Mapping[str, str],
) -> ReportPage:
    """The page.

    Args:
        rows: one a set.
        above: pairs that reach the threshold, those first that reach it barely.
        below: pairs that do not, those first that nearly do.
        threshold: score from which a pair counts as overlap.
        conditions: what the numbers hold under.
    """
    overlap, n = sum(row.overlap for row in rows), sum(row.n for row in rows)
    cure = "Look at them; --threshold X counts anew, and looks at no picture again."
    return ReportPage(
        title="Overlap with training pictures",
        summary=f"{overlap:,} of {n:,} evaluation pictures in {len(rows)} sets are among the training pictures.",
        headline=_headline(rows, overlap, n),
        table=PageTable(
            header=HEADER,
            rows=[overlap_cells(row) for row in rows],
            note="Overlap: pictures that training has as well; Clean: the others. p: one-sided binomial test that "
            "Overlap is no better than Clean, times the number of sets tested; a star where below 5 %.",
        ),
        intervals=_plots(rows),
        pairs=[
            PairGroup(
                heading=f"Counted: score {threshold:g} and above",
                note=f"Those nearest to the threshold first; each should be one picture twice. {cure}",
                pairs=above,
            ),
            PairGroup(
                heading=f"Not counted: score below {threshold:g}",
                note=f"Those nearest to the threshold first; none should be one picture twice. {cure}",
                pairs=below,
            ),
        ],
        conditions=conditions,
    )


def _headline(rows: Sequence[SetRow], overlap: int, n: int) -> list[tuple[str, str, str]]:
    tiles = [("contamination", f"{overlap / max(1, n):.2%}", f"{overlap:,} of {n:,} pictures")]
    gains = [(row.score.gain, row.title) for row in rows if row.score]
    if gains:
        gain, name = max(gains)
        tiles.append(("largest gain", f"{100 * gain:+.2f}", f"points of accuracy, {name}: All - Clean"))
        significant = sum(row.is_significant for row in rows)
        tiles.append(("significant", f"{significant} of {len(gains)}", "sets, one-sided, after Bonferroni"))
    return tiles


def _plots(rows: Sequence[SetRow]) -> list[IntervalPlot]:
    parted = [(row, row.score, row.score.difference_interval) for row in rows if row.score and row.overlap]
    with_both = [(row, score, interval) for row, score, interval in parted if interval and score.difference is not None]
    if not with_both:
        return []
    return [
        IntervalPlot(
            title="How much better on Overlap",
            note="with Clopper-Pearson intervals at 99.5 %.",
            x="contamination",
            y="Overlap - Clean",
            points=[
                (row.title, row.contamination, score.difference or 0.0, interval.low, interval.high)
                for row, score, interval in with_both
            ],
        ),
        IntervalPlot(
            title="What the score gained",
            note="the same intervals, times the contamination.",
            x="contamination",
            y="All - Clean",
            points=[
                (
                    row.title,
                    row.contamination,
                    score.gain,
                    score.contamination * interval.low,
                    score.contamination * interval.high,
                )
                for row, score, interval in with_both
            ],
        ),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
