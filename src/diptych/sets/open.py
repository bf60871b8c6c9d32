"""Labelled pictures for evaluation, read at random: the one door to every layout.

1. WebDataset evaluation folders, as CLIP_benchmark reads them: `SPLIT/N.tar` with `KEY.jpg` and `KEY.cls`,
   `SPLIT/nshards.txt`, `classnames.txt`, `dataset_type.txt`, `zeroshot_classification_templates.txt`.
2. Parquet files of a Hugging Face data set: `data/SPLIT-*.parquet` (`parquet_sets.py`).
3. Official archives, unpacked: CIFAR, MNIST, STL-10, Food-101, GTSRB and others (`official.py`, `arrays.py`).
4. Class folders: `SPLIT/CLASS/picture.jpg`, or `CLASS/picture.jpg`, which counts as the split "test". Where
   `classnames.txt` lies beside, its lines name the folders in their order.
"""

from pathlib import Path

from diptych.errors import DataError
from diptych.sets.labelled import LabelledImages, class_folder_rows, labelled, read_webdataset
from diptych.sets.official import official_rows
from diptych.sets.parquet_sets import parquet_rows
from diptych.sets.webdataset import sharded_splits


def read_labelled(folder: Path, *, split: str = "test") -> LabelledImages:
    """Find the pictures of one split, with their classes.

    Args:
        folder: in one of the layouts that this file's docstring gives.
        split: "validation" also finds valid, val and dev. Class folders without splits are the split "test", and have
            no other.

    Raises:
        DataError: the folder or the split is missing, or a file of its layout is.
        ShardError: a shard is missing or damaged, or a sample has no picture or no valid class.
        MissingExtraError: its layout needs a library that is not installed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of labelled pictures. There is no such folder.")
    if sharded_splits(folder):
        return read_webdataset(folder, split)
    rows = parquet_rows(folder, split) or official_rows(folder, split) or class_folder_rows(folder, split)
    return labelled(folder, split, rows)
