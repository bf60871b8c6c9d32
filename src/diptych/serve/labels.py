"""Probabilities of labels from texts that were encoded in batches with those of others."""

from collections.abc import Mapping, Sequence

import numpy as np

from diptych.classify import ZeroShotClassifier
from diptych.data.tokenizer import Unread
from diptych.weights.dual_encoder import DualEncoder


class KnownTexts:
    """An encoder of texts that were encoded before, in batches with those of others; what it does not read is known."""

    def __init__(self, bundle: DualEncoder, features: Mapping[str, np.ndarray], unread: list[Unread]) -> None:
        self._features = features
        self._of_labels = unread
        self.encode_images = bundle.encode_images
        self.logits_per_image = bundle.logits_per_image
        self.probabilities = bundle.probabilities
        self.pooled_texts = bundle.pooled_texts

    def unread(self, texts: Sequence[str]) -> list[Unread]:
        del texts  # the labels, which were looked at
        return self._of_labels

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._features[text] for text in texts])


def probabilities(
    known: KnownTexts, labels: Sequence[str], templates: Sequence[str], image_features: np.ndarray
) -> list[float]:
    """Of each label, for one picture [1, D]."""
    classifier = ZeroShotClassifier(known, labels, templates, batch_size=len(labels) * len(templates))
    return classifier.probabilities(image_features)[0].tolist()
