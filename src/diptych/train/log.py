"""Metrics of a run as JSON lines: one writer, and readers that follow it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.files import write_text


class RunLog:
    """Appends one JSON object a line; whoever resumes first drops the lines after its checkpoint.

    Args:
        path: the file, e.g. `log.jsonl`.
        resume_step: lines after this step are dropped, and with them a last line that was cut short. At 0 all are:
            what was measured before the first step is measured anew.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [line for line in read_log(path) if line["step"] <= resume_step] if resume_step else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """One line, out of this process's hands when this returns; `step` must be among the values.

        Raises:
            DataError: the disk is full.
        """
        line = json.dumps(values, allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path} could not be written: {error.strerror}. Make room and go on.") from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # `write` has said what could not be flushed
            self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut short by a kill is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line, grouped ones as GROUP/NAME."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", number) for key, number in value.items())
        else:
            yield name, value


class LogReader:
    """Reads a log while it grows. Writes nothing.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = (0, 0)  # device and number, as whoever resumes puts another in its place
        self._read = 0  # bytes, up to the end of a line
        self.lines: list[dict[str, Any]] = []

    def update(self) -> int:
        """Read what has come since.

        Returns:
            How many lines are as they were before: fewer than there were when somebody has resumed the run and dropped
            some of them.

        Raises:
            DataError: the file cannot be read.
        """
        before = self.lines
        try:
            try:
                fresh = self._fresh()
            except json.JSONDecodeError:  # another file, which the system gave the number of the one before
                self._file = (0, 0)
                fresh = self._fresh()
        except (OSError, json.JSONDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"{error}, on one of its lines"
            raise DataError(f"{self._path} cannot be read: {reason}. Is it the log of a run?") from error
        went_on = self.lines is before  # `_fresh` begins another list where the file is another one
        self.lines = [*self.lines, *fresh]
        if went_on:
            return len(before)
        pairs = zip(before, self.lines, strict=False)
        return next((n for n, (old, new) in enumerate(pairs) if old != new), min(len(before), len(self.lines)))

    def _fresh(self) -> list[dict[str, Any]]:
        """Whole lines after `self.lines`, of which nothing is left where the file is another one."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._file, self.lines = (0, 0), []
            return []
        with file:
            facts = os.fstat(file.fileno())
            if self._file != (facts.st_dev, facts.st_ino) or facts.st_size < self._read:
                self._file, self._read, self.lines = (facts.st_dev, facts.st_ino), 0, []
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")  # the last line may be under way
        lines = [json.loads(line) for line in whole.splitlines()]
        self._read += len(whole) + len(end)
        return lines
