"""A filter by words: pictures that show what a deny list names, with a threshold chosen on labelled examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.embed import embed_images, find_images
from diptych.errors import DataError
from diptych.measures.deny_scores import Threshold, deny_scores, deny_threshold
from diptych.weights.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class LabelledExamples:
    """What a threshold is chosen on."""

    folder: Path  # with pictures in deny/ and in keep/
    max_false: float = 0.01  # largest share of those in keep/ that may be denied


@dataclass(frozen=True, kw_only=True)
class Denied:
    """A picture that shows what the list names."""

    path: str
    score: float  # highest cosine with a concept
    concept: str  # which


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What a filter found."""

    denied: tuple[Denied, ...]  # the highest score first
    pictures: int  # that could be read
    threshold: float  # score from which a picture is denied
    chosen: Threshold | None  # how it was chosen; None where it was given
    skipped: Mapping[str, str]  # path to why it could not be read, examples included


def filter_pictures(
    bundle: DualEncoder,
    pictures: Sequence[Path],
    concepts: Sequence[str],
    threshold: float | LabelledExamples,
    *,
    batch_size: int = 64,
) -> Filtered:
    """Pictures that show what a deny list names.

    Args:
        bundle: the model.
        pictures: paths, as `find_images` gives them.
        concepts: the deny list, e.g. "a photo of a gun".
        threshold: the score from which a picture is denied, or examples on which it is chosen.
        batch_size: pictures a forward pass.

    Raises:
        ConfigError: max_false of the examples is not in [0, 1), or batch_size is below 1.
        DataError: the list is empty, or there are no examples of a kind, or too few.
        TextError: a concept is too long for the model.
    """
    if not concepts:
        raise DataError("a deny list must name a concept at least, and names none.")
    texts = bundle.encode_texts(concepts)  # [C, D]
    skipped: dict[str, str] = {}

    def scores_of(paths: Sequence[Path]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        embedded = embed_images(bundle, paths, batch_size=batch_size)
        skipped.update(embedded.skipped)
        return embedded.keys, *deny_scores(embedded.features, texts)

    chosen = None
    if isinstance(threshold, LabelledExamples):
        deny, keep = (scores_of(find_images([threshold.folder / kind]))[1] for kind in ("deny", "keep"))
        chosen = deny_threshold(deny, keep, max_false=threshold.max_false)
        threshold = chosen.value
    paths, scores, which = scores_of(pictures)
    denied = tuple(
        Denied(path=paths[i], score=float(scores[i]), concept=concepts[int(which[i])])
        for i in np.argsort(-scores, kind="stable").tolist()
        if scores[i] >= threshold
    )
    return Filtered(denied=denied, pictures=len(paths), threshold=threshold, chosen=chosen, skipped=skipped)
