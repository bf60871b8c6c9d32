"""Labelled pictures for evaluation, read at random: folders of shards, or one folder a class.

1. WebDataset evaluation folders, as CLIP_benchmark reads them: `SPLIT/N.tar` with `KEY.jpg` and `KEY.cls`,
   `SPLIT/nshards.txt`, `classnames.txt`, `dataset_type.txt`, `zeroshot_classification_templates.txt`.
2. Class folders: `SPLIT/CLASS/picture.jpg`, or `CLASS/picture.jpg`, which counts as the split "test".
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.data.images import PICTURE_ENDINGS, open_image
from diptych.data.prompts import check_templates, read_lines
from diptych.data.tar import Span, TarReader, TarSample, scan_tar
from diptych.errors import DataError, ShardError
from diptych.files import natural_order


@dataclass(frozen=True, slots=True)
class _Member:
    reader: TarReader
    span: Span

    def read_bytes(self) -> bytes:
        return self.reader.read(*self.span)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """One split of a classification set; pictures are read when asked for. Safe in many threads; pickles."""

    name: str
    split: str
    classnames: tuple[str, ...]  # C of them; a class may have no picture in this split
    templates: tuple[str, ...] | None  # prompt templates with `{}`, when the set brings its own
    keys: tuple[str, ...]  # "SHARD/KEY" or "CLASS/FILE"
    targets: np.ndarray  # [N] int64, index into classnames
    _sources: tuple[_Member | Path, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def image_bytes(self, index: int) -> bytes:
        """The file of one picture as it is.

        Raises:
            ShardError: its shard is gone or shorter than it was.
        """
        return self._sources[index].read_bytes()

    def open(self, index: int) -> Image.Image:
        """One picture as RGB.

        Raises:
            ImageError: the picture cannot be read; the message names its key.
        """
        source = self._sources[index]
        if isinstance(source, Path):
            return open_image(source)
        file = io.BytesIO(source.read_bytes())
        file.name = f"{self.name}/{self.split}/{self.keys[index]}"  # what open_image calls it in its errors
        return open_image(file)


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
    sharded = [child.name for child in _folders(folder) if _holds_shards(child)]
    if not sharded:
        return _read_class_folders(folder, split)
    if split not in sharded:
        raise _no_split(folder, split, sharded)
    return _read_webdataset(folder, split)


def _read_webdataset(folder: Path, split: str) -> LabelledImages:
    kind = folder / "dataset_type.txt"
    if kind.exists() and (kinds := read_lines(kind)) != ["classification"]:
        raise DataError(f"{kind} must say classification. Got {' '.join(kinds)!r}: this set has no class numbers.")
    classnames = _classnames(folder / "classnames.txt")
    found = [
        (f"{path.name.split('.')[0]}/{sample.key}", *_picture_and_class(reader, sample, len(classnames)))
        for path in _shards(folder / split)
        for reader in [TarReader(path)]
        for sample in scan_tar(path).samples
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


def _shards(folder: Path) -> list[Path]:
    count = read_lines(folder / "nshards.txt")
    if len(count) != 1 or not count[0].isdecimal():
        raise DataError(f"{folder / 'nshards.txt'} must hold one number, of shards. Got {' '.join(count)!r}.")
    names = [[folder / f"{number}.tar", folder / f"{number}.tar.gz"] for number in range(int(count[0]))]
    shards = [next((path for path in either if path.exists()), None) for either in names]
    missing = [str(number) for number, path in enumerate(shards) if path is None]
    if missing:
        raise ShardError(
            f"{folder} must hold {count[0]} shards, as nshards.txt says. Missing: "
            f"{', '.join(f'{number}.tar' for number in missing)}. Fetch what is missing, or correct nshards.txt."
        )
    return [path for path in shards if path]


def _picture_and_class(reader: TarReader, sample: TarSample, classes: int) -> tuple[_Member, int]:
    where = f"{reader.path}: sample {sample.key}"
    pictures = [ending for ending in sample.parts if ending in PICTURE_ENDINGS]
    if len(pictures) != 1 or "cls" not in sample.parts:
        raise ShardError(
            f"{where} must have one cls and one picture ({', '.join(PICTURE_ENDINGS)}). "
            f"It has {', '.join(sample.parts)}."
        )
    label = reader.read(*sample.parts["cls"]).strip()
    if not label.isdigit() or int(label) >= classes:
        raise ShardError(
            f"{where} must have a class number from 0 to {classes - 1} in its cls, one for each line of "
            f"classnames.txt. Got {label[:40].decode(errors='replace')!r}."
        )
    return _Member(reader, sample.parts[pictures[0]]), int(label)


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
    splits = {child.name: _folders(child) for child in _folders(folder) if any(map(_pictures, _folders(child)))}
    if not splits:
        if not any(map(_pictures, _folders(folder))):
            raise DataError(
                f"{folder} must hold shards (SPLIT/0.tar) or one folder of pictures for each class (CLASS/*.jpg or "
                "SPLIT/CLASS/*.jpg). It holds neither."
            )
        splits = {"test": _folders(folder)}
    if split not in splits:
        raise _no_split(folder, split, splits)
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


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _holds_shards(folder: Path) -> bool:
    return any(child.name == "nshards.txt" or child.name.endswith((".tar", ".tar.gz")) for child in folder.iterdir())


def _pictures(folder: Path) -> list[Path]:
    pictures = (
        child
        for child in folder.iterdir()
        if child.suffix[1:].lower() in PICTURE_ENDINGS and not child.name.startswith(".") and child.is_file()
    )
    return sorted(pictures, key=lambda path: natural_order(path.name))


def _no_split(folder: Path, split: str, splits: Iterable[str]) -> DataError:
    return DataError(f"{folder} has no split {split!r}. It has: {', '.join(sorted(splits))}.")
