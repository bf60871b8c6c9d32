"""Metrics of a run as JSON lines."""

import contextlib
import json
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.files import write_text


class RunLog:
    """Appends one JSON object a line; whoever resumes first drops the lines after its checkpoint.

    Args:
        path: the file, e.g. `log.jsonl`.
        resume_step: lines after this step are dropped, and with them a last line that was cut short.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [line for line in read_log(path) if line["step"] <= resume_step]
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
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
