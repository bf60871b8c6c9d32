"""Pictures with groups, for audits: who or where they are of, beside their classes if they have any.

1. FairFace, UTKFace, PHASE, Dollar Street and GeoDE as their authors give them (`group_tables.py`).
2. Any labelled set (`open.py`), or a folder of pictures, with a table of groups: a CSV file of one's own, or
   `groups.csv` in the folder. Its column `key` (or file, image, picture, path) is the picture's key or the name of its
   file; `class` its class, with which the folder's own labels are not read; every other column a kind of group. An
   empty cell tells nothing.
3. `GROUP/CLASS/picture.jpg`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.images import PICTURE_ENDINGS
from diptych.errors import DataError
from diptych.files import natural_order
from diptych.sets import group_tables
from diptych.sets.group_tables import NO_PICTURE, GroupRows, read_table
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures, Stored
from diptych.sets.webdataset import subfolders

_TABLE = "groups.csv"
_KEYS = ("key", "file", "image", "picture", "path", "filename", "file_name")
_CLASS = "class"
_NO_ROW = "pictures without a row in the table"
_SEVERAL = "rows of the table whose name several pictures have"


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupedImages(Pictures):
    """One split of a set with groups."""

    groups: Mapping[str, tuple[str, ...]]  # by kind of group, each [N]; "" where it is not told
    classnames: tuple[str, ...] = ()  # C of them; none where the set has no classes
    targets: np.ndarray | None = None  # [N] int64, index into classnames; -1 where it is not told
    naming: str = ""  # as of `LabelledImages`
    templates: tuple[str, ...] | None = None  # likewise
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows and values that could not be used, by cause

    def labelled(self) -> LabelledImages:
        """The set for classification.

        Raises:
            DataError: it has no classes, or a picture has none.
        """
        if self.targets is None or (self.targets < 0).any():
            raise DataError(f"{self.name} must have a class for each picture. It has not: give a column {_CLASS!r}.")
        return LabelledImages(
            name=self.name,
            split=self.split,
            keys=self.keys,
            classnames=self.classnames,
            naming=self.naming,
            templates=self.templates,
            targets=self.targets,
            _sources=self._sources,
        )


def read_grouped(folder: Path, *, split: str = "test", table: Path | None = None) -> GroupedImages:
    """Find the pictures of one split, with their groups.

    Args:
        folder: in one of the layouts that this file's docstring gives.
        split: "test" is also FairFace's and PHASE's val.
        table: a CSV file of groups; by default what the layout has, or `groups.csv` in the folder.

    Raises:
        DataError: the folder is of no such layout or has no such split, or the table does not fit it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of pictures with groups. There is no such folder.")
    if table is None and (folder / _TABLE).is_file():
        table = folder / _TABLE
    if table:
        return _with_table(folder, split, table)
    for root, read in _archives(folder):
        return _from_rows(folder, split, read(root, split))
    rows = _group_folders(folder)
    if rows is None:
        raise DataError(
            f"{folder} must hold pictures with groups: FairFace, UTKFace, PHASE, Dollar Street or GeoDE as they come, "
            f"GROUP/CLASS/*.jpg, or any pictures with a table of groups ({_TABLE}, or one that is named)."
        )
    return _from_rows(folder, split, rows)


def _archives(folder: Path) -> list[tuple[Path, Callable[[Path, str], GroupRows]]]:
    """The first archive that is known by its files, in the folder or one below."""
    for root in (folder, *subfolders(folder)):
        if any(root.glob("fairface_label_*.csv")):
            return [(root, group_tables.fairface)]
        if any(root.glob("phase_gcc_*_regions_*.json")):
            return [(root, group_tables.phase)]
        if any(root.glob("images_*.csv")):
            return [(root, group_tables.dollar_street)]
        if (root / "index.csv").is_file() and group_tables.is_geode(root / "index.csv"):
            return [(root, group_tables.geode)]
    root = group_tables.utkface_root(folder)
    return [(root, group_tables.utkface)] if root else []


