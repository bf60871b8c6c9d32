"""Official archives of labelled sets, unpacked, known by their files: what a split is, and each picture's class.

The files may lie in the folder itself or up to two folders down, as archives unpack them. Sets whose archive is one
folder a class need no reader of their own.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from diptych.data.prompts import read_lines
from diptych.errors import DataError
from diptych.sets import arrays, group_tables
from diptych.sets.matlab import read_mat
from diptych.sets.pictures import LabelledRows
from diptych.sets.webdataset import no_split, subfolders, which_split


def official_rows(folder: Path, split: str) -> LabelledRows | None:
    """Pictures and classes of one split of an official archive; None where the folder is none that is known.

    Raises:
        DataError: there is no such split, or a file of the archive is missing or damaged.
        MissingExtraError: a list is MATLAB's, and scipy is not installed.
    """
    for marker, read in _LAYOUTS.items():
        root = next((one for one in _roots(folder) if any(one.glob(marker))), None)
        if root and (rows := read(root, split)):
            return rows
    return None


def training_folds(folder: Path) -> tuple[np.ndarray, ...]:
    """STL-10's ten folds: positions in its split "train", which of them a model is trained on at a time.

    Raises:
        DataError: the folder has no `fold_indices.txt`, or it is damaged.
    """
    path = next((root / "fold_indices.txt" for root in _roots(folder) if (root / "fold_indices.txt").exists()), None)
    if path is None:
        raise DataError(f"{folder} must hold fold_indices.txt, as STL-10 does. It has no folds.")
    try:
        return tuple(np.array(line.split(), dtype=np.int64) for line in read_lines(path))
    except ValueError as error:
        raise DataError(f"{path} must hold numbers of pictures, a fold a line. Not so: {error}.") from None


def food101(root: Path, split: str) -> LabelledRows:
    """`meta/test.txt` with a line `apple_pie/1011328`, and `images/apple_pie/1011328.jpg`."""
    classes = read_lines(root / "meta" / "classes.txt")
    lines = _listed(root, split, {"train": ["meta/train.txt"], "test": ["meta/test.txt"]})
    rows = [(line, root / "images" / f"{line}.jpg", _number(line.split("/")[0], classes, root)) for line in lines]
    return LabelledRows(_spaced(classes), rows)


def dtd(root: Path, split: str) -> LabelledRows:
    """The first of the ten splits: `labels/test1.txt` with a line `banded/banded_0002.jpg`, and `images/`."""
    parts = {"train": ["labels/train1.txt"], "validation": ["labels/val1.txt"], "test": ["labels/test1.txt"]}
    classes = [child.name for child in subfolders(root / "images")]
    lines = _listed(root, split, parts)
    rows = [(line, root / "images" / line, _number(line.split("/")[0], classes, root)) for line in lines]
    return LabelledRows(_spaced(classes), rows)


def sun397(root: Path, split: str) -> LabelledRows:
    """The first of the ten partitions: `Partitions/Testing_01.txt` with a line `/a/abbey/sun_x.jpg`."""
    classes = [line.lstrip("/") for line in read_lines(root / "Partitions" / "ClassName.txt")]
    lines = _listed(root, split, {"train": ["Partitions/Training_01.txt"], "test": ["Partitions/Testing_01.txt"]})
    files = [line.lstrip("/") for line in lines]
    rows = [(file, root / file, _number(file.rpartition("/")[0], classes, root)) for file in files]
    return LabelledRows([name.split("/", 1)[-1].replace("/", " ").replace("_", " ") for name in classes], rows)


def aircraft(root: Path, split: str) -> LabelledRows:
    """`images_variant_test.txt` with a line `0481847 737-200`, `variants.txt`, and `images/`."""
    classes = read_lines(root / "variants.txt")
    parts = {"train": "trainval", "validation": "val", "test": "test"}
    lines = _listed(root, split, {name: [f"images_variant_{part}.txt"] for name, part in parts.items()})
    pairs = [line.split(" ", 1) for line in lines]
    return LabelledRows(
        classes, [(key, root / "images" / f"{key}.jpg", _number(name, classes, root)) for key, name in pairs]
    )


def pets(root: Path, split: str) -> LabelledRows:
    """`annotations/test.txt` with a line `Abyssinian_201 1 1 1` (picture, class from 1, ...), and `images/`."""
    lines = _listed(root, split, {"train": ["annotations/trainval.txt"], "test": ["annotations/test.txt"]})
    everything = [*read_lines(root / "annotations" / "trainval.txt"), *read_lines(root / "annotations" / "test.txt")]
    names = {int(line.split()[1]) - 1: line.split()[0].rpartition("_")[0] for line in everything if line[0] != "#"}
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{root / 'annotations'} must number the breeds from 1. A number is missing.")
    rows = [(line.split()[0], int(line.split()[1]) - 1) for line in lines if line[0] != "#"]
    classes = [names[number] for number in range(len(names))]
    return LabelledRows(_spaced(classes), [(key, root / "images" / f"{key}.jpg", number) for key, number in rows])


def flowers102(root: Path, split: str) -> LabelledRows:
    """`setid.mat` and `imagelabels.mat`, both counting from 1, and `jpg/image_00001.jpg`. The flowers have no names."""
    parts = {"train": ["trnid"], "validation": ["valid"], "test": ["tstid"]}
    found = which_split(split, parts)
    if found is None:
        raise no_split(root, split, parts)
    try:
        labels = np.atleast_1d(read_mat(root / "imagelabels.mat")["labels"])
        ids = np.atleast_1d(read_mat(root / "setid.mat")[parts[found][0]])
        rows = [(f"image_{n:05d}", root / "jpg" / f"image_{n:05d}.jpg", int(labels[n - 1]) - 1) for n in ids.tolist()]
        return LabelledRows([str(number) for number in range(int(labels.max()))], rows)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{root} must hold the lists of the flowers. They do not fit: {error}.") from None


def stanford_cars(root: Path, split: str) -> LabelledRows:
    """`cars_test_annos_withlabels.mat`, or `devkit/cars_train_annos.mat`, and the names in `devkit/cars_meta.mat`."""
    parts = {"train": "cars_train", "test": "cars_test"}
    found = which_split(split, parts)
    if found is None:
        raise no_split(root, split, parts)
    names = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    try:
        classes = [str(name) for name in read_mat(root / "devkit" / "cars_meta.mat")["class_names"]]
        table = np.atleast_1d(read_mat(root / names[found])["annotations"])
        rows = [(str(row["fname"]), root / parts[found] / str(row["fname"]), int(row["class"]) - 1) for row in table]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{root} must hold the lists of Stanford Cars. They cannot be read: {error}.") from None
    return LabelledRows(classes, rows)


def gtsrb(root: Path, split: str) -> LabelledRows:
    """`GT-final_test.csv` and its pictures; for train `Final_Training/Images/00000/GT-00000.csv` and those beside."""
    names = {"train": "GT-0*.csv", "test": "GT-final_test.csv"}
    found = which_split(split, names)
    if found is None:
        raise no_split(root, split, names)
    lists = sorted(root.rglob(names[found]))
    # The list of the test part lies apart from its pictures, and once more among them, there without the classes.
    pictures = next((path.parent for path in sorted(root.rglob("00000.ppm")) if path.parent.name == "Images"), root)
    rows = []
    for path in lists:
        for row in _csv(path, ";"):
            where = path.parent if found == "train" else pictures
            key = f"{path.parent.name}/{row['Filename']}" if found == "train" else row["Filename"]
            if row.get("ClassId"):
                rows.append((key, where / row["Filename"], int(row["ClassId"])))
    return LabelledRows([str(number) for number in range(43)], rows)


def clevr_counts(root: Path, split: str) -> LabelledRows:
    """`scenes/CLEVR_val_scenes.json` and `images/val/`: how many things a picture shows. Its val part is "test" here.

    The test part of the archive has no scenes.
    """
    parts = {"train": "train", "test": "val"}
    found = which_split(split, parts)
    if found is None:
        raise no_split(root, split, parts)
    part = parts[found]
    path = root / "scenes" / f"CLEVR_{part}_scenes.json"
    try:
        scenes = json.loads(path.read_bytes())["scenes"]
        counts = [(scene["image_filename"], len(scene["objects"])) for scene in scenes]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must list the things of each scene. It cannot be read: {error}.") from None
    names = [str(number) for number in range(3, 11)]
    return LabelledRows(names, [(f, root / "images" / part / f, _number(str(n), names, root)) for f, n in counts])


def hateful_memes(root: Path, split: str) -> LabelledRows:
    """`dev.jsonl` with a line `{"id", "img": "img/x.png", "label", "text"}`; the newer lists end in `_seen`."""
    parts = {
        "train": ["train.jsonl"],
        "validation": ["dev.jsonl", "dev_seen.jsonl"],
        "test": ["test_seen.jsonl", "test.jsonl"],
    }
    try:
        found = [json.loads(line) for line in _listed(root, split, parts)]
        rows = [(str(row["img"]), root / row["img"], int(row["label"])) for row in found]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root} must give img and label in each line of its lists. Not so: {error}.") from None
    return LabelledRows(["0", "1"], rows)


def tiny_imagenet(root: Path, split: str) -> LabelledRows:
    """`train/n01443537/images/*.JPEG`, and `val/val_annotations.txt` with a line `val_0.JPEG n03444034 ...`.

    The test part of the archive has no classes.
    """
    found = which_split(split, ("train", "val"))
    if found is None:
        raise no_split(root, split, ("train", "val"))
    classes = read_lines(root / "wnids.txt")
    if found == "val":
        lines = [line.split() for line in read_lines(root / "val" / "val_annotations.txt")]
        rows = [(file, root / "val" / "images" / file, _number(id_, classes, root)) for file, id_, *_ in lines]
    else:
        paths = [path for id_ in classes for path in sorted((root / "train" / id_ / "images").glob("*.JPEG"))]
        rows = [(path.name, path, classes.index(path.parent.parent.name)) for path in paths]
    return LabelledRows(classes, rows)


def geode(root: Path, split: str) -> LabelledRows | None:
    """See `group_tables`; None where `index.csv` is another table."""
    return group_tables.geode(root, split).labelled() if group_tables.is_geode(root / "index.csv") else None


# What a layout is known by, a path below its root, and what reads it.
_LAYOUTS: dict[str, Callable[[Path, str], LabelledRows | None]] = {
    "fine_label_names.txt": arrays.cifar100,
    "batches.meta.txt": arrays.cifar10,
    "batches.meta": arrays.cifar_pickles,
    "file.txt~": arrays.cifar_pickles,  # of the Python version of CIFAR-100
    "*-images*idx3-ubyte*": arrays.mnist,
    "test_X.bin": arrays.stl10,
    "*_32x32.mat": arrays.svhn,
    "fer2013.csv": arrays.fer2013,
    "meta/classes.txt": food101,
    "labels/test1.txt": dtd,
    "Partitions/ClassName.txt": sun397,
    "images_variant_test.txt": aircraft,
    "annotations/trainval.txt": pets,
    "setid.mat": flowers102,
    "devkit/cars_meta.mat": stanford_cars,
    "GT-final_test.csv": gtsrb,
    "GTSRB": gtsrb,
    "scenes/CLEVR_val_scenes.json": clevr_counts,
    "dev*.jsonl": hateful_memes,
    "wnids.txt": tiny_imagenet,
    "fairface_label_*.csv": lambda root, split: group_tables.fairface(root, split).labelled(group_tables.GENDERS),
    "[0-9]*_[01]_[0-4]_[0-9]*.jpg": lambda root, split: group_tables.utkface(root, split).labelled(
        group_tables.GENDERS
    ),
    "images_v2*.csv": lambda root, split: group_tables.dollar_street(root, split).labelled(),
    "index.csv": geode,
}


def _roots(folder: Path) -> Iterator[Path]:
    yield folder
    children = subfolders(folder)
    yield from children
    if len(children) < 9:  # else these are classes, and to look into each would take long
        for child in children:
            yield from subfolders(child)[:9]


def _listed(root: Path, split: str, lists: dict[str, list[str]]) -> list[str]:
    """The lines of a split's list, the first of its names that is there."""
    found = which_split(split, lists)
    if found is None:
        raise no_split(root, split, lists)
    paths = [root / name for name in lists[found]]
    return read_lines(next((path for path in paths if path.exists()), paths[0]))


def _number(name: str, classes: Sequence[str], root: Path) -> int:
    if name not in classes:
        raise DataError(f"{root} must have {name!r} among its {len(classes)} classes. Is a file from another version?")
    return classes.index(name)


def _spaced(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _csv(path: Path, separator: str) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))
