"""Recipes as modules, for their tests."""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"


@contextlib.contextmanager
def imported(name: str) -> Iterator[types.ModuleType]:
    """One of them, as it is imported from its folder; nothing is drawn, so the renderer need not be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        patch.setitem(sys.modules, "resvg_py", types.ModuleType("resvg_py"))
        yield importlib.import_module(name)
