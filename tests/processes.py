"""Processes that tests start; each of them has an end."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

_SECONDS = 900  # a process of a test takes a few; other tests may have the cores


@contextlib.contextmanager
def started(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, however that ends, nor lets a test wait for its words for ever."""
    with subprocess.Popen([str(word) for word in command], text=True, **options) as process:
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()
