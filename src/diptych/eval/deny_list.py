"""A filter by words: pictures that show what a deny list names, with a threshold chosen on labelled examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diptych.embed import embed_images, find_images
from diptych.errors import ConfigError, DataError
from diptych.weights.bundle import Bundle

_MARGIN = 1e-5  # by which a score may differ when a picture is encoded in another batch


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where pictures are denied, and what that did on the examples it was chosen on."""

    value: float  # a picture whose score is at least this is denied
    caught: float  # share of the examples to deny that are
    false: float  # share of the examples to keep that are denied
    denied: int  # examples to deny
    kept: int  # examples to keep


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
    bundle: Bundle,
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

    def scores_of(paths: Sequence[Path]) -> tuple[tuple[str, ...], Tensor, Tensor]:
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
        Denied(path=paths[i], score=scores[i].item(), concept=concepts[int(which[i])])
        for i in scores.argsort(descending=True).tolist()
        if scores[i] >= threshold
    )
    return Filtered(denied=denied, pictures=len(paths), threshold=threshold, chosen=chosen, skipped=skipped)


def deny_scores(image_features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor]:
    """How much each picture shows of a deny list.

    Args:
        image_features: [N, D], unit length.
        text_features: [C, D], unit length, one row a concept.

    Returns:
        [N] the highest cosine, and [N] int64, of which concept.
    """
    best = (image_features @ text_features.T).max(dim=1)
    return best.values, best.indices


def deny_threshold(denied: Tensor, kept: Tensor, *, max_false: float = 0.01) -> Threshold:
    """The lowest threshold that denies at most a share of the pictures to keep.

    Chosen and measured on the same examples, `caught` and `false` flatter; a few hundred of each kind make it little.

    Args:
        denied: [A] scores of examples to deny.
        kept: [B] scores of examples to keep.
        max_false: largest share of these that may be denied.

    Raises:
        ConfigError: max_false is not in [0, 1).
        DataError: there are no examples of a kind, or too few to keep for so small a share.
    """
    if not 0 <= max_false < 1:
        raise ConfigError(f"max_false must be at least 0 and below 1. Got {max_false}.")
    if not len(denied) or not len(kept):
        raise DataError(f"a threshold needs examples of both kinds. Got {len(denied)} to deny and {len(kept)} to keep.")
    allowed = math.floor(max_false * len(kept) + 1e-9)
    if max_false > 0 and allowed == 0:
        raise DataError(
            f"a share of {max_false:g} needs at least {math.ceil(1 / max_false)} examples to keep. Got {len(kept)}: "
            "add some, or raise max_false."
        )
    value = kept.sort(descending=True).values[allowed].item() + _MARGIN  # a tie is kept
    return Threshold(
        value=value,
        caught=(denied >= value).float().mean().item(),
        false=(kept >= value).float().mean().item(),
        denied=len(denied),
        kept=len(kept),
    )
