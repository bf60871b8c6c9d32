"""An objective per sample, with parameters of its own: which token comes first in the caption?"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.clip import CLIPConfig
from diptych.model.cost import TowerCost, without_blocks
from diptych.train.seen import Seen


@dataclass(frozen=True, kw_only=True)
class FirstToken:
    kind: str = "mypackage.heads:FirstToken"
    weight: float = 1.0
    is_per_sample: ClassVar[bool] = True
    wants_counts: ClassVar[bool] = False  # of the words of all captions, for `reset_parameters`

    def needs(self, model: CLIPConfig) -> frozenset[str]:
        return frozenset({"image_features", "tokens"})

    def build(self, model: CLIPConfig, tokenizer: object) -> nn.Module:
        return FirstTokenHead(model)

    def cost(self, model: CLIPConfig, *, element: int) -> TowerCost:
        return without_blocks(forward=2 * model.embed_dim * model.text.vocab_size, first=0, activations=0)


class FirstTokenHead(nn.Module):
    names_by_bundle = False  # whether the bundle's text features are what it would tell names apart by

    def __init__(self, model: CLIPConfig) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(model.text.vocab_size, model.embed_dim))

    def reset_parameters(self, generator: torch.Generator, counts: object) -> None:
        nn.init.normal_(self.rows, generator=generator)

    def forward(self, seen: Seen) -> Tensor:
        return F.cross_entropy(seen.image_features @ self.rows.T, seen.tokens[:, 1], reduction="none")  # [B] in nats

    def scores(self, seen: Seen, names: Tensor) -> Tensor:
        return seen.image_features @ self.rows[names[:, 1]].T  # N pictures, [C, L] tokens to [N, C]