def _from_rows(folder: Path, split: str, rows: GroupRows) -> GroupedImages:
    if not rows.keys:
        causes = ", ".join(f"{cause}: {count:,}" for cause, count in rows.left_out.items())
        raise DataError(f"{folder} must hold pictures with groups. None can be used ({causes or 'it is empty'}).")
    names = sorted({name for name in rows.classes if name}, key=natural_order)
    return GroupedImages(
        name=folder.resolve().name,
        split=split,
        keys=tuple(rows.keys),
        groups={column: tuple(values) for column, values in rows.groups.items()},
        classnames=tuple(names),
        targets=np.array([names.index(name) if name else -1 for name in rows.classes]) if names else None,
        left_out=dict(rows.left_out),
        _sources=tuple(rows.sources),
    )


def _with_table(folder: Path, split: str, path: Path) -> GroupedImages:
    """A labelled set, or pictures without labels, and a table."""
    table = read_table(path)
    base = None if _CLASS in table[0] else _labelled(folder, split)
    keys, sources = (base.keys, base._sources) if base else _bare(folder)
    column = next((name for name in _KEYS if name in table[0]), None)
    if column is None:
        raise DataError(
            f"{path} must have a column {_KEYS[0]} (or {', '.join(_KEYS[1:])}). It has {', '.join(table[0])}."
        )
    left_out: Counter[str] = Counter()
    row_of = _rows_by_picture(keys, [row[column] for row in table], left_out)
    if not row_of:
        raise DataError(f"{path} must name pictures of {folder} in its column {column}. It names none of them.")
    left_out[_NO_ROW] = len(keys) - len(row_of)
    columns = [name for name in table[0] if name not in (column, _CLASS)]
    told = {
        name: tuple(table[row_of[index]][name] if index in row_of else "" for index in range(len(keys)))
        for name in columns
    }
    classes = [table[row_of[i]].get(_CLASS, "") if i in row_of else "" for i in range(len(keys))]
    names = sorted(set(filter(None, classes)), key=natural_order)
    own = np.array([names.index(one) if one else -1 for one in classes]) if names else None
    return GroupedImages(
        name=folder.resolve().name,
        split=split,
        keys=keys,
        groups=told,
        classnames=base.classnames if base else tuple(names),
        naming=base.naming if base else "",
        templates=base.templates if base else None,
        targets=base.targets if base else own,
        left_out={cause: count for cause, count in left_out.items() if count},
        _sources=sources,
    )


def _labelled(folder: Path, split: str) -> LabelledImages | None:
    try:
        return read_labelled(folder, split=split)
    except DataError:
        if split != "test":  # pictures without labels have no other
            raise
        return None


def _rows_by_picture(keys: tuple[str, ...], names: list[str], left_out: Counter[str]) -> dict[int, int]:
    """Which row each picture has, by its key, else by the name of its file, with or without its ending."""
    whole = {key: index for index, key in enumerate(keys)}
    short: dict[str, set[int]] = defaultdict(set)
    for index, key in enumerate(keys):
        file = key.rpartition("/")[2]
        short[file].add(index)
        short[file.rpartition(".")[0] or file].add(index)
    row_of: dict[int, int] = {}
    for row, name in enumerate(names):
        found = {whole[name]} if name in whole else short.get(name, set()) or short.get(Path(name).name, set())
        if len(found) == 1:
            row_of.setdefault(next(iter(found)), row)
        else:
            left_out[_SEVERAL if found else NO_PICTURE] += 1
    return row_of


def _bare(folder: Path) -> tuple[tuple[str, ...], tuple[Stored, ...]]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in PICTURE_ENDINGS)
    return tuple(path.relative_to(folder).as_posix() for path in paths), tuple(paths)


def _group_folders(folder: Path) -> GroupRows | None:
    found = [
        (f"{group.name}/{child.name}/{path.name}", path, group.name, child.name)
        for group in subfolders(folder)
        for child in subfolders(group)
        for path in sorted(child.iterdir(), key=lambda path: natural_order(path.name))
        if path.suffix[1:].lower() in PICTURE_ENDINGS
    ]
    if not found:
        return None
    keys, sources, groups, classes = zip(*found, strict=True)
    return GroupRows(keys=keys, sources=sources, groups={"group": groups}, classes=classes)
