"""Labelled pictures for evaluation, read at random: folders of shards, or one folder a class.

1. WebDataset evaluation folders, as CLIP_benchmark reads them: `SPLIT/N.tar` with `KEY.jpg` and `KEY.cls`,
   `SPLIT/nshards.txt`, `classnames.txt`, `dataset_type.txt`, `zeroshot_classification_templates.txt`.
2. Class folders: `SPLIT/CLASS/picture.jpg`, or `CLASS/picture.jpg`, which counts as the split "test".
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.pictures import Pictures
from diptych.data.prompts import check_templates, read_lines
from diptych.data.tar import TarReader, TarSample
from diptych.data.webdataset import dataset_type, no_split, picture_member, samples, sharded_splits, subfolders
from diptych.errors import DataError, ShardError
from diptych.files import natural_order


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages(Pictures):
    """One split of a classification set. Each picture has one class."""

    classnames: tuple[str, ...]  # C of them; a class may have no picture in this split
    templates: tuple[str, ...] | None  # prompt templates with `{}`, when the set brings its own
    targets: np.ndarray  # [N] int64, index into classnames


def read_labelled(folder: Path, *, split: str = "test") -> LabelledImages:
    """Find the pictures of one split, with their classes.

    Args:
        folder: in one of the two layouts that this file's docstring gives.
        split: its subfolder. Class folders without splits are the split "test", and have no other.

    Raises:
        DataError: the folder or the split is missing, or a text file beside the shards is.
        ShardError: a shard is missing or damaged, or a sample has no picture or no valid class.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of labelled pictures. There is no such folder.")
    return _read_webdataset(folder, split) if sharded_splits(folder) else _read_class_folders(folder, split)


def _read_webdataset(folder: Path, split: str) -> LabelledImages:
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
    keys, sources, targets = zip(*found, strict=True)
    return LabelledImages(
        name=folder.resolve().name,
        split=split,
        classnames=tuple(classnames),
        templates=_templates(folder / "zeroshot_classification_templates.txt"),
        keys=keys,
        targets=np.array(targets, dtype=np.int64),
        _sources=sources,
    )


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
    if len(names) != len(path.read_text(encoding="utf-8-sig").strip().split("\n")):
        raise DataError(f"{path} must name a class on each line. It has an empty line between, so numbers would shift.")
    return names


def _templates(path: Path) -> tuple[str, ...] | None:
    if not path.exists():
        return None
    try:
        return check_templates(read_lines(path))
    except DataError as error:
        raise DataError(f"{path} does not hold templates: {error}") from error


def _read_class_folders(folder: Path, split: str) -> LabelledImages:
    splits = {child.name: subfolders(child) for child in subfolders(folder) if any(map(_pictures, subfolders(child)))}
    if not splits:
        if not any(map(_pictures, subfolders(folder))):
            raise DataError(
                f"{folder} must hold shards (SPLIT/0.tar) or one folder of pictures for each class (CLASS/*.jpg or "
                "SPLIT/CLASS/*.jpg). It holds neither."
            )
        splits = {"test": subfolders(folder)}
    if split not in splits:
        raise no_split(folder, split, splits)
    # Of all splits: a class that has no picture in one of them must not shift the numbers of the others.
    classes = sorted({child.name for children in splits.values() for child in children}, key=natural_order)
    found = [
        (f"{child.name}/{path.name}", path, classes.index(child.name))
        for child in sorted(splits[split], key=lambda child: natural_order(child.name))
        for path in _pictures(child)
    ]
    keys, sources, targets = zip(*found, strict=True)
    return LabelledImages(
        name=folder.resolve().name,
        split=split,
        classnames=tuple(name.replace("_", " ") for name in classes),
        templates=None,
        keys=keys,
        targets=np.array(targets, dtype=np.int64),
        _sources=sources,
    )


def _pictures(folder: Path) -> list[Path]:
    pictures = (
        child
        for child in folder.iterdir()
        if child.suffix[1:].lower() in PICTURE_ENDINGS and not child.name.startswith(".") and child.is_file()
    )
    return sorted(pictures, key=lambda path: natural_order(path.name))
