import dataclasses
import subprocess
import sys

import pytest

from diptych.pages.page import Bars, LinePlot, PageTable, ReportPage


def test_a_page_is_plain_data_that_needs_neither_torch_nor_matplotlib():
    code = "import sys, diptych.pages.page as p; p.ReportPage(title='t', summary='s'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "matplotlib", "diptych.pages.plots"} & set(done.stdout.split())


def test_parts_are_named_and_do_not_change():
    curve = LinePlot(title="loss", points=[(1, 2.0)])
    assert (curve.unit, curve.is_share, curve.chance) == ("", False, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.title = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="positional"):
        PageTable(["name"], [["row"]])  # pyright: ignore[reportCallIssue]


def test_a_page_has_no_part_that_it_was_not_given():
    page = ReportPage(title="t", summary="s", time=[Bars(title="b", bars=[("half", 0.5)])])
    given = {field.name for field in dataclasses.fields(page) if getattr(page, field.name)}
    assert given == {"title", "summary", "time"}
