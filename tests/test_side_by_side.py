import numpy as np
import pytest
import torch
from PIL import Image

from diptych.audit.nearest import Nearest
from diptych.audit.overlap import SetOverlap
from diptych.eval.result import DataId
from diptych.measures.contamination import overlap_score
from diptych.pages.html import render_report
from diptych.pages.page import PicturePair
from diptych.pages.side_by_side import HEADER, overlap_cells, overlap_page

CORRECT = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1, 0], bool)
IS_OVERLAP = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)


def set_overlap(name: str, *, with_score: bool) -> SetOverlap:
    nothing = torch.zeros(10)
    nearest = Nearest(
        keys=tuple("abcdefghij"),
        train_keys=("",) * 10,
        train_numbers=nothing,
        scores=nothing,
        cosines=nothing,
        hash_bits=nothing,
        mirrored=nothing,
    )
    score = overlap_score(CORRECT, IS_OVERLAP) if with_score else None
    return SetOverlap(
        data=DataId(name=name, split="test"), nearest=nearest, overlap=4, score=score, corrected=0.01 if score else None
    )


def test_a_row_says_what_figure_17_says():
    cells = dict(zip(HEADER, overlap_cells(set_overlap("sky", with_score=True)), strict=True))
    assert cells == {
        "data": "sky",
        "pictures": "10",
        "overlap": "4",
        "contamination": "40.00%",
        "All": "50.00%",
        "Clean": "33.33%",
        "Overlap": "75.00%",
        "99.5 % interval": "8.7% to 99.9%",
        "All - Clean": "+16.67",
        "p": "0.01*",
    }
    bare = overlap_cells(set_overlap("bare", with_score=False))
    assert bare == ["bare", "10", "4", "40.00%", "", "", "", "", "", ""]


def test_the_page_shows_pairs_on_either_side_and_both_plots():
    pytest.importorskip("matplotlib")
    picture = Image.new("RGB", (8, 8), "red")
    pair = PicturePair(left=picture, left_label="sky: <a>", right=picture, right_label="training: b", note="score 0.9")
    sets = [set_overlap("sky", with_score=True), set_overlap("bare", with_score=False)]
    page = overlap_page(sets, [pair], [], threshold=0.8, conditions={"training pictures": "train, 16"})
    assert page.summary == "8 of 20 evaluation pictures in 2 sets are among the training pictures."
    assert [(plot.y, len(plot.points)) for plot in page.intervals] == [("Overlap - Clean", 1), ("All - Clean", 1)]
    _, at, gain, low, high = page.intervals[1].points[0]
    assert (at, gain) == (0.4, pytest.approx(1 / 6))
    assert low < gain < high
    html = render_report(page)
    assert "sky: &lt;a&gt;" in html
    assert "Counted: score 0.8 and above" in html
    assert "Not counted" not in html  # nothing lies there
    assert html.count("<svg viewBox") + html.count("<svg role") >= 2
    assert "<script" not in html


def test_without_results_there_is_the_contamination_alone():
    page = overlap_page([set_overlap("bare", with_score=False)], [], [], threshold=0.8, conditions={})
    assert [tile[0] for tile in page.headline] == ["contamination"]
    assert page.intervals == []
