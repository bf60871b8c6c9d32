"""Labelled pictures, read at random: WebDataset evaluation folders and class folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.data.class_names import readable_names
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.prompts import check_templates, read_lines
from diptych.data.tar import TarReader, TarSample
from diptych.data.texts import read_text
from diptych.errors import DataError, ShardError
from diptych.files import natural_order
from diptych.sets.pictures import LabelledRows, Pictures
from diptych.sets.webdataset import (
    dataset_type,
    no_split,
    picture_member,
    samples,
    subfolders,
    which_split,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages(Pictures):
    """One split of a classification set. Each picture has one class."""

    classnames: tuple[str, ...]  # C of them; a class may have no picture in this split
    naming: str = ""  # what was done to the set's labels to get them, see `readable_names`
    templates: tuple[str, ...] | None  # prompt templates with `{}`, when the set brings its own
    targets: np.ndarray  # [N] int64, index into classnames


def labelled(folder: Path, split: str, rows: LabelledRows, templates: tuple[str, ...] | None = None) -> LabelledImages:
    if not rows.rows:
        raise DataError(f"{folder} must hold labelled pictures. Its split {split!r} is empty.")
    keys, sources, targets = zip(*rows.rows, strict=True)
    names = readable_names(rows.classnames, folder)
    return LabelledImages(
        name=folder.resolve().name,
        split=split,
        classnames=names.names,
        naming=names.naming,
        templates=templates,
        keys=keys,
        targets=np.array(targets, dtype=np.int64),
        _sources=sources,
    )


def read_webdataset(folder: Path, split: str) -> LabelledImages:
    found_samples = samples(folder, split)
    if (kind := dataset_type(folder)) not in (None, "classification"):
        raise DataError(
            f"{folder / 'dataset_type.txt'} must say classification. Got {kind!r}: this set has no class numbers."
        )
    classnames = _classnames(folder / "classnames.txt")
    found = [
        (key, picture_member(reader, sample, "cls"), _class_number(reader, sample, len(classnames)))
        for key, reader, sample in found_samples
    ]
    if not found:
        raise DataError(f"{folder / split} must hold labelled pictures. Its shards are empty.")
    templates = _templates(folder / "zeroshot_classification_templates.txt")
    return labelled(folder, split, LabelledRows(classnames, found), templates)


def _class_number(reader: TarReader, sample: TarSample, classes: int) -> int:
    label = reader.read(*sample.parts["cls"]).strip()
    if not label.isdigit() or int(label) >= classes:
        raise ShardError(
            f"{reader.path}: sample {sample.key} must have a class number from 0 to {classes - 1} in its cls, one for "
            f"each line of classnames.txt. Got {label[:40].decode(errors='replace')!r}."
        )
    return int(label)


def _classnames(path: Path) -> list[str]:
    names = read_lines(path)
    if len(names) != len(read_text(path).strip().split("\n")):
        raise DataError(f"{path} must name a class on each line. It has an empty line between, so numbers would shift.")
    return names


def _templates(path: Path) -> tuple[str, ...] | None:
    if not path.exists():
        return None
    try:
        return check_templates(read_lines(path))
    except DataError as error:
        raise DataError(f"{path} does not hold templates: {error}") from error


def class_folder_rows(folder: Path, split: str) -> LabelledRows:
    splits = {child.name: subfolders(child) for child in subfolders(folder) if any(map(_pictures, subfolders(child)))}
    if not splits:
        if not any(map(_pictures, subfolders(folder))):
            raise DataError(
                f"{folder} must hold shards (SPLIT/0.tar), Parquet files, an official archive, unpacked, or one folder "
                "of pictures for each class (CLASS/*.jpg or SPLIT/CLASS/*.jpg). It holds none of them."
            )
        splits = {"test": subfolders(folder)}
    found = which_split(split, splits)
    if found is None:
        raise no_split(folder, split, splits)
    # Of all splits: a class that has no picture in one of them must not shift the numbers of the others.
    classes = sorted({child.name for children in splits.values() for child in children}, key=natural_order)
    rows = [
        (f"{child.name}/{path.name}", path, classes.index(child.name))
        for child in sorted(splits[found], key=lambda child: natural_order(child.name))
        for path in _pictures(child)
    ]
    return LabelledRows(_folder_names(folder / "classnames.txt", classes), rows)


def _folder_names(path: Path, classes: list[str]) -> list[str]:
    """Names of class folders: of the file where there is one, else their own."""
    if not path.exists():
        return classes
    names = _classnames(path)
    if len(names) != len(classes):
        raise DataError(f"{path} must have a line for each class folder. It has {len(names)}, for {len(classes)}.")
    return names


def _pictures(folder: Path) -> list[Path]:
    pictures = (
        child
        for child in folder.iterdir()
        if child.suffix[1:].lower() in PICTURE_ENDINGS and not child.name.startswith(".") and child.is_file()
    )
    return sorted(pictures, key=lambda path: natural_order(path.name))
