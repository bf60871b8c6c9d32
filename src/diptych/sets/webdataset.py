"""WebDataset evaluation folders, as CLIP_benchmark writes them: `SPLIT/N.tar` and `SPLIT/nshards.txt`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.prompts import read_lines
from diptych.data.tar import TarReader, TarSample, scan_tar
from diptych.errors import DataError, ShardError
from diptych.sets.pictures import Member

_VALIDATION = ("validation", "valid", "val", "dev")


def sharded_splits(folder: Path) -> list[str]:
    """Names of the subfolders that hold shards; none where the folder is of another layout."""
    return [child.name for child in subfolders(folder) if _holds_shards(child)]


def which_split(split: str, splits: Iterable[str]) -> str | None:
    """The one of a set's splits that is meant, None where it is not there; "validation" is also valid, val or dev.

    >>> which_split("validation", ["train", "valid"])
    'valid'
    """
    there = list(splits)
    names = (split, *_VALIDATION) if split in _VALIDATION else (split,)
    return next((name for name in names if name in there), None)


def subfolders(folder: Path) -> list[Path]:
    """Those whose name does not start with a dot, by name."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def samples(folder: Path, split: str) -> Iterator[tuple[str, TarReader, TarSample]]:
    """The samples of a split, in order: a key "SHARD/KEY", and where its parts are.

    Raises:
        DataError: there is no such split, or its nshards.txt is missing or holds no number.
        ShardError: a shard is missing or damaged.
    """
    splits = sharded_splits(folder)
    found = which_split(split, splits)
    if found is None:
        raise no_split(folder, split, splits)
    for path in _shards(folder / found):
        reader = TarReader(path)
        for sample in scan_tar(path).samples:
            yield f"{path.name.split('.')[0]}/{sample.key}", reader, sample


def picture_member(reader: TarReader, sample: TarSample, other: str) -> Member:
    """The one picture of a sample that also has a part `other`, e.g. "cls".

    Raises:
        ShardError: it has no picture, or several, or lacks the other part.
    """
    pictures = [ending for ending in sample.parts if ending in PICTURE_ENDINGS]
    if len(pictures) != 1 or other not in sample.parts:
        raise ShardError(
            f"{reader.path}: sample {sample.key} must have one {other} and one picture ({', '.join(PICTURE_ENDINGS)}). "
            f"It has {', '.join(sample.parts)}."
        )
    return Member(reader, sample.parts[pictures[0]])


def dataset_type(folder: Path) -> str | None:
    """What dataset_type.txt says: "classification" or "retrieval"; None where there is no such file."""
    path = folder / "dataset_type.txt"
    return " ".join(read_lines(path)) if path.exists() else None


def no_split(folder: Path, split: str, splits: Iterable[str]) -> DataError:
    """The sentence for a split that a folder does not have."""
    return DataError(f"{folder} has no split {split!r}. It has: {', '.join(sorted(splits))}.")


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


def _holds_shards(folder: Path) -> bool:
    return any(child.name == "nshards.txt" or child.name.endswith((".tar", ".tar.gz")) for child in folder.iterdir())
