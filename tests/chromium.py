"""What the tests in a browser share: a tab that writes down what it complains of and whom it asks."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

needs_chromium = pytest.mark.skipif(
    not (os.path.exists(CHROMIUM) or shutil.which("chromium")),  # noqa: PTH110
    reason="needs chromium",
)


def until(condition: Callable[[], Any]) -> None:
    """Wait for a page; its policy does not let playwright's own waiting be evaluated there."""
    end = time.monotonic() + 120  # other tests may have the cores
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def browser_tab(**options: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A tab, what its scripts complain of, and which addresses it asks."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    asked: list[str] = []
    complaints: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or CHROMIUM, args=FLAGS)
        tab = browser.new_context(**options).new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab, complaints, asked
        browser.close()
