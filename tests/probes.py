"""What the probes of an audit are tested with: a set of colours, and a model that answers by one rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.measures.unit_length import unit_length
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures

COLOURS = {"red": (220, 0, 0), "green": (0, 220, 0), "blue": (0, 0, 220)}


def colour_set(folder: Path, *, each: int = 4) -> LabelledImages:
    """Discs of three colours on white, of several sizes."""
    for name, rgb in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            radius = 10 + 2 * number
            v, u = np.mgrid[-32:32, -32:32]
            values = np.where((u**2 + v**2 <= radius**2)[..., None], rgb, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.png")
    return read_labelled(folder)


@dataclass
class ColourReader:
    """Stands in for `ModelFeatures`: sees the mean colour of what is not white, and knows the words red, green, blue.

    A text with none of the words, or in other letters, fits nothing.
    """

    seen: list[int] = field(default_factory=list)  # how many pictures each pass had

    def pictures(self, data: Pictures, sha256: str = "") -> PictureFeatures:
        assert not sha256
        self.seen.append(len(data))
        return encode_pictures(self.encode_images, data, batch_size=8)

    def encode_images(self, images: Sequence[Any], /) -> np.ndarray:
        return np.stack([self._image(image) for image in images])

    def class_weights(self, labels: Sequence[str | Sequence[str]], templates: Sequence[str], /) -> Tensor:
        sentences = [
            [template.replace("{}", name) for template in templates for name in names]
            for names in ([label] if isinstance(label, str) else label for label in labels)
        ]
        return torch.stack([torch.stack([self._text(text) for text in some]).mean(dim=0) for some in sentences])

    def too_long(self, texts: Sequence[str]) -> int:
        return 0 * len(texts)

    def _image(self, image: Image.Image) -> np.ndarray:
        values = np.asarray(image.convert("RGB")).reshape(-1, 3) / 255
        ink = values[values.min(axis=1) < 0.9]
        mean = ink.mean(axis=0) if len(ink) else np.ones(3)
        return unit_length(mean)

    def _text(self, text: str) -> Tensor:
        return torch.tensor([float(name in text.split() or f"{name}." in text.split()) for name in COLOURS])
