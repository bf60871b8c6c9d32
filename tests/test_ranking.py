from pathlib import Path

import numpy as np

from diptych.search.index import Scanner
from diptych.search.ranking import by_file, rows_of
from diptych.search.store import Snapshot


def snapshot() -> Snapshot:
    """Rows of two pictures and of a video with three frames; one row is of no file any more."""
    features = np.eye(6, dtype=np.float32)
    files = np.array([1, 2, 3, 3, 3, -1])
    times = np.array([np.nan, np.nan, 5, 15, 25, np.nan], np.float32)
    return Snapshot(features, files, times, Path("features"))


def test_frames_of_a_video_are_one_answer_by_the_best_of_them():
    held = snapshot()
    query = np.array([0.1, 0.2, 0.3, 0.9, 0.4, 1.0], np.float32)
    among = rows_of(held, None, None)
    best = by_file(held, Scanner(held.features), query, 2, among)
    assert list(best) == [3, 2]  # though the video alone has the best three rows
    assert best[3][1] == 15
    assert best[2][1] is None


def test_rows_of_other_files_do_not_answer():
    held = snapshot()
    only = rows_of(held, np.array([1, 3]), 3)
    assert only is not None
    assert only.tolist() == [True, False, False, False, False, False]
    whole = Snapshot(held.features[:2], held.files[:2], held.times[:2], held.file)
    assert rows_of(whole, None, None) is None
