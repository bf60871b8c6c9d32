"""Run a notebook's cells in one process, as Jupyter would: `python .ci/notebook.py docs/notebooks/tour.ipynb`.

With `--write` the outputs are kept, in the notebook and as a page of the docs beside it. It needs no Jupyter. Cells run
in a folder of their own, beside which lie the pictures of the docs.
"""

import argparse
import ast
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOT_RUN = "<!-- not run: here; tests/test_tour.py runs the notebook that it is from -->"


@dataclass(frozen=True)
class Output:
    """What one cell gave."""

    printed: str = ""
    html: str = ""  # of the last expression, where it shows itself
    plain: str = ""  # its repr


def cells_of(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and source of each cell."""
    for cell in notebook["cells"]:
        yield cell["cell_type"], "".join(cell["source"])


def run_cells(notebook: dict[str, Any], folder: Path) -> list[Output | None]:
    """The output of each cell; None of a cell of text.

    Args:
        notebook: as its JSON has it.
        folder: where the cells run.
    """
    scope: dict[str, Any] = {"__name__": "__main__"}
    outputs: list[Output | None] = []
    with contextlib.chdir(folder):
        for number, (kind, source) in enumerate(cells_of(notebook), 1):
            outputs.append(_run_cell(source, scope, f"cell {number}", folder) if kind == "code" else None)
    return outputs


def _run_cell(source: str, scope: dict[str, Any], name: str, folder: Path) -> Output:
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), scope)
        value = eval(compile(ast.Expression(last.value), name, "eval"), scope) if last else None
    show = getattr(value, "_repr_html_", None)
    output = Output(printed.getvalue(), show() if show else "", "" if value is None or show else repr(value))
    # No path of this machine in what is kept.
    return Output(*(text.replace(str(folder), ".") for text in (output.printed, output.html, output.plain)))


def with_outputs(notebook: dict[str, Any], outputs: list[Output | None]) -> dict[str, Any]:
    """The notebook with what its cells gave."""
    cells = []
    count = 0
    for cell, output in zip(notebook["cells"], outputs, strict=True):
        if output is None:
            cells.append(cell)
            continue
        count += 1
        found: list[dict[str, Any]] = []
        if output.printed:
            text = output.printed.splitlines(keepends=True)
            found.append({"name": "stdout", "output_type": "stream", "text": text})
        if output.html or output.plain:
            data = {"text/html": [output.html]} if output.html else {"text/plain": [output.plain]}
            found.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
        cells.append({**cell, "execution_count": count, "outputs": found})
    return {**notebook, "cells": cells}


def page_of(notebook: dict[str, Any], outputs: list[Output | None]) -> str:
    """The same as a page in Markdown; what shows itself stands in it as HTML."""
    parts = []
    for (kind, source), output in zip(cells_of(notebook), outputs, strict=True):
        if output is None:
            parts.append(source.strip())
            continue
        assert kind == "code"
        parts.append(f"{_NOT_RUN}\n```python\n{source.strip()}\n```")
        if text := (output.printed + output.plain).strip():
            parts.append(f"```text\n{text}\n```")
        if output.html:
            parts.append(output.html)
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    asked = parser.parse_args()
    path = asked.notebook.resolve()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve() / path.parent.name
        work.mkdir()
        (work.parent / "images").symlink_to(path.parent.parent / "images")
        outputs = run_cells(notebook, work)
    if asked.write:
        text = json.dumps(with_outputs(notebook, outputs), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(page_of(notebook, outputs), encoding="utf-8")
    for output in outputs:
        sys.stdout.write(f"{output.printed}{output.plain}" if output else "")


if __name__ == "__main__":
    main()
