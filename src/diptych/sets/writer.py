"""Write sets that are drawn: labelled pictures as a WebDataset evaluation folder, the layout that `labelled.py` reads
first and other programs read too; pictures with a right and a wrong caption as SugarCrepe's, which `choices.py` reads.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from diptych.errors import DataError
from diptych.files import atomic_folder
from diptych.sets.choices import ChoiceImages

_PER_SHARD = 1000  # pictures

LabelledPicture = tuple[str, Image.Image, int]  # key, picture, number of the class


def write_labelled(
    folder: Path,
    classnames: Sequence[str],
    splits: Mapping[str, Iterable[LabelledPicture]],
    *,
    templates: Sequence[str] = (),
    about: str,
) -> dict[str, int]:
    """Write pictures and their classes as PNG, whole or not at all. The same rows give the same bytes.

    Args:
        folder: must not be there yet.
        classnames: C names, one line each.
        splits: rows by name of the split, drawn one after the other; keys have no dot.
        templates: prompt templates.
        about: what was done and from what, for README.md.

    Returns:
        Pictures written, by split.

    Raises:
        DataError: the folder is there, a split has no picture, or it cannot be written.
    """
    _check_new(folder)
    with atomic_folder(folder) as aside:
        counts = {split: _write_split(aside / split, rows) for split, rows in splits.items()}
        empty = [split for split, count in counts.items() if not count]
        if empty or not counts:
            raise DataError(f"{folder} must get a picture in each split. Without: {', '.join(empty) or 'any'}.")
        (aside / "classnames.txt").write_text("".join(f"{name}\n" for name in classnames), encoding="utf-8")
        (aside / "dataset_type.txt").write_text("classification\n", encoding="utf-8")
        if templates:
            lines = "".join(f"{template.replace('{}', '{c}')}\n" for template in templates)
            (aside / "zeroshot_classification_templates.txt").write_text(lines, encoding="utf-8")
        _write_readme(aside, folder.name, about)
    return counts


def write_choices(folder: Path, choices: ChoiceImages, *, about: str) -> int:
    """Write pictures as PNG with their captions, one list a kind of change, whole or not at all.

    The same pictures and captions give the same bytes.

    Args:
        folder: must not be there yet.
        choices: keys are file names that end in .png.
        about: what was done and from what, for README.md.

    Returns:
        Pictures written.

    Raises:
        DataError: the folder is there, or cannot be written.
    """
    _check_new(folder)
    with atomic_folder(folder) as aside:
        (aside / "pictures").mkdir()
        for index, key in enumerate(choices.keys):
            choices.open(index).save(aside / "pictures" / key, "PNG")
        for kind in dict.fromkeys(choices.kinds):
            rows = [number for number, one in enumerate(choices.kinds) if one == kind]
            listed = {
                str(place): {
                    "filename": choices.keys[choices.image_of[number]],
                    "caption": choices.right[number],
                    "negative_caption": choices.wrong[number],
                }
                for place, number in enumerate(rows)
            }
            (aside / f"{kind}.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
        _write_readme(aside, folder.name, about)
    return len(choices)


def _check_new(folder: Path) -> None:
    if folder.exists():
        raise DataError(f"{folder} must not be there yet. Remove it, or choose another name.")


def _write_readme(aside: Path, name: str, about: str) -> None:
    (aside / "README.md").write_text(f"# {name}\n\n{about.strip()}\n", encoding="utf-8")


def _write_split(folder: Path, rows: Iterable[LabelledPicture]) -> int:
    folder.mkdir()
    left, count, shards = iter(rows), 0, 0
    while batch := list(islice(_members(left), 2 * _PER_SHARD)):
        with tarfile.open(folder / f"{shards}.tar", "w") as tar:
            for name, content in batch:
                member = tarfile.TarInfo(name)  # time 0 and no owner, so that bytes depend on the pictures alone
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        count, shards = count + len(batch) // 2, shards + 1
    (folder / "nshards.txt").write_text(f"{shards}\n", encoding="utf-8")
    return count


def _members(rows: Iterator[LabelledPicture]) -> Iterator[tuple[str, bytes]]:
    for key, picture, number in rows:
        file = io.BytesIO()
        picture.save(file, "PNG")
        yield f"{key}.png", file.getvalue()
        yield f"{key}.cls", str(number).encode()
