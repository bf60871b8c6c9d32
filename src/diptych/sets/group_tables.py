"""Pictures of people and places with groups, as their archives lay them out: FairFace, UTKFace, PHASE, Dollar Street,
GeoDE.

What a table tells of pictures that are not there, and what cannot be understood, is counted and left out. Age bands are
FairFace's.
"""

import ast
import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.texts import read_text
from diptych.errors import DataError
from diptych.files import natural_order
from diptych.sets.pictures import LabelledRows, Stored
from diptych.sets.webdataset import no_split, which_split

NO_PICTURE = "rows of the table without a picture"
UNKNOWN = "values that the set does not define"

_BANDS = (("0-2", 2), ("3-9", 9), ("10-19", 19), ("20-29", 29), ("30-39", 39), ("40-49", 49), ("50-59", 59))
_AGES = (*(name for name, _ in _BANDS), "60-69", "70+")
_RACES = ("White", "Black", "Latino Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")
_UTK_RACES = ("White", "Black", "Asian", "Indian", "Other")
GENDERS = ("Female", "Male")
_UNTOLD = ("", "unsure", "disagreement", "unknown", "none", "nan")
_PHASE_COLUMNS = ("age", "gender", "skintone", "ethnicity")
_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True, kw_only=True)
class GroupRows:
    """What a layout gives: N pictures with their groups."""

    keys: Sequence[str]
    sources: Sequence[Stored]
    groups: Mapping[str, Sequence[str]]  # each [N]; "" where it is not told
    classes: Sequence[str] = ()  # [N] name of the class; empty where there are none
    left_out: Mapping[str, int] = field(default_factory=dict)  # by cause

    def labelled(self, names: Iterable[str] = ()) -> LabelledRows:
        """The rows as of a labelled set; those whose class is not told are left out.

        Args:
            names: of all classes, where some may have no picture.
        """
        classnames = list(names) or sorted({name for name in self.classes if name}, key=natural_order)
        known = zip(self.keys, self.sources, self.classes, strict=True)
        rows = [(key, source, classnames.index(name)) for key, source, name in known if name]
        return LabelledRows(classnames, rows)


def fairface(root: Path, split: str) -> GroupRows:
    """`fairface_label_val.csv` with columns file, age, gender, race, and `val/1.jpg`. Its val part is "test" here."""
    part = _part(root, split, {"train": "train", "test": "val"})
    kept = _Kept(root)
    for row in read_table(root / f"fairface_label_{part}.csv", ("file", "age", "gender", "race")):
        age = "70+" if row["age"] == "more than 70" else row["age"]
        kept.add(
            row["file"],
            age=kept.known(age, _AGES),
            gender=kept.known(row["gender"], GENDERS),
            race=kept.known(row["race"].replace("_", " "), _RACES),
        )
    return kept.rows("gender")


def utkface(root: Path, split: str) -> GroupRows:
    """`AGE_GENDER_RACE_DATE.jpg`, also with `.chip` in it, in the folder itself. There are no splits.

    The archive has some names in which a field is missing: they are counted and left out.
    """
    _part(root, split, {"test": ""})
    kept = _Kept(root)
    for path in sorted(root.iterdir(), key=lambda path: natural_order(path.name)):
        if path.suffix[1:].lower() not in PICTURE_ENDINGS or not path.name[0].isdigit():
            continue
        fields = path.name.split(".")[0].split("_")
        if len(fields) != 4 or not all(field.isdigit() for field in fields):
            kept.left_out["names in which a field is missing"] += 1
            continue
        age, gender, race = map(int, fields[:3])
        kept.add(
            path.name,
            age=age_band(age),
            gender=kept.known(str(gender), {"0": "Male", "1": "Female"}),
            race=kept.known(str(race), dict(zip("01234", _UTK_RACES, strict=True))),
        )
    return kept.rows("gender")


def phase(root: Path, split: str) -> GroupRows:
    """`phase_gcc_val_regions_*.json`: `{PICTURE: {"person0": {"region", "annotations": {"age", "gender", ...}}}}`.

    Its val part is "test" here. Groups are of a picture where it shows one annotated person; others are counted and
    left out. What annotators were unsure of, or not at one about, is not told.
    """
    part = _part(root, split, {"train": "train", "test": "val"})
    path = next(iter(sorted(root.glob(f"phase_gcc_{part}_regions_*.json"))), None)
    if path is None:
        raise DataError(f"{root} must hold phase_gcc_{part}_regions_*.json. It does not.")
    kept = _Kept(root)
    for name, picture in _json_object(path).items():
        people = [value for key, value in picture.items() if re.fullmatch(r"person\d+", key)]
        if len(people) != 1:
            kept.left_out["pictures that show not one annotated person"] += 1
            continue
        told = people[0].get("annotations", {})
        kept.add(name, **{column: str(told.get(column, "")).replace("_", " ") for column in _PHASE_COLUMNS})
    return kept.rows()


def dollar_street(root: Path, split: str) -> GroupRows:
    """`images_v2_imagenet_test.csv`, or another `images_*_test.csv`: imageRelPath, topics, region, country, income.

    A class is the first topic. `income` becomes four groups of equally many pictures (quartiles of the split).
    """
    lists = {path.stem.rpartition("_")[2]: path for path in sorted(root.glob("images_*.csv"), reverse=True)}
    path = lists.get(split) or lists.get(which_split(split, lists) or "")
    if path is None and len(lists) == 1:
        path = next(iter(lists.values()))  # `images_v2.csv`, which has no splits
    if path is None:
        raise no_split(root, split, lists)
    kept = _Kept(root)
    table = read_table(path, ("imageRelPath", "topics", "income"))
    bands = _quartiles([row["income"] for row in table])
    for row, band in zip(table, bands, strict=True):
        topics = _listed(row["topics"])
        kept.left_out["pictures of several topics, of which the first counts"] += len(topics) > 1
        kept.add(
            row["imageRelPath"],
            region=_first(row, ("region", "region.name", "region_name", "region.id")),
            country=_first(row, ("country.name", "country_name", "country", "country.id")),
            income=band,
            topic=topics[0] if topics else "",
        )
    return kept.rows("topic", hidden=True)


