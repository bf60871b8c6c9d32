"""Films as folders of frames, read at random.

1. Clips: `SPLIT/CLASS/CLIP/*.jpg`, or `CLASS/CLIP/*.jpg`, which counts as the split "test". Beside them may lie
   `testlist01.txt`, `testlist02.txt`, ... of UCF101 with a line `CLASS/CLIP.avi` for each clip of a fold; clips in none
   of them are then left out of "test".
2. Anchors: `CLASS/ANCHOR/OFFSET.jpg`, where OFFSET is the distance in frames from the anchor, -10 to 10, and 0 itself.
3. Rare actions: `rareact.csv` as its authors give it, and `ID/*.jpg` with the frames of each of its segments.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from diptych.data.class_names import readable_names
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.prompts import read_lines
from diptych.errors import DataError
from diptych.files import natural_order
from diptych.sets.pictures import Pictures
from diptych.sets.webdataset import no_split, subfolders

Frames = Literal["middle", "all"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Clips(Pictures):
    """Frames of N clips, F of them in all. Each clip has one class."""

    classnames: tuple[str, ...]
    naming: str = ""  # as of `LabelledImages`
    clips: tuple[str, ...]  # "CLASS/CLIP"
    clip_of: np.ndarray  # [F] int64, number of the clip
    targets: np.ndarray  # [N] int64, index into classnames
    folds: np.ndarray  # [N, folds] bool, whether a clip belongs to a fold; one fold where there are no lists


@dataclass(frozen=True, eq=False, kw_only=True)
class AnchoredFrames(Pictures):
    """F frames in the neighbourhood of anchors."""

    classnames: tuple[str, ...]
    naming: str = ""  # as of `LabelledImages`
    targets: np.ndarray  # [F] int64, class of the frame's anchor
    anchor: np.ndarray  # [F] int64, number of the anchor
    offset: np.ndarray  # [F] int64, distance from the anchor in frames


@dataclass(frozen=True, eq=False, kw_only=True)
class RareActions(Pictures):
    """Frames of N segments, each judged for one action of C."""

    actions: tuple[tuple[str, str], ...]  # C of them: verb and noun
    clip_of: np.ndarray  # [F] int64, number of the segment
    targets: np.ndarray  # [N] int64, the action that the segment was judged for
    judged: np.ndarray  # [N] int64: 1 it is shown, 0 it is not, 2 to 4 only part of it is
    film: np.ndarray  # [N] int64, number of the film a segment is from


def read_clips(folder: Path, *, split: str = "test", frames: Frames = "all") -> Clips:
    """Find the clips of one split.

    Args:
        folder: in the first layout of this file's docstring.
        split: its subfolder, where there are such.
        frames: all, or only the middle one of each clip (of an even number, the second of the two).

    Raises:
        DataError: the folder or the split is missing, or a list names a clip that is not there.
    """
    root, classes = _class_folders(folder, split)
    fold_lists = sorted(folder.rglob("testlist*.txt")) if split == "test" else []
    clips = {f"{child.name}/{clip.name}": clip for child in classes for clip in _ordered(subfolders(child))}
    folds = np.ones((len(clips), 1), dtype=bool)
    if fold_lists:
        listed = [{line.split()[0].rsplit(".", 1)[0] for line in read_lines(path)} for path in fold_lists]
        if absent := sorted(set().union(*listed) - clips.keys()):
            raise DataError(
                f"{root} must hold the frames of each clip that {fold_lists[0].name} and its like name. "
                f"{len(absent):,} are absent, e.g. {absent[0]}."
            )
        clips = {key: clip for key, clip in clips.items() if any(key in one for one in listed)}
        folds = np.array([[key in one for one in listed] for key in clips])
    names = [child.name for child in classes]
    told = readable_names(names, folder)
    found = [(number, path) for number, clip in enumerate(clips.values()) for path in _chosen(clip, frames)]
    return Clips(
        name=folder.resolve().name,
        split=split,
        keys=tuple(f"{path.parent.parent.name}/{path.parent.name}/{path.name}" for _, path in found),
        classnames=told.names,
        naming=told.naming,
        clips=tuple(clips),
        clip_of=np.array([number for number, _ in found], dtype=np.int64),
        targets=np.array([names.index(key.split("/")[0]) for key in clips], dtype=np.int64),
        folds=folds,
        _sources=tuple(path for _, path in found),
    )


def read_anchors(folder: Path, *, split: str = "test") -> AnchoredFrames:
    """Find anchors and the frames around them.

    Args:
        folder: in the second layout of this file's docstring.
        split: its subfolder, where there are such.

    Raises:
        DataError: the folder or the split is missing, a name is no distance, or an anchor has no frame 0.
    """
    _, classes = _class_folders(folder, split)
    anchors = [(number, clip) for number, child in enumerate(classes) for clip in _ordered(subfolders(child))]
    rows = []
    for number, (target, clip) in enumerate(anchors):
        frames = _pictures(clip)
        try:
            offsets = [int(path.stem) for path in frames]
        except ValueError as error:
            raise DataError(
                f"Frames in {clip} must be named by their distance, e.g. -3.jpg. Not so: {error}."
            ) from None
        if offsets.count(0) != 1:
            raise DataError(f"{clip} must have the anchor's own frame, 0.jpg, once. It has {offsets.count(0)}.")
        rows += [(path, target, number, offset) for path, offset in zip(frames, offsets, strict=True)]
    paths, targets, anchor, offset = zip(*rows, strict=True)
    told = readable_names([child.name for child in classes], folder)
    return AnchoredFrames(
        name=folder.resolve().name,
        split=split,
        keys=tuple(f"{path.parent.parent.name}/{path.parent.name}/{path.name}" for path in paths),
        classnames=told.names,
        naming=told.naming,
        targets=np.array(targets),
        anchor=np.array(anchor),
        offset=np.array(offset),
        _sources=paths,
    )


def read_rare_actions(folder: Path, *, split: str = "test") -> RareActions:
    """Find the segments of RareAct.

    Args:
        folder: in the third layout of this file's docstring.
        split: for the record; there is one.

    Raises:
        DataError: the list is missing or is another, or a segment has no frame.
    """
    path = folder / "rareact.csv"
    if not path.is_file():
        raise DataError(f"{folder} must hold rareact.csv and the frames of its segments as ID/*.jpg. It has no list.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        actions = {int(row["class_id"]): (row["verb"], row["noun"]) for row in rows}
        order = sorted(actions)
        targets = [order.index(int(row["class_id"])) for row in rows]
        judged = [int(row["annotation"]) for row in rows]
        films = sorted({row["video_id"] for row in rows})
        film = [films.index(row["video_id"]) for row in rows]
        frames = [_pictures(folder / row["id"]) if (folder / row["id"]).is_dir() else [] for row in rows]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} must have RareAct's columns of ids and numbers. Not so: {error}.") from None
    if absent := [row["id"] for row, found in zip(rows, frames, strict=True) if not found]:
        raise DataError(
            f"{folder} must hold frames of each segment. {len(absent):,} have none, e.g. {absent[0]}/*.jpg."
        )
    found = [(number, one) for number, some in enumerate(frames) for one in some]
    return RareActions(
        name=folder.resolve().name,
        split=split,
        keys=tuple(f"{one.parent.name}/{one.name}" for _, one in found),
        actions=tuple(actions[number] for number in order),
        clip_of=np.array([number for number, _ in found], dtype=np.int64),
        targets=np.array(targets, dtype=np.int64),
        judged=np.array(judged, dtype=np.int64),
        film=np.array(film, dtype=np.int64),
        _sources=tuple(one for _, one in found),
    )


def _class_folders(folder: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder that holds a split's classes, and these, of which each holds folders of frames."""
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of frames. There is no such folder.")
    splits = [child.name for child in subfolders(folder) if any(map(_holds_frames, subfolders(child)))]
    if splits and split not in splits:
        raise no_split(folder, split, splits)
    root = folder / split if splits else folder
    classes = [child for child in _ordered(subfolders(root)) if _holds_frames(child)]
    if not classes or (not splits and split != "test"):
        raise DataError(f"{folder} must hold frames as CLASS/CLIP/*.jpg, or {split}/CLASS/CLIP/*.jpg. It does not.")
    return root, classes


def _holds_frames(folder: Path) -> bool:
    """Whether it is a folder of a class: its folders hold pictures."""
    return any(_pictures(clip) for clip in subfolders(folder))


def _chosen(clip: Path, frames: Frames) -> Sequence[Path]:
    found = _pictures(clip)
    return found if frames == "all" else found[len(found) // 2 :][:1]


def _ordered(folders: Sequence[Path]) -> list[Path]:
    return sorted(folders, key=lambda path: natural_order(path.name))


def _pictures(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix[1:].lower() in PICTURE_ENDINGS and path.is_file())
    return sorted(found, key=lambda path: natural_order(path.name))
