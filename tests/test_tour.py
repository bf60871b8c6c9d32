"""The tour runs whole, cell by cell, and the page of the docs shows what it is."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from diptych.data.embedded import drawings

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "notebooks" / "tour.ipynb"
NOTEBOOK = json.loads(TOUR.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("notebook_runner", ROOT / ".ci" / "notebook.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not drawings(), reason="the drawings are not installed: pip install diptych-pictograms")
def test_the_tour_runs_whole(runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    (tmp_path / "images").symlink_to(ROOT / "docs" / "images")
    work = tmp_path / "notebooks"
    work.mkdir()
    text = json.dumps(NOTEBOOK)
    assert text.count("steps = 100") == 1
    short = json.loads(text.replace("steps = 100", "steps = 2"))
    found = [output for output in runner.run_cells(short, work) if output]
    shown = [output.html for output in found if output.html]
    assert [page.count("data:image/jpeg;base64,") for page in shown] == [3, 4, 2]
    assert all(page.count("src=") == page.count("data:image/jpeg;base64,") for page in shown)
    assert sum(len(page) for page in shown) < 200_000
    best = re.findall(r"</figcaption><div[^>]*>[\d.]+% ([^<]+)<", shown[0])
    assert best == ["a crying face", "a red apple", "a sailboat"]
    printed = "".join(output.printed for output in found)
    assert "95 % interval of the difference: -" in printed
    assert "after 2 steps" in printed
    assert str(tmp_path) not in printed + "".join(shown)


def test_the_page_is_the_notebook_with_its_outputs(runner):
    """Made by `.ci/notebook.py --write`; whoever changes one changes both."""
    outputs = []
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "markdown":
            outputs.append(None)
            continue
        found = {"stream": "", "text/html": "", "text/plain": ""}
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                found["stream"] += "".join(output["text"])
            for kind, lines in output.get("data", {}).items():
                found[kind] += "".join(lines)
        outputs.append(runner.Output(*found.values()))
    assert any(output and output.html for output in outputs)
    assert runner.page_of(NOTEBOOK, outputs) == TOUR.with_suffix(".md").read_text(encoding="utf-8")
    assert runner.with_outputs(NOTEBOOK, outputs) == NOTEBOOK


def test_the_notebook_has_what_readers_of_notebooks_want():
    """By the schema of version 4.4: https://nbformat.readthedocs.io/en/latest/format_description.html."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 4)
    for cell in NOTEBOOK["cells"]:
        wanted = {"cell_type", "metadata", "source"}
        assert set(cell) == wanted | ({"execution_count", "outputs"} if cell["cell_type"] == "code" else set())
