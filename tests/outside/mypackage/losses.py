"""An objective over the batch: each pair should be nearer than the nearest other text, by a margin."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diptych.model.clip import CLIPConfig, CLIPOutput
from diptych.train.objectives import Together


@dataclass(frozen=True, kw_only=True)
class Hinge:
    kind: str = "mypackage.losses:Hinge"
    weight: float = 1.0  # beside other objectives
    margin: float = 0.2  # further options of yours go here
    is_per_sample: ClassVar[bool] = False

    def needs(self, model: CLIPConfig) -> frozenset[str]:
        return frozenset({"image_features", "text_features"})

    def loss(self, features: CLIPOutput, together: Together) -> Tensor:
        images, texts, scale, _ = together.all_pairs(features)  # [B, D], of all processes
        cosines = images @ texts.T  # [B, B], the pairs on the diagonal
        own = cosines.diagonal()
        others = cosines - 2 * torch.eye(len(own), device=own.device)
        return (self.margin + others.amax(dim=1) - own).relu().mean() * scale  # []
