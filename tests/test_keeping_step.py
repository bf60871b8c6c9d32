import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browsing import SHOTS, browsing, jpeg_of
from diptych.cli import keeping_step as keeping_module
from diptych.cli.keeping_step import keeping_step
from diptych.errors import MissingExtraError


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_comes_into_a_folder_is_found_while_it_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(keeping_module, "_SETTLE", 100)
    monkeypatch.setattr(keeping_module, "_LOOK", 50)
    with browsing(tmp_path) as browser:
        steps: Any = [(browser.library, browser.gallery)]
        with keeping_step(steps, watch=True, seconds=30):
            assert browser.gallery.is_indexing
            until(lambda: not browser.gallery.is_indexing)
            (browser.library.folder / "new.jpg").write_bytes(jpeg_of(SHOTS[0]))
            until(lambda: browser.state()[1] == 6)
            (browser.library.folder / "new.jpg").unlink()
            until(lambda: browser.state()[1] == 5)
        assert not any(thread.name == "diptych-index" for thread in threading.enumerate())


def test_without_watching_it_is_brought_in_step_once(tmp_path: Path):
    with browsing(tmp_path) as browser:
        (browser.library.folder / "new.jpg").write_bytes(jpeg_of(SHOTS[0]))
        steps: Any = [(browser.library, browser.gallery)]
        with keeping_step(steps, watch=False, seconds=30):
            until(lambda: not browser.gallery.is_indexing)
        assert browser.state()[1] == 6
        assert browser.gallery.progress is None


def test_watching_needs_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with browsing(tmp_path) as browser:
        steps: Any = [(browser.library, browser.gallery)]
        with (
            pytest.raises(MissingExtraError, match="watching folders needs an extra"),
            keeping_step(steps, watch=True, seconds=1),
        ):
            pass
