"""What several commands take: pictures by path or pattern, and prompt templates."""

import datetime
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from diptych.config import unknown_name
from diptych.data.prompts import TEMPLATES, check_templates, read_lines
from diptych.errors import ConfigError, DataError

# Choices of the library, written out as it imports torch.
Precision = Literal["auto", "float32", "bfloat16"]  # of diptych.eval.features
LearnerName = Literal["probe", "prompt-weights", "tip-adapter"]  # of diptych.eval.measure


def find_pictures(names: Sequence[str], *, hint: str = "") -> list[Path]:
    """Files, folders and patterns to files, each once.

    Args:
        names: a pattern is what holds `*`, `?` or `[` and is no path itself; `**` stands for any subfolders.
        hint: put behind the message when a name that leads to nothing does not look like a file's.

    Raises:
        DataError: there is nothing under a name, or no picture in all of them.
    """
    from diptych.embed import find_images

    paths: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.exists():
            paths.append(path)
        elif found := glob.glob(str(path), recursive=True):  # noqa: PTH207, Path.glob takes no absolute one
            paths += sorted(map(Path, found))  # as a shell does
        else:
            cure = hint if not path.suffix else ""
            raise DataError(f"{name} must be a picture, a folder or a pattern, and nothing is there. {cure}".rstrip())
    return find_images(paths)


def read_templates(templates: Sequence[str] | None, file: Path | None) -> tuple[str, ...] | None:
    """The prompt templates of a command line; None when it names none.

    Args:
        templates: each a template, or the name of a published set.
        file: one template a line.

    Raises:
        ConfigError: one is neither a template nor a set.
        DataError: a template has several gaps, or the file cannot be read.
    """
    chosen: list[str] = []
    for template in templates or ():
        if "{}" in template or "{c}" in template:
            chosen.append(template)
        elif template in TEMPLATES:
            chosen += TEMPLATES[template]
        else:
            what = "a prompt template (it has no {}), nor the name of a set of them"
            raise ConfigError(unknown_name(template, "", TEMPLATES, what))
    if file:
        chosen += read_lines(file)
    return check_templates(chosen) if chosen else None


def read_day(text: str) -> datetime.date:
    """A day as 2023-06-30; 2023 and 2023-06 are the first day of theirs.

    Raises:
        ConfigError: it is no day.
    """
    if match := re.fullmatch(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?", text.strip()):
        year, month, day = (int(part or 1) for part in match.groups())
        try:
            return datetime.date(year, month, day)
        except ValueError:
            pass
    raise ConfigError(f"a day must be like 2023-06-30, 2023-06 or 2023. Got {text!r}.")
