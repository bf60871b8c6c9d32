"""Folders of pictures as pairs: with texts beside them, or in a folder for each class."""

import collections
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from diptych.data.class_names import codes_among, readable_names
from diptych.data.exclude import IGNORE_FILE, KNOWN_FOLDERS, Rule, rules_of, verdict
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.prompts import read_lines
from diptych.data.texts import read_text, text_lines
from diptych.errors import DataError
from diptych.files import natural_order
from diptych.pairs.samples import Sample, captions_of, counted
from diptych.pairs.tables import TABLES, read_picture

_TEXTS = (".txt", ".caption")  # endings of texts, lower case
_SPLITS = frozenset(("train", "val", "valid", "validation", "dev", "test"))


class PictureFolder:
    """Pictures of a folder and its subfolders, in natural order, each with `NAME.txt` beside, one caption a line.

    Where no picture has a text and all lie in folders of several names, the name of a picture's folder is its caption,
    as `readable_names` tells it, or the line of `classnames.txt`.

    A sample's key is the picture's path from the folder. The fingerprint covers the names and sizes of all files. What
    starts with a dot is passed over, and so are `KNOWN_FOLDERS` of thumbnails, what a `.diptychignore` says, links that
    lead in a circle, and what may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        walk = _Walk(path)
        found = sorted(walk.found, key=lambda item: [natural_order(part) for part in item[0].split("/")])
        self._passed = walk.passed
        self._names = [name for name, _ in found if PurePosixPath(name).suffix[1:].lower() in PICTURE_ENDINGS]
        self._facts = hashlib.sha256(repr(found).encode("utf-8", "surrogatepass")).hexdigest()
        self.shard_ends = [len(self._names)]
        texts = {_stem(name): name for name, _ in reversed(found) if PurePosixPath(name).suffix.lower() in _TEXTS}
        self._texts = {name: texts[_stem(name)] for name in self._names if _stem(name) in texts}
        self._classes = {} if self._texts else _class_names(path, self._names)
        read = {*self._names, *self._texts.values()}
        self._others = collections.Counter(
            PurePosixPath(name).suffix[1:].lower() or "(none)" for name, _ in found if name not in read
        )
        self._tables = [name for name, _ in found if PurePosixPath(name).suffix.lower() in TABLES]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """One sample; see `Pairs`."""
        name = self._names[index]
        picture = read_picture(self.path / name)
        return Sample(name, {PurePosixPath(name).suffix[1:].lower(): picture} | self._text(name))

    def key(self, index: int) -> str:
        """The key of one sample; see `Pairs`."""
        return self._names[index]

    def captions(self, index: int) -> list[str]:
        """The captions of one sample; see `Pairs`."""
        return captions_of(Sample(self._names[index], self._text(self._names[index])))

    def fingerprint(self) -> str:
        """See `Pairs`."""
        return self._facts

    def check(self) -> list[str]:
        """See `Pairs`."""
        if not self._texts and not self._classes:
            tables = f" If {self._tables[0]} has the captions, give it as the source." if self._tables else ""
            others = f", and {counted(self._others)}" if self._others else ""
            raise DataError(
                f"{self.path} must hold texts beside its pictures (NAME.txt), a metadata.csv, or a folder of pictures "
                f"for each class. It has {len(self):,} pictures{others}.{tables}"
            )
        said = []
        tops = {name.split("/")[0] for name in self._classes}
        if tops and tops <= _SPLITS:
            raise DataError(
                f"{self.path} has the splits {', '.join(sorted(tops))}, which would be trained on together. Give "
                f"one, e.g. {self.path / ('train' if 'train' in tops else sorted(tops)[0])}."
            )
        if self._classes:
            names = list(dict.fromkeys(self._classes.values()))
            few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            said.append(f"no picture has a text, so the names of {len(names):,} folders are the captions: {few}")
            said += filter(None, [codes_among(names).rstrip(".")])
        elif without := len(self) - len(self._texts):
            said.append(f"{without:,} of {len(self):,} pictures have no text beside them")
        if self._others:
            said.append(f"files that are no pictures and no texts of one: {counted(self._others)}")
        if self._passed:
            said.append(f"passed over: {', '.join(f'{reason} {n:,}' for reason, n in self._passed.most_common())}")
        return [f"{self.path}: {sentence}." for sentence in said]

    def _text(self, name: str) -> dict[str, bytes]:
        if self._classes:
            return {"txt": self._classes[name].encode("utf-8", "surrogateescape")}
        try:
            return {"txt": (self.path / self._texts[name]).read_bytes()}
        except (KeyError, OSError):
            return {}


class _Walk:
    """The files below a folder: path from it and size; what is passed over, by reason."""

    def __init__(self, folder: Path) -> None:
        self.found: list[tuple[str, int]] = []
        self.passed: collections.Counter[str] = collections.Counter()
        self._enter(folder, "", (), ())

    def _enter(self, folder: Path, prefix: str, above: tuple[str, ...], rules: tuple[Rule, ...]) -> None:
        try:
            real = os.path.realpath(folder)
            if real in above:
                self.passed["links that lead in a circle"] += 1
                return
            with os.scandir(folder) as entries:
                there = list(entries)
            if any(entry.name == IGNORE_FILE for entry in there):
                rules = (*rules, *rules_of(text_lines(read_text(folder / IGNORE_FILE)), prefix))
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder} cannot be read: {error.strerror}. Give a folder of pictures.") from error
            self.passed["folders that cannot be read"] += 1
            return
        for entry in there:
            try:
                if entry.name.startswith("."):
                    self.passed["names with a dot in front"] += 1
                    continue
                decided = verdict(rules, prefix + entry.name, entry.is_dir())
                if decided and not decided.is_negated:
                    self.passed[f"by {IGNORE_FILE}"] += 1
                elif entry.is_dir():
                    if not decided and entry.name.lower() in KNOWN_FOLDERS:
                        self.passed[f"{entry.name}/"] += 1
                    else:
                        self._enter(Path(entry.path), f"{prefix}{entry.name}/", (*above, real), rules)
                elif entry.is_file():
                    self.found.append((prefix + entry.name, entry.stat().st_size))
                else:
                    self.passed["links to nothing, and no files"] += 1
            except OSError:
                self.passed["files that cannot be read"] += 1


def _stem(name: str) -> str:
    """A path without its ending, the same for NAME.JPG and NAME.txt."""
    return name.removesuffix(PurePosixPath(name).suffix)


def _class_names(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The class of each picture by the name of its folder; nothing where these are not folders of classes."""
    folders = {name: PurePosixPath(name).parent.name for name in names}
    if len(set(folders.values())) < 2 or "" in folders.values():
        return {}
    labels = sorted(set(folders.values()), key=natural_order)
    listed = path / "classnames.txt"
    names_of = read_lines(listed) if listed.is_file() else readable_names(labels, path).names
    if len(names_of) != len(labels):
        raise DataError(f"{listed} must have a line for each class folder. It has {len(names_of)}, for {len(labels)}.")
    plain = dict(zip(labels, names_of, strict=True))
    return {name: " ".join(plain[folder].split()) for name, folder in folders.items()}
