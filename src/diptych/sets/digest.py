"""The bytes of a data set as one number: what a result was measured on, and what stored features are of."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from diptych.files import sha256
from diptych.sets.pictures import Pictures


def digest(folder: Path, split: str) -> str:
    """SHA-256 of a split: of the names and bytes of its shards, or where it has none, of all its files.

    What lies beside the split, such as class names and templates, is no part of it; neither is what starts with a dot.

    Args:
        folder: of the data set.
        split: its subfolder; where there is none of that name, the folder itself is the split.
    """
    base = folder / split if (folder / split).is_dir() else folder
    paths = {path.relative_to(base): path for path in base.rglob("*") if path.is_file()}
    files = {
        relative.as_posix(): path
        for relative, path in paths.items()
        if not any(part.startswith(".") for part in relative.parts)
    }
    shards = {name: path for name, path in files.items() if name.endswith((".tar", ".tar.gz"))}
    facts = [f"{name}\t{sha256(path)}" for name, path in (shards or files).items()]
    return hashlib.sha256("\n".join(sorted(facts)).encode(errors="surrogateescape")).hexdigest()


def digest_of_rows(pictures: Pictures, *columns: Sequence[object]) -> str:
    """SHA-256 of pictures that a table names, and of what it tells of them: of a set that has no folder of its own.

    Args:
        pictures: N of them; one whose file is not there counts as such.
        columns: captions and whatever else is asked with; plain values.
    """
    facts = [f"{key}\t{_sha256_of(pictures, number)}" for number, key in enumerate(pictures.keys)]
    table = json.dumps([facts, *map(list, columns)])
    return hashlib.sha256(table.encode(errors="surrogateescape")).hexdigest()


def _sha256_of(pictures: Pictures, number: int) -> str:
    try:
        return hashlib.sha256(pictures.image_bytes(number)).hexdigest()
    except OSError:
        return ""
