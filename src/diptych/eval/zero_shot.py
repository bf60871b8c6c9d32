"""Zero-shot classification: class names and prompt templates become a classifier.

Source: CLIP, arXiv:2103.00020, sections 3.1.2 and 3.1.4. Letters: B, C, D, N, T.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diptych.data.images import ImageSource
from diptych.data.labelled import LabelledImages
from diptych.data.prompts import PLAIN, check_labels, check_templates, fill
from diptych.errors import DataError, ShapeError
from diptych.eval.metrics import Interval, bootstrap_interval, mean_per_class, top_k_correct
from diptych.eval.picture_features import PictureFeatures, encode_pictures

T = TypeVar("T")

_ROWS_AT_ONCE = 8192  # of the [N, C] scores


class TextEncoder(Protocol):
    """What class weights need of a bundle."""

    def encode_texts(self, texts: Sequence[str], /) -> Tensor: ...  # [N, D], unit length


class Encoder(TextEncoder, Protocol):
    """What zero-shot needs of a bundle."""

    def encode_images(self, images: Sequence[Any], /) -> Tensor: ...  # [N, D], unit length

    def logits_per_image(self, image_features: Tensor, text_features: Tensor, /) -> Tensor: ...  # [N, C]

    def probabilities(self, logits_per_image: Tensor, /) -> Tensor: ...  # [N, C]


class ZeroShotClassifier:
    """Classifies pictures by the names of the classes alone.

    Args:
        encoder: a bundle.
        labels: C classes, each a name or several names that mean the same.
        templates: T prompt templates with one `{}` each.
        batch_size: texts, and pictures, in one forward pass.

    Attributes:
        labels: the first name of each class.
        weights: [C, D] float32, unit length.

    Raises:
        DataError: there is no class, a name is empty or comes twice, or a template is not valid.
    """

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str | Sequence[str]],
        templates: Sequence[str] = PLAIN,
        *,
        batch_size: int = 256,
    ) -> None:
        if isinstance(labels, str) or not all(map(_names, labels)):
            raise DataError(f"labels must be a list with at least one name for each class. Got {labels!r}.")
        names = [[name.strip() for name in _names(label)] for label in labels]
        check_labels([name for names_of_class in names for name in names_of_class])
        self.labels = tuple(names_of_class[0] for names_of_class in names)
        self.weights = class_weights(encoder, names, templates, batch_size=batch_size)
        self._encoder = encoder
        self._batch_size = batch_size

    def logits(self, image_features: Tensor) -> Tensor:
        """What the model makes of the cosines: a factor times each, plus the bias of a sigmoid head.

        Args:
            image_features: [N, D], unit length.

        Returns:
            [N, C], on the device of `weights`.

        Raises:
            ShapeError: the features have another D.
        """
        _check_features(image_features, self.weights)
        return self._encoder.logits_per_image(image_features.to(self.weights), self.weights)

    def probabilities(self, image_features: Tensor) -> Tensor:
        """[N, D] to [N, C]: softmax over the classes, or of a model with a sigmoid head each class by itself."""
        return self._encoder.probabilities(self.logits(image_features))

    def __call__(self, images: Sequence[ImageSource]) -> Tensor:
        """Probabilities [N, C] of N pictures.

        Raises:
            ImageError: a picture cannot be read.
        """
        batches = (self._encoder.encode_images(batch) for batch in _batches(images, self._batch_size))
        features = [self.weights[:0], *(batch.to(self.weights) for batch in batches)]  # no picture gives [0, C]
        return self.probabilities(torch.cat(features))


@torch.no_grad()
def class_weights(
    encoder: TextEncoder,
    labels: Sequence[str | Sequence[str]],
    templates: Sequence[str] = PLAIN,
    *,
    batch_size: int = 256,
) -> Tensor:
    """Every name through every template, encoded to unit length, averaged by class, made unit length again.

    The names of one class are pooled before the mean. The same name may stand for two classes, as in ImageNet: they
    then tie, and `score_zero_shot` counts neither as found.

    Returns:
        [C, D] float32.

    Raises:
        DataError: a template is not valid.
    """
    templates = check_templates(templates)
    texts = [
        (text, row) for row, label in enumerate(labels) for name in _names(label) for text in fill(templates, name)
    ]
    sums: Tensor | None = None
    for batch in _batches(texts, batch_size):
        features = encoder.encode_texts([text for text, _ in batch]).float()  # [B, D]
        rows = torch.tensor([row for _, row in batch], device=features.device)
        sums = features.new_zeros(len(labels), features.shape[1]) if sums is None else sums
        sums.index_add_(0, rows, features)
    assert sums is not None
    return normalize(sums, dim=1)  # of the mean: its length, and so the count, falls out


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
    _check_features(image_features, weights)
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


def _names(label: str | Sequence[str]) -> Sequence[str]:
    return [label] if isinstance(label, str) else label


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _check_features(image_features: Tensor, weights: Tensor) -> None:
    if image_features.ndim != 2 or image_features.shape[1] != weights.shape[1]:
        raise ShapeError(
            f"image_features {list(image_features.shape)} and class weights {list(weights.shape)} must be [N, D] and "
            "[C, D], of the same model."
        )
