"""Which pictures of evaluation sets are among the training pictures, and what the score of a model gains by them.

Source: CLIP, arXiv:2103.00020, section 5, appendix C and figure 17. For each evaluation picture the training picture
that fits it best is found: candidates by a detector and a hash over all training pictures, part by part, then a second
look at these. A threshold on the second look's score parts Overlap from Clean.

Letters: n pictures of a set, D, S.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.audit.nearest import Nearest, nearest_in_training
from diptych.audit.stored_sketches import PART_SIZE, Part, PictureList, StoredSketches
from diptych.curate.copies import THRESHOLD, detector_sha256
from diptych.data.images import open_image
from diptych.errors import ConfigError, DataError
from diptych.eval.find_sets import EvaluationSet
from diptych.eval.kinds import KINDS
from diptych.eval.measure import open_task
from diptych.eval.result import DataId, ModelId, Result
from diptych.eval.result_file import write_record
from diptych.measures.contamination import OverlapScore, bonferroni, overlap_score
from diptych.pairs.sources import Pairs
from diptych.runtime import hardware
from diptych.sets.digest import digest
from diptych.sets.pictures import Pictures
from diptych.version import __version__

OVERLAP_FORMAT = "diptych-overlap-1"
SIGNIFICANT = 0.05  # of a p-value after Bonferroni's correction


@dataclass(frozen=True, kw_only=True, eq=False)
class SetOverlap:
    """What a set has in common with the training pictures."""

    data: DataId
    nearest: Nearest
    overlap: int  # pictures whose score reaches the threshold
    skipped: Mapping[str, int] = field(default_factory=dict)  # pictures that cannot be read, by cause
    measured: str = ""  # what right or wrong is of: "zero-shot"; empty where no result of this set is at hand
    score: OverlapScore | None = None
    corrected: float | None = None  # p-value times the number of sets tested

    @property
    def title(self) -> str:
        return self.data.title

    @property
    def n(self) -> int:
        """Pictures that can be read."""
        return len(self.nearest.keys)

    @property
    def contamination(self) -> float:
        """Share of these that training has as well."""
        return self.overlap / max(1, self.n)

    @property
    def is_significant(self) -> bool:
        return self.corrected is not None and self.corrected < SIGNIFICANT


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """The overlap of training pictures with evaluation sets, and its conditions."""

    train: str
    train_sha256: str
    train_pictures: int
    train_skipped: Mapping[str, int]
    threshold: float
    detector: str  # SHA-256 of its weights
    model: ModelId | None  # whose results were split
    sets: tuple[SetOverlap, ...]
    versions: Mapping[str, str]
    hardware: Mapping[str, str | int]


def find_overlap(
    pairs: Pairs,
    sets: Sequence[EvaluationSet],
    kept_in: Path,
    *,
    threshold: float = THRESHOLD,
    results: Sequence[Result] = (),
    part_size: int = PART_SIZE,
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Overlap:
    """Hold evaluation sets against training pictures.

    Args:
        pairs: the training pictures; captions are not read.
        sets: what is held against them.
        kept_in: a folder for sketches of all pictures, which are used again; the same call goes on where it stopped.
        threshold: score from which a picture counts as one of the training pictures.
        results: of one model, with rows by picture; a set without one has its contamination alone.
        part_size: pictures of which all is in memory at once, of either side.
        on_progress: called with what is looked at, how many are done, and of how many.

    Raises:
        ConfigError: the threshold lies outside 0 to 1, or the results are of several models.
        DataError: a set cannot be read.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie between 0 and 1. Got {threshold}.")
    models = {result.model for result in results}
    if len(models) > 1:
        names = ", ".join(sorted(model.name for model in models))
        raise ConfigError(f"results must be of one model. Got {names}: give the folder of one suite.")
    opened = [open_pictures(one) for one in sets]
    train = StoredSketches(_of_pairs(pairs), kept_in, part_size=part_size)
    train.make(lambda done, all_: on_progress("training pictures", done, all_))
    data = [DataId(name=one.name, split=one.split, sha256=digest(one.folder, one.split)) for one in sets]
    stored: list[StoredSketches] = []
    for one, pictures in zip(data, opened, strict=True):
        stored.append(StoredSketches(_of_set(pictures, one.sha256), kept_in, part_size=part_size, known=True))
        stored[-1].make(lambda done, all_, name=one.name: on_progress(name, done, all_))
    on_progress("compared", 0, 0)
    found = [
        _split(one, nearest, _added(its.parts()), threshold, _result_of(one, results))
        for one, nearest, its in zip(data, nearest_in_training(stored, train), stored, strict=True)
    ]
    corrected = bonferroni([one.score.p_value if one.score else None for one in found])
    machine = hardware()
    return Overlap(
        train=str(pairs.path),
        train_sha256=pairs.fingerprint(),
        train_pictures=len(pairs),
        train_skipped=_added(train.parts()),
        threshold=threshold,
        detector=detector_sha256(),
        model=next(iter(models), None),
        sets=tuple(_with_correction(one, p) for one, p in zip(found, corrected, strict=True)),
        versions={"diptych": __version__, **{name: str(machine.pop(name)) for name in ("torch", "python")}},
        hardware=machine,
    )


