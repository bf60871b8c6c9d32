"""Zero-shot classification measured: top-1, top-5 and mean per class of a labelled set.

Source: CLIP, arXiv:2103.00020, sections 3.1.2 and 3.1.4. Letters: B, C, D, N, T.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.classify import Encoder, check_features, class_weights
from diptych.data.prompts import PLAIN, check_templates
from diptych.errors import ShapeError
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.measures.metrics import Interval, bootstrap_interval, mean_per_class, top_k_correct
from diptych.sets.labelled import LabelledImages

_ROWS_AT_ONCE = 8192  # of the [N, C] scores


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """The pictures of a labelled set as features, without those that could not be read."""

    image_features: Tensor  # [N, D], of unit length from `encode_labelled`
    targets: Tensor  # [N] int64, on the CPU
    kept: tuple[int, ...]  # N positions in the labelled set
    skipped: Mapping[str, int]  # pictures left out, by cause


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotResult:
    """Shares between 0 and 1. Ties count against the model."""

    top1: float
    top5: float | None  # absent up to five classes, where it is 1 by its meaning
    mean_per_class: float
    interval: Interval  # of top1, over pictures
    classes: int
    images: int  # that were scored
    skipped: Mapping[str, int]  # pictures that could not be read, by cause; not among `images`
    templates: tuple[str, ...]
    predictions: Tensor  # [N] int64; of classes that tie the first, even where `top1` counts a miss
    targets: Tensor  # [N] int64
    correct: Tensor  # [N] bool
    confidences: Tensor | None  # [N] float32, the highest probability; absent where nobody asked for it

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the arrays."""
        arrays = ("predictions", "targets", "correct", "confidences")
        values = {name: value for name, value in vars(self).items() if name not in arrays}
        return values | {
            "interval": asdict(self.interval),
            "skipped": dict(self.skipped),
            "templates": list(self.templates),
        }


def evaluate_zero_shot(
    encoder: Encoder,
    data: LabelledImages,
    *,
    templates: Sequence[str] | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> ZeroShotResult:
    """Accuracy of a model on a labelled set that it was not trained for.

    Args:
        encoder: a bundle.
        data: one split of the set.
        templates: prompt templates; by default those of the set, or the bare class name when it has none.
        batch_size: texts, and pictures, in one forward pass.
        seed: of the interval.

    Raises:
        DataError: no picture can be read, or a template is not valid.
    """
    templates = check_templates(templates or data.templates or PLAIN)
    weights = class_weights(encoder, data.classnames, templates, batch_size=batch_size)
    encoded = encode_labelled(encoder, data, batch_size=batch_size)
    return score_zero_shot(
        encoded.image_features,
        encoded.targets,
        weights,
        templates=templates,
        skipped=encoded.skipped,
        seed=seed,
    )


@torch.no_grad()
def encode_labelled(encoder: Encoder, data: LabelledImages, *, batch_size: int = 256) -> LabelledFeatures:
    """Pictures of a labelled set to features. A picture that cannot be read is counted by its cause and left out.

    Raises:
        DataError: no picture can be read.
    """
    return labelled_features(encoder.encode_images, data, batch_size=batch_size)


def labelled_features(
    encode: Callable[[Sequence[Image.Image]], Tensor], data: LabelledImages, *, batch_size: int = 256
) -> LabelledFeatures:
    """The same with any function from pictures to rows of features, e.g. those before the projection.

    Raises:
        DataError: no picture can be read.
    """
    encoded = encode_pictures(encode, data, batch_size=batch_size)
    return with_targets(encoded, data)


def with_targets(encoded: PictureFeatures, data: LabelledImages) -> LabelledFeatures:
    """Features of a labelled set's pictures, e.g. from a cache, with the classes that belong to them."""
    targets = torch.tensor(data.targets[list(encoded.kept)])
    return LabelledFeatures(encoded.image_features, targets, encoded.kept, encoded.skipped)


@torch.no_grad()
def score_zero_shot(
    image_features: Tensor,
    targets: Tensor | np.ndarray,
    weights: Tensor,
    *,
    probabilities: Callable[[Tensor], Tensor] | None = None,
    templates: Sequence[str] = (),
    skipped: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ZeroShotResult:
    """Accuracy from features that are there already.

    Args:
        image_features: [N, D], unit length.
        targets: [N], class numbers from 0 to C - 1.
        weights: [C, D], as `class_weights` gives them.
        probabilities: from cosines [N, C] to [N, C], where the result shall say how sure the model was.
        templates: that made the weights, for the record.
        skipped: pictures that have no feature, by cause, for the record.
        seed: of the interval.

    Raises:
        ShapeError: the three do not fit.
        DataError: there is no picture, or a target is no class.
    """
    targets = torch.tensor(targets) if isinstance(targets, np.ndarray) else targets.cpu()
    if targets.shape != image_features.shape[:1]:
        raise ShapeError(
            f"image_features {list(image_features.shape)} and targets {list(targets.shape)} must be [N, D] and [N]."
        )
    check_features(image_features, weights)
    has_top5 = len(weights) > 5
    first, fifth, predictions, confidences = [], [], [], []
    for rows, labels in zip(image_features.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
        scores = rows.to(weights) @ weights.T  # [rows, C]; scale and bias change no order
        first.append(top_k_correct(scores, labels, 1).cpu())
        fifth.append(top_k_correct(scores, labels, 5).cpu() if has_top5 else first[-1])
        predictions.append(scores.argmax(dim=1).cpu())
        if probabilities:
            confidences.append(probabilities(scores).amax(dim=1).float().cpu())
    correct = torch.cat(first)  # [N]
    return ZeroShotResult(
        top1=correct.double().mean().item(),
        top5=torch.cat(fifth).double().mean().item() if has_top5 else None,
        mean_per_class=mean_per_class(correct, targets),
        interval=bootstrap_interval(correct, seed=seed),
        classes=len(weights),
        images=len(correct),
        skipped=dict(skipped or {}),
        templates=tuple(templates),
        predictions=torch.cat(predictions),
        targets=targets,
        correct=correct,
        confidences=torch.cat(confidences) if confidences else None,
    )
