"""Pictures with captions, for retrieval, read at random.

WebDataset evaluation folders, as CLIP_benchmark reads them: `SPLIT/N.tar` with `KEY.jpg` and `KEY.txt`, one caption a
line, `SPLIT/nshards.txt`; `dataset_type.txt` says retrieval.
"""

from dataclasses import dataclass
from pathlib import Path

from diptych.data.pictures import Pictures
from diptych.data.webdataset import dataset_type, picture_member, samples, sharded_splits
from diptych.errors import DataError, ShardError


@dataclass(frozen=True, eq=False, kw_only=True)
class CaptionedImages(Pictures):
    """One split of a retrieval set."""

    captions: tuple[tuple[str, ...], ...]  # N of them; each picture has at least one


def read_retrieval(folder: Path, *, split: str = "test") -> CaptionedImages:
    """Find the pictures of one split, with all their captions.

    Args:
        folder: in the layout that this file's docstring gives.
        split: its subfolder.

    Raises:
        DataError: the folder or the split is missing or empty, or is of another type.
        ShardError: a shard is missing or damaged, or a sample has no picture or no caption.
    """
    if not folder.is_dir() or not sharded_splits(folder):
        raise DataError(f"{folder} must hold shards of pictures with captions (SPLIT/0.tar). It holds none.")
    if (kind := dataset_type(folder)) not in (None, "retrieval"):
        raise DataError(f"{folder / 'dataset_type.txt'} must say retrieval. Got {kind!r}: this set has no captions.")
    keys, sources, captions = [], [], []
    for key, reader, sample in samples(folder, split):
        keys.append(key)
        sources.append(picture_member(reader, sample, "txt"))
        text = reader.read(*sample.parts["txt"]).decode("utf-8", "replace")
        captions.append(tuple(line.strip() for line in text.split("\n") if line.strip()))
        if not captions[-1]:
            raise ShardError(f"{reader.path}: sample {sample.key} must have a caption a line in its txt. It is empty.")
    if not keys:
        raise DataError(f"{folder / split} must hold captioned pictures. Its shards are empty.")
    return CaptionedImages(
        name=folder.resolve().name,
        split=split,
        keys=tuple(keys),
        captions=tuple(captions),
        _sources=tuple(sources),
    )