def geode(root: Path, split: str) -> GroupRows:
    """`index.csv` with object, region, ip_country and file_path, or file_name as its first release; and `images/`."""
    _part(root, split, {"test": ""})
    kept = _Kept(root)
    for row in read_table(root / "index.csv", ("region",)):
        name = _first(row, ("file_path", "file_name"))
        kept.add(
            name,
            region=row["region"],
            country=_first(row, ("ip_country", "country")),
            object=_first(row, ("object", "script_name")).replace("_", " "),
        )
    return kept.rows("object", hidden=True)


def age_band(years: int) -> str:
    """FairFace's: 0-2, 3-9, 10-19, ..., 70+."""
    return next((name for name, last in (*_BANDS, ("60-69", 69)) if years <= last), "70+")


def is_geode(path: Path) -> bool:
    """Whether an `index.csv` has GeoDE's columns."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = set(file.readline().strip().split(","))
    return "region" in header and bool({"object", "script_name"} & header)


def utkface_root(folder: Path) -> Path | None:
    """Where pictures are named as UTKFace's: the folder or one in it."""
    inside = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    named = re.compile(r"\d{1,3}_[01]_[0-4]_\d{8,}\.(chip\.)?jpe?g|\d{1,3}_[01]_[0-4]_\d{8,}\.jpg\.chip\.jpg", re.I)
    return next((one for one in (folder, *inside) if any(named.fullmatch(path.name) for path in one.iterdir())), None)


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; a cell that is missing is empty.

    Cells are parted by the comma, semicolon, tab or bar that its header has most of, as spreadsheets of several
    languages write them.

    Raises:
        DataError: it cannot be read, has no row, or lacks a column.
    """
    text = read_text(path).lstrip("\ufeff")
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    try:
        lines = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{path} must be a CSV file. It cannot be read: {error}.") from None
    rows = [{name: (value or "").strip() for name, value in row.items() if name} for row in lines]
    missing = [column for column in columns if rows and column not in rows[0]]
    if missing or not rows:
        what = f"It lacks {', '.join(missing)}" if missing else "It has none"
        raise DataError(f"{path} must have rows with columns {', '.join(columns) or 'of groups'}. {what}.")
    return rows


class _Kept:
    """Rows as they are found; a picture is looked for where the table says, then by its name alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: Counter[str] = Counter()
        self._rows: list[tuple[str, Path, dict[str, str]]] = []

    @functools.cached_property
    def _by_name(self) -> dict[str, Path]:
        found = (path for path in sorted(self.root.rglob("*")) if path.suffix[1:].lower() in PICTURE_ENDINGS)
        return {name: path for path in found for name in (path.name, path.stem)}

    def known(self, value: str, values: Iterable[str] | Mapping[str, str]) -> str:
        """The value, or what a mapping makes of it; "" where it is not one of them, which is counted."""
        if value in values:
            return values[value] if isinstance(values, Mapping) else value
        self.left_out[UNKNOWN] += value.lower() not in _UNTOLD
        return ""

    def add(self, name: str, **groups: str) -> None:
        path = self.root / name
        if not path.is_file():
            found = self._by_name.get(Path(name).name) if name else None
            if found is None:
                self.left_out[NO_PICTURE] += 1
                return
            path = found
        told = {column: "" if value.lower() in _UNTOLD else value for column, value in groups.items()}
        self._rows.append((name, path, told))

    def rows(self, classes: str = "", *, hidden: bool = False) -> GroupRows:
        """All of them.

        Args:
            classes: the column that is the class as well.
            hidden: whether it is the class alone, and no group.
        """
        columns = [name for name in (self._rows[0][2] if self._rows else {}) if not (hidden and name == classes)]
        return GroupRows(
            keys=[key for key, _, _ in self._rows],
            sources=[path for _, path, _ in self._rows],
            groups={name: [told[name] for _, _, told in self._rows] for name in columns},
            classes=[told[classes] for _, _, told in self._rows] if classes else (),
            left_out={cause: count for cause, count in self.left_out.items() if count},
        )


def _part(root: Path, split: str, parts: Mapping[str, str]) -> str:
    found = which_split(split, parts)
    found = "test" if found is None and split == parts.get("test") else found  # as the authors call it
    if found is None:
        raise no_split(root, split, parts)
    return parts[found]


def _first(row: Mapping[str, str], names: Sequence[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _listed(text: str) -> list[str]:
    """Topics as the table writes them, a list of Python."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = text
    names = found if isinstance(found, list | tuple) else [found]
    return [str(name).replace("_", " ") for name in names if str(name)]


def _quartiles(incomes: Sequence[str]) -> list[str]:
    """Which fourth of the incomes each lies in, "" where it is no number."""
    values = np.array([float(text) if re.fullmatch(r"\d+(\.\d*)?", text) else np.nan for text in incomes])
    if np.isnan(values).all():
        return [""] * len(incomes)
    edges = np.nanquantile(values, [0.25, 0.5, 0.75])
    names = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
    return ["" if np.isnan(one) else names[int((one > edges).sum())] for one in values]


def _json_object(path: Path) -> dict:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} must be JSON. It is not: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} must be an object with a key for each picture. It is something else.")
    return content
