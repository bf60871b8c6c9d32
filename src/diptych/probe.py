"""Classes that were learned from labelled pictures: a linear classifier on a model's features, in a file of its own.

It reads the features that `encode_images` and an index hold, of unit length, so it needs neither torch nor the
projection's inside. Letters: B, C, D, N.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from diptych.classify import ImageEncoder, check_features, encode_in_batches
from diptych.data.classified import ClassifiedPictures
from diptych.data.images import ImageSource
from diptych.data.inputs import as_pictures
from diptych.errors import ConfigError, DataError
from diptych.files import atomic_file, shown

PROBE_FORMAT = "diptych-probe-1"
_BATCH = 256  # pictures
_MOST_BYTES = 2**30  # of a file


class ProbedModel(ImageEncoder, Protocol):
    """What a probe needs of a model."""

    def fingerprint(self) -> str: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A linear classifier on features of one model.

    Raises:
        DataError: weights, bias and labels do not belong together, or a number is not finite.
    """

    labels: tuple[str, ...]  # C names, each once
    weights: np.ndarray  # [C, D] float32
    bias: np.ndarray  # [C] float32
    fingerprint: str  # of the model whose features it reads
    model: str = ""  # what that was called
    about: Mapping[str, Any] = field(default_factory=dict)  # plain values: what it was fitted to and measured on

    def __post_init__(self) -> None:
        count = len(self.labels)
        shapes = (self.weights.shape[:1], self.bias.shape) == ((count,), (count,)) and self.weights.ndim == 2
        types = self.weights.dtype == self.bias.dtype == np.float32
        if count < 2 or not shapes or not types:
            raise DataError(
                f"a probe must have weights [C, D] and bias [C] in float32 for C >= 2 labels. Got {count} labels, "
                f"weights {list(self.weights.shape)} and bias {list(self.bias.shape)}."
            )
        if len(set(self.labels)) < count:
            raise DataError("the labels of a probe must differ, and two are the same.")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise DataError("the numbers of a probe must be finite, and some are not.")

    def logits(self, image_features: np.ndarray) -> np.ndarray:
        """[N, D] to [N, C].

        Raises:
            ShapeError: the features have another D.
        """
        check_features(image_features, self.weights)
        return np.asarray(image_features, np.float32) @ self.weights.T + self.bias

    def probabilities(self, image_features: np.ndarray) -> np.ndarray:
        """[N, D] to [N, C], a softmax over the labels."""
        logits = self.logits(image_features)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def check_model(self, fingerprint: str) -> None:
        """Refuse another model than that whose features it was fitted to.

        Raises:
            ConfigError: it is another.
        """
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"these classes were learned with the model {self.model or self.fingerprint[:12]}, and this one is "
                f"another ({fingerprint[:12]}, not {self.fingerprint[:12]}). Take that model, or fit them anew: "
                "diptych evaluate probe --save."
            )

    def __call__(self, model: ProbedModel, images: Sequence[ImageSource]) -> np.ndarray:
        """Probabilities [N, C] of N pictures.

        Raises:
            ConfigError: it is another model than that whose features it was fitted to.
            DataError: it is no list, but one picture.
            ImageError: a picture cannot be read.
        """
        self.check_model(model.fingerprint())
        return self.probabilities(encode_in_batches(model, images, _BATCH, self.weights.shape[1]))

    def classify(self, model: ProbedModel, images: Sequence[ImageSource]) -> ClassifiedPictures:
        """Labels with their probabilities, best first, of each picture; see `__call__` and `ZeroShotClassifier`."""
        pictures = as_pictures(images)
        return ClassifiedPictures.of(pictures, self.labels, self(model, pictures))

    def save(self, path: Path) -> None:
        """Write one file of safetensors, whole or not at all; docs/formats.md describes it.

        Raises:
            DataError: it cannot be written.
        """
        metadata = {
            "format": PROBE_FORMAT,
            "labels": json.dumps(self.labels),
            "fingerprint": self.fingerprint,
            "model": self.model,
            "about": json.dumps(dict(self.about), sort_keys=True),
        }
        tensors = {"weights": np.ascontiguousarray(self.weights), "bias": np.ascontiguousarray(self.bias)}
        with atomic_file(path) as aside:
            aside.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> "Probe":
        """Read a file of `save`. Nothing in it is run.

        Raises:
            DataError: it is no such file, or damaged.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
            with safetensors.safe_open(path, framework="numpy") as file:
                told = file.metadata() or {}
                if told.get("format") != PROBE_FORMAT:
                    raise ValueError(f"its format is {told.get('format')!r}, not {PROBE_FORMAT!r}")
                labels, about = json.loads(told["labels"]), json.loads(told["about"])
                if not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
                    raise ValueError("its labels are no list of names")
                return cls(
                    labels=tuple(labels),
                    weights=file.get_tensor("weights"),
                    bias=file.get_tensor("bias"),
                    fingerprint=told["fingerprint"],
                    model=told["model"],
                    about=dict(about),
                )
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError, DataError) as error:
            raise DataError(
                f"{shown(path)} must be a file of classes, as `diptych evaluate probe --save` writes it: {error}."
            ) from error
