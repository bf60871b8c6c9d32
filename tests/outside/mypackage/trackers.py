"""A tracker: each line of the log into a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Lines:
    def __init__(self, folder: Path, *, resume_step: int, recipe: Mapping[str, Any]) -> None:
        self._file = (folder / "lines.txt").open("a", encoding="utf-8")
        self._file.write(f"{recipe['name']} from step {resume_step}\n")

    def write(self, *, step: int, **values: Any) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def close(self) -> None:
        self._file.close()
