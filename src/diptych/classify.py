"""Zero-shot classification: class names and prompt templates become a classifier.

Source: CLIP, arXiv:2103.00020, sections 3.1.2 and 3.1.4. Letters: B, C, D, N, T.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from diptych.data.classified import ClassifiedPictures
from diptych.data.images import ImageSource
from diptych.data.inputs import as_pictures
from diptych.data.notebook import progress
from diptych.data.prompts import PLAIN, check_labels, check_templates, fill
from diptych.data.tokenizer import Unread
from diptych.errors import DataError, ShapeError, TextError
from diptych.measures.unit_length import unit_length

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class TextEncoder(Protocol):
    """What class weights need of a bundle."""

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray: ...  # [N, D], unit length


class ImageEncoder(Protocol):
    """What gives features of pictures."""

    def encode_images(self, images: Sequence[Any], /) -> np.ndarray: ...  # [N, D], unit length


class Encoder(TextEncoder, ImageEncoder, Protocol):
    """What zero-shot needs of a bundle."""

    def logits_per_image(self, image_features: np.ndarray, text_features: np.ndarray, /) -> np.ndarray: ...  # [N, C]

    def probabilities(self, logits_per_image: np.ndarray, /) -> np.ndarray: ...  # [N, C]


@runtime_checkable
class Reader(Protocol):
    """What tells which texts a model cannot read; an encoder that does not tell is taken to read all."""

    def unread(self, texts: Sequence[str], /) -> list[Unread]: ...


@runtime_checkable
class Pooler(Protocol):
    """What says how texts become one; of an encoder that does not say, their sum is made unit length."""

    def pooled_texts(self, sums: np.ndarray, /) -> np.ndarray: ...  # [C, D] to [C, D], unit length


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
        unread: names of which the model's tokenizer does not know all words.

    Raises:
        DataError: there is no class, a name is empty or comes twice, or a template is not valid.
        TextError: the model reads none of the names, or two classes of it are one: it cannot tell them apart.
    """

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str | Sequence[str]],
        templates: Sequence[str] = PLAIN,
        *,
        batch_size: int = 256,
    ) -> None:
        if isinstance(labels, str | Mapping) or not all(map(_names, labels := list(labels))):
            raise DataError(f"labels must be a list with at least one name for each class. Got {labels!r}.")
        names = [[name.strip() for name in _names(label)] for label in labels]
        check_labels([name for names_of_class in names for name in names_of_class])
        self.labels = tuple(names_of_class[0] for names_of_class in names)
        self.unread = readable(encoder, names)
        self.weights = class_weights(encoder, names, templates, batch_size=batch_size)
        self._encoder = encoder
        self._batch_size = batch_size

    def logits(self, image_features: np.ndarray) -> np.ndarray:
        """What the model makes of the cosines: a factor times each, plus the bias of a sigmoid head.

        Args:
            image_features: [N, D], unit length.

        Returns:
            [N, C].

        Raises:
            ShapeError: the features have another D.
        """
        check_features(image_features, self.weights)
        return self._encoder.logits_per_image(np.asarray(image_features), self.weights)

    def probabilities(self, image_features: np.ndarray) -> np.ndarray:
        """[N, D] to [N, C]: softmax over the classes, or of a model with a sigmoid head each class by itself."""
        return self._encoder.probabilities(self.logits(image_features))

    def __call__(self, images: Sequence[ImageSource]) -> np.ndarray:
        """Probabilities [N, C] of N pictures.

        Raises:
            DataError: it is no list, but one picture.
            ImageError: a picture cannot be read.
        """
        return self.probabilities(encode_in_batches(self._encoder, images, self._batch_size, self.weights.shape[1]))

    def classify(self, images: Sequence[ImageSource]) -> ClassifiedPictures:
        """Labels with their probabilities, best first, of each picture; a notebook shows them as pictures with bars.

        Raises:
            DataError: it is no list, but one picture.
            ImageError: a picture cannot be read.
        """
        pictures = as_pictures(images)
        return ClassifiedPictures.of(pictures, self.labels, self(pictures))


def encode_in_batches(
    encoder: ImageEncoder, images: Sequence[ImageSource], batch_size: int, dimensions: int
) -> np.ndarray:
    """[N, D] of N pictures, with a bar in a notebook; no picture gives [0, D].

    Raises:
        DataError: it is no list, but one picture.
        ImageError: a picture cannot be read.
    """
    pictures = as_pictures(images)
    features = [np.empty((0, dimensions), np.float32)]
    done = 0
    with progress("encoding pictures") as advance:
        for batch in _batches(pictures, batch_size):
            features.append(encoder.encode_images(batch))
            done += len(batch)
            if len(pictures) > batch_size:
                advance(done, len(pictures))
    return np.concatenate(features)


def readable(encoder: TextEncoder, labels: Sequence[str | Sequence[str]]) -> list[Unread]:
    """Those names of classes of which a model does not know all words.

    Raises:
        TextError: of two classes, or of the only one, it reads no name: to the model they are one and the same.
    """
    unread = encoder.unread([name for label in labels for name in _names(label)]) if isinstance(encoder, Reader) else []
    unknown = {text.text for text in unread if text.is_whole}
    classes = [label for label in labels if unknown.issuperset(_names(label))]
    if len(classes) > 1 or (classes and len(classes) == len(labels)):
        first = next(text for text in unread if text.text in _names(classes[0]))
        more = f" Other labels that are the same to it: {len(classes) - 1:,}." if len(classes) > 1 else ""
        raise TextError(f"{first}{more}")
    return unread


def class_weights(
    encoder: TextEncoder,
    labels: Sequence[str | Sequence[str]],
    templates: Sequence[str] = PLAIN,
    *,
    batch_size: int = 256,
) -> np.ndarray:
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
    sums: np.ndarray | None = None
    for batch in _batches(texts, batch_size):
        features = np.asarray(encoder.encode_texts([text for text, _ in batch]), np.float32)  # [B, D]
        sums = np.zeros((len(labels), features.shape[1]), np.float32) if sums is None else sums
        np.add.at(sums, [row for _, row in batch], features)
    assert sums is not None
    # Of the mean: its length, and so the count, falls out.
    return encoder.pooled_texts(sums) if isinstance(encoder, Pooler) else unit_length(sums)


def _names(label: str | Sequence[str]) -> Sequence[str]:
    return [label] if isinstance(label, str) else label


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def check_features(image_features: "np.ndarray | Tensor", weights: "np.ndarray | Tensor") -> None:
    if image_features.ndim != 2 or image_features.shape[1] != weights.shape[1]:
        raise ShapeError(
            f"image_features {list(image_features.shape)} and class weights {list(weights.shape)} must be [N, D] and "
            "[C, D], of the same model."
        )
