"""Pictures with captions, for retrieval, read at random.

1. WebDataset evaluation folders, as CLIP_benchmark reads them: `SPLIT/N.tar` with `KEY.jpg` and `KEY.txt`, one caption
   a line, `SPLIT/nshards.txt`; `dataset_type.txt` says retrieval.
2. Karpathy's lists `dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json`, and the pictures they name
   anywhere below; the split "train" holds what they call "restval" too.
3. Parquet files of a Hugging Face data set, with a column of captions (`parquet_sets.py`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.texts import encoding_of, text_lines
from diptych.errors import DataError, ShardError
from diptych.sets.parquet_sets import parquet_captions
from diptych.sets.pictures import Pictures, Stored
from diptych.sets.webdataset import dataset_type, no_split, picture_member, samples, sharded_splits, which_split

_Row = tuple[str, Stored, tuple[str, ...]]  # key, picture, captions


@dataclass(frozen=True, eq=False, kw_only=True)
class CaptionedImages(Pictures):
    """One split of a retrieval set."""

    captions: tuple[tuple[str, ...], ...]  # N of them; each picture has at least one


def read_retrieval(folder: Path, *, split: str = "test") -> CaptionedImages:
    """Find the pictures of one split, with all their captions.

    Args:
        folder: in one of the layouts that this file's docstring gives.
        split: "validation" also finds valid, val and dev.

    Raises:
        DataError: the folder or the split is missing or empty, or is of another type.
        ShardError: a shard is missing or damaged, or a sample has no picture or no caption.
        MissingExtraError: its layout needs a library that is not installed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of pictures with captions. There is no such folder.")
    if sharded_splits(folder):
        rows = list(_sharded_rows(folder, split))
    elif lists := sorted(folder.glob("dataset*.json")):
        rows = _listed_rows(folder, lists[0], split)
    else:
        rows = parquet_captions(folder, split)
    if rows is None:
        raise DataError(
            f"{folder} must hold shards of pictures with captions (SPLIT/0.tar), Parquet files, or pictures and one of "
            "Karpathy's lists (dataset_*.json). It holds none of them."
        )
    if not rows:
        raise DataError(f"{folder} must hold captioned pictures. Its split {split!r} is empty.")
    keys, sources, captions = zip(*rows, strict=True)
    if without := [key for key, some in zip(keys, captions, strict=True) if not some]:
        raise DataError(f"{folder}: each picture must have a caption. {len(without):,} have none, e.g. {without[0]}.")
    return CaptionedImages(name=folder.resolve().name, split=split, keys=keys, captions=captions, _sources=sources)


def _sharded_rows(folder: Path, split: str) -> Iterator[_Row]:
    if (kind := dataset_type(folder)) not in (None, "retrieval"):
        raise DataError(f"{folder / 'dataset_type.txt'} must say retrieval. Got {kind!r}: this set has no captions.")
    for key, reader, sample in samples(folder, split):
        picture = picture_member(reader, sample, "txt")
        content = reader.read(*sample.parts["txt"])
        captions = tuple(text_lines(content.decode(encoding_of(content), "replace")))
        if not captions:
            raise ShardError(f"{reader.path}: sample {sample.key} must have a caption a line in its txt. It is empty.")
        yield key, picture, captions


def _listed_rows(folder: Path, path: Path, split: str) -> list[_Row]:
    try:
        images = json.loads(path.read_bytes())["images"]
        rows = [
            (str(one["split"]), str(one["filename"]), tuple(text["raw"].strip() for text in one["sentences"]))
            for one in images
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must be one of Karpathy's lists. It cannot be read: {error}.") from None
    splits = {"train" if name == "restval" else name for name, _, _ in rows}
    found = which_split(split, splits)
    if found is None:
        raise no_split(folder, split, splits)
    where = {one.name: one for one in folder.rglob("*") if one.suffix[1:].lower() in PICTURE_ENDINGS}
    chosen = ("train", "restval") if found == "train" else (found,)
    return [(file, where.get(file, folder / file), captions) for name, file, captions in rows if name in chosen]
