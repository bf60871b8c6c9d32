"""A walk through a folder of pictures: which files there are, and all that is there and is not among them, with why.

Nothing that lies in a folder ends the walk. Names may be of any bytes: those that are no UTF-8 are held as Python holds
them, by surrogates, and shown by `files.shown`.
"""

import functools
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from diptych.data.endings import Kind, kind_of
from diptych.data.exclude import IGNORE_FILE, KNOWN_FOLDERS, Rule, rules_of, verdict
from diptych.errors import DataError
from diptych.files import shown

_NAMED = 5  # entries with one fault that are named each; more are counted
_NO_MEDIA = ".nomedia"  # as Android has it: nothing in this folder is for galleries
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FoundFile(NamedTuple):
    """A regular file, not opened yet."""

    path: str  # below the folder, "/" between its parts
    size: int  # bytes
    modified: int  # ns
    changed: int = 0  # ns, when the system last changed its entry, which no program sets back; 0 is not known


@dataclass(frozen=True, eq=False)
class Walk:
    """What a folder holds."""

    folder: Path = Path()
    files: dict[str, FoundFile] = field(default_factory=dict)  # pictures and videos, by path
    faults: dict[str, str] = field(default_factory=dict)  # what cannot be looked at, and why; folders end in "/"
    unread: dict[str, str] = field(default_factory=dict)  # pictures and videos without a reader here, and why
    left_out: dict[str, str] = field(default_factory=dict)  # by which rule; folders end in "/"
    mounts: set[str] = field(default_factory=set)  # folders on another disk than the one above; "" is the folder itself
    empty: set[str] = field(default_factory=set)  # folders without any entry

    def notes(self) -> list[str]:
        """What is there and was not taken, counted: a sentence each."""
        sentences = []
        for paths, why in _grouped(self.faults):
            if len(paths) > _NAMED:
                sentences.append(f"{len(paths):,} entries, {shown(self.folder / paths[0])} for one: each {why}.")
            else:
                sentences += [f"{shown(self.folder / path)} {why}." for path in paths]
        for paths, why in _grouped(self.unread):
            sentences.append(f"{len(paths):,} not read: {why}, e.g. {shown(paths[0])}.")
        return sentences

    def count_left_out(self) -> dict[str, int]:
        """How many files and folders each rule left out."""
        return dict(Counter(self.left_out.values()))


def walk_folder(folder: Path, *, exclude: Sequence[str] = ()) -> Walk:
    """Walk through a folder and its subfolders, in the order of names.

    Left out is what starts with a dot, what `KNOWN_FOLDERS` names, a folder with a file `.nomedia`, what `exclude` or a
    `.diptychignore` in any folder says; links to folders are not followed.

    Args:
        folder: which is there.
        exclude: lines as of an ignore file.

    Raises:
        DataError: the folder itself cannot be listed.
    """
    walk = Walk(folder)
    walker = _Walker(walk)
    try:
        device = folder.stat().st_dev
        if device != folder.resolve().parent.stat().st_dev:
            walk.mounts.add("")
        walker.list("", str(folder), device, rules_of(exclude))
    except OSError as error:
        raise DataError(
            f"{shown(folder)} must be a folder that can be listed, and cannot: {error.strerror or error}. Nothing that "
            "is known of it was changed."
        ) from error
    while walker.waiting:
        inside, path, device, rules = walker.waiting.pop()
        try:
            walker.list(inside, path, device, rules)
        except OSError as error:
            walk.faults[inside] = f"cannot be listed: {error.strerror or error}"
    return walk


class _Walker:
    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.waiting: list[tuple[str, str, int, tuple[Rule, ...]]] = []

    def list(self, inside: str, path: str, device: int, rules: tuple[Rule, ...]) -> None:
        """One folder: its files are taken, its folders wait."""
        with os.scandir(path) as items:
            entries = sorted(items, key=lambda item: item.name)
        names = {item.name for item in entries if item.name.startswith(".")}
        if not entries:
            self._walk.empty.add(inside)
        if inside and _NO_MEDIA in names:
            self._walk.left_out[inside] = _NO_MEDIA
            return
        if IGNORE_FILE in names:
            rules = (*rules, *self._ignore_file(inside, path))
        for item in entries:
            if item.is_dir(follow_symlinks=False):
                self._folder_entry(f"{inside}{item.name}/", item, device, rules)
            else:
                self._file_entry(f"{inside}{item.name}", item, rules)

    def _ignore_file(self, inside: str, path: str) -> tuple[Rule, ...]:
        file = Path(path, IGNORE_FILE)
        try:
            lines = file.read_text("utf-8-sig", errors="surrogateescape").split("\n")
        except OSError as error:
            self._walk.faults[f"{inside}{IGNORE_FILE}"] = f"cannot be read: {error.strerror or error}"
            return ()
        return rules_of(lines, inside)

    def _folder_entry(self, inside: str, item: "os.DirEntry[str]", device: int, rules: tuple[Rule, ...]) -> None:
        decided = verdict(rules, inside[:-1], is_folder=True) if rules else None
        if decided is None and (item.name.startswith(".") or item.name.lower() in KNOWN_FOLDERS):
            self._walk.left_out[inside] = f"{item.name}/"
            return
        if decided is not None and not decided.is_negated:
            self._walk.left_out[inside] = decided.text
            return
        try:
            own = item.stat(follow_symlinks=False).st_dev
        except OSError as error:
            self._walk.faults[inside] = f"cannot be looked at: {error.strerror or error}"
            return
        if own != device:
            self._walk.mounts.add(inside)
        self.waiting.append((inside, item.path, own, rules))

    def _file_entry(self, path: str, item: "os.DirEntry[str]", rules: tuple[Rule, ...]) -> None:
        kind = _kind(os.path.splitext(item.name)[1].lower())  # noqa: PTH122, a Path is slow
        is_link = item.is_symlink()
        if kind.what == "other" and not is_link:
            return
        decided = verdict(rules, path, is_folder=False) if rules else None
        if item.name.startswith(".") and (decided is None or not decided.is_negated):
            return
        if decided is not None and not decided.is_negated:
            self._walk.left_out[path] = decided.text
            return
        try:
            facts = item.stat()
        except FileNotFoundError:
            if is_link and kind.what != "other":  # else it is gone meanwhile
                self._walk.faults[path] = "is a link that leads nowhere"
            return
        except OSError as error:
            if kind.what != "other":
                self._walk.faults[path] = f"cannot be looked at: {error.strerror or error}"
            return
        if stat.S_ISDIR(facts.st_mode):
            self._walk.left_out[f"{path}/"] = "links to folders"
        elif kind.what == "other":
            return
        elif not stat.S_ISREG(facts.st_mode):
            what = _KINDS.get(stat.S_IFMT(facts.st_mode), "no file")
            self._walk.faults[path] = f"must be a file, and is {what}"
        elif kind.what == "unreadable":
            self._walk.unread[path] = kind.why
        else:
            self._walk.files[path] = FoundFile(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _kind(ending: str) -> Kind:
    return kind_of(f"x{ending}")


def _grouped(reasons: dict[str, str]) -> Iterable[tuple[list[str], str]]:
    """Paths by why, the most first."""
    found: dict[str, list[str]] = {}
    for path, why in reasons.items():
        found.setdefault(why, []).append(path)
    return sorted(((paths, why) for why, paths in found.items()), key=lambda item: -len(item[0]))
