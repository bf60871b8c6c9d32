"""Processes that tests start: each has an end, also when the test waits for words that never come."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SECONDS = 300  # a process of a test takes a few; other tests may have the cores


@contextlib.contextmanager
def started(command: Sequence[str | Path], *, seconds: float = SECONDS, **options: Any) -> Iterator[subprocess.Popen]:
    """A process beside the test, killed after `seconds`, so that reading from it ends, and at the end of the block."""
    with subprocess.Popen(command, text=True, **options) as process:
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()
