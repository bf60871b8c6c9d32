"""An augmentation: each picture half of the time as its negative."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from diptych.data.images import Preprocess


@dataclass(frozen=True, kw_only=True)
class Negative:
    kind: str = "mypackage.augment:Negative"
    chance: float = 0.5

    @property
    def is_fixed(self) -> bool:
        return self.chance == 0  # whether a picture looks the same each time

    def __call__(self, image: Image.Image, generator: np.random.Generator, preprocess: Preprocess) -> np.ndarray:
        pixels = preprocess.pixels(image)  # [S, S, 3] uint8
        return 255 - pixels if generator.random() < self.chance else pixels
