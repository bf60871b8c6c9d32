"""From rows of features to files: which rows may answer, the best row of each file, and its facts as a hit."""

from pathlib import Path

import numpy as np

from diptych.data.facts import Facts
from diptych.search.index import Scanner
from diptych.search.results import Hit
from diptych.search.store import Snapshot


def by_file(
    snapshot: Snapshot, scanner: Scanner, query: np.ndarray, count: int, among: np.ndarray | None
) -> dict[int, tuple[float, float | None]]:
    """The best files with score and second of their best row; several frames of a video are one answer."""
    wanted = count
    while True:
        hits = scanner.search(query, wanted, among)
        best: dict[int, tuple[float, float | None]] = {}
        for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
            seconds = float(snapshot.times[row])
            best.setdefault(int(snapshot.files[row]), (score, None if np.isnan(seconds) else seconds))
        if len(best) >= count or len(hits.rows) < wanted:
            return dict(list(best.items())[:count])
        wanted *= 4


def rows_of(snapshot: Snapshot, files: np.ndarray | None, leave_out: int | None) -> np.ndarray | None:
    """[N] bool, the rows that may answer; None when all may."""
    allowed = snapshot.files >= 0
    if files is not None:
        allowed &= np.isin(snapshot.files, files)
    if leave_out is not None:
        allowed &= snapshot.files != leave_out
    return None if allowed.all() else allowed


def hit_of(path: Path, score: float, facts: Facts, seconds: float | None) -> Hit:
    return Hit(
        path=path,
        score=score,
        width=facts.width,
        height=facts.height,
        date=facts.taken,
        camera=facts.camera,
        place=facts.place,
        time=seconds,
    )
