"""What a walk through a folder leaves out: patterns as .gitignore has them, and folders that no camera made."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

IGNORE_FILE = ".diptychignore"
# Folders of systems, network disks and programs that hold copies, thumbnails or what was thrown away; lower case.
KNOWN_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("lost+found", "system volume information", "found.000", "__macosx", "lightroom previews.lrdata"),
    )
)


@dataclass(frozen=True)
class Rule:
    """One line of an ignore file, for paths below the folder that is walked."""

    text: str
    pattern: re.Pattern[str]
    is_negated: bool
    for_folders: bool

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether it speaks of this path."""
        return (is_folder or not self.for_folders) and self.pattern.fullmatch(path) is not None


def rules_of(lines: Iterable[str], below: str = "") -> tuple[Rule, ...]:
    """The rules of an ignore file.

    Args:
        lines: as .gitignore has them: `*.gif`, `drafts/`, `/2019/raw`, `**/old/*.jpg`, `!keep.gif`, `# a comment`.
        below: the folder of the file, with "/" at its end, below that which is walked.

    >>> [rule.matches("a/b.gif", False) for rule in rules_of(["*.gif", "/b.gif", "a/"])]
    [True, False, False]
    """
    found = []
    for line in lines:
        text = line.rstrip("\r\n")
        pattern = text.rstrip() if not text.endswith("\\ ") else text
        if not pattern or pattern.startswith("#"):
            continue
        is_negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        for_folders = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        if not pattern:
            continue
        anywhere = "" if "/" in pattern else "(?:[^/]+/)*"
        expression = re.escape(below) + anywhere + _expression(pattern.removeprefix("/"))
        found.append(Rule(text, re.compile(expression, re.S), is_negated, for_folders))
    return tuple(found)


def verdict(rules: Iterable[Rule], path: str, is_folder: bool) -> Rule | None:
    """The rule that decides about a path, the last that matches; None where none does."""
    decided = None
    for rule in rules:
        if rule.matches(path, is_folder):
            decided = rule
    return decided


def _expression(pattern: str) -> str:
    parts, i = [], 0
    while i < len(pattern):
        if pattern.startswith("**/", i) and (i == 0 or pattern[i - 1] == "/"):
            parts.append("(?:[^/]+/)*")
            i += 3
        elif pattern[i:] == "**" and (i == 0 or pattern[i - 1] == "/"):
            parts.append(".+")
            i += 2
        elif pattern[i] == "*":
            parts.append("[^/]*")
            i += 1
        elif pattern[i] == "?":
            parts.append("[^/]")
            i += 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            inner = pattern[i + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            parts.append(f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]")
            i = end + 1
        else:
            i += pattern[i] == "\\" and i + 1 < len(pattern)
            parts.append(re.escape(pattern[i]))
            i += 1
    return "".join(parts)