def write_overlap(overlap: Overlap, path: Path) -> None:
    """Write it field by field as JSON, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    write_record(path, OVERLAP_FORMAT, overlap)


def open_pictures(one: EvaluationSet) -> Pictures:
    """The pictures of a set's split that is measured.

    Raises:
        DataError: they cannot be found.
    """
    if one.task:
        return open_task(one.task, one.folder, split=one.split)
    return KINDS[one.kind].open(one.folder, split=one.split)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownPair:
    """An evaluation picture and the training picture that fits it best, for the eye."""

    left: Image.Image
    left_label: str
    right: Image.Image
    right_label: str
    note: str


def shown_pairs(
    overlap: Overlap, sets: Sequence[EvaluationSet], pairs: Pairs, count: int
) -> tuple[list[ShownPair], list[ShownPair]]:
    """The pairs nearest to the threshold, of all sets: those that reach it, and those that do not.

    Args:
        overlap: what `find_overlap` gave for the sets and the training pictures.
        sets: these.
        pairs: and these.
        count: pairs on either side, at most; fewer where a picture cannot be read any more.
    """
    rows = [
        (score, number, row)
        for number, one in enumerate(overlap.sets)
        for row, score in enumerate(one.nearest.scores.tolist())
        if one.nearest.train_keys[row]
    ]
    above = sorted(row for row in rows if row[0] >= overlap.threshold)[:count]
    below = sorted((row for row in rows if row[0] < overlap.threshold), reverse=True)[:count]
    opened: dict[int, tuple[SetOverlap, Pictures, dict[str, int]]] = {}
    for _, number, _ in above + below:
        if number not in opened:
            pictures = open_pictures(sets[number])
            opened[number] = overlap.sets[number], pictures, {key: i for i, key in enumerate(pictures.keys)}
    shown = [[_shown(*opened[number], row, pairs) for _, number, row in side] for side in (above, below)]
    return [one for one in shown[0] if one], [one for one in shown[1] if one]


def conditions_of(overlap: Overlap) -> dict[str, str]:
    """What an overlap holds under, as a person reads it."""
    machine = ", ".join(f"{name} {value}" for name, value in overlap.hardware.items())
    return {
        "training pictures": f"{overlap.train}, {overlap.train_pictures:,}",
        "SHA-256 of these": overlap.train_sha256,
        "threshold": f"{overlap.threshold:g}",
        "detector": overlap.detector,
        "model": overlap.model.name if overlap.model else "",
        "versions": ", ".join(f"{name} {value}" for name, value in overlap.versions.items()),
        "hardware": machine,
    }


def _shown(
    one: SetOverlap, pictures: Pictures, index_of: Mapping[str, int], row: int, pairs: Pairs
) -> ShownPair | None:
    nearest = one.nearest
    try:
        left = pictures.open(index_of[nearest.keys[row]])
        right = open_image(pairs[int(nearest.train_numbers[row])].picture or b"")
    except DataError:
        return None
    mirrored = ", mirrored" if nearest.mirrored[row] else ""
    return ShownPair(
        left=left,
        left_label=f"{one.title}: {nearest.keys[row]}",
        right=right,
        right_label=f"training: {nearest.train_keys[row]}",
        note=f"score {nearest.scores[row]:.3f}{mirrored}; cosine {nearest.cosines[row]:.2f}, "
        f"{nearest.hash_bits[row]} bits of the hash differ",
    )


def _split(
    data: DataId, nearest: Nearest, skipped: Mapping[str, int], threshold: float, result: Result | None
) -> SetOverlap:
    is_overlap = nearest.scores.numpy() >= threshold
    score = None
    if result is not None:
        row_of = {key: row for row, key in enumerate(nearest.keys)}
        assert result.rows.correct is not None
        correct = result.rows.correct.numpy()
        rows = [(row_of[key], right) for key, right in zip(result.rows.keys, correct, strict=True) if key in row_of]
        if rows:
            of_set, right = (np.array(column) for column in zip(*rows, strict=True))
            score = overlap_score(right.astype(bool), is_overlap[of_set])
    return SetOverlap(
        data=data,
        nearest=nearest,
        overlap=int(is_overlap.sum()),
        skipped=skipped,
        measured=result.measurement if result and score else "",
        score=score,
    )


def _result_of(data: DataId, results: Sequence[Result]) -> Result | None:
    """The result of a set whose rows are its pictures, zero-shot before others."""
    fitting = [
        result
        for result in results
        if (result.data.name, result.data.split) == (data.name, data.split)
        and result.rows.correct is not None
        and result.rows.group is None
        and result.data.sha256 in ("", data.sha256)
    ]
    return min(fitting, key=lambda result: result.measurement != "zero-shot", default=None)


def _with_correction(one: SetOverlap, corrected: float | None) -> SetOverlap:
    return dataclasses.replace(one, corrected=corrected)


def _added(parts: Iterable[Part]) -> dict[str, int]:
    skipped: Counter[str] = Counter()
    for part in parts:
        skipped.update(part.skipped)
    return dict(skipped)


def _of_pairs(pairs: Pairs) -> PictureList:
    def read(number: int) -> tuple[str, bytes | None]:
        sample = pairs[number]
        return sample.key, sample.picture

    return PictureList(name="train", count=len(pairs), fingerprint=pairs.fingerprint(), read=read)


def _of_set(pictures: Pictures, sha256: str) -> PictureList:
    return PictureList(
        name=f"{pictures.name}-{pictures.split}",
        count=len(pictures),
        fingerprint=f"{sha256} {pictures.split}",
        read=lambda number: (pictures.keys[number], pictures.image_bytes(number)),
    )
