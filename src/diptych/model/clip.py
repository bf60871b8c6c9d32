"""CLIP: an image tower and a text tower that meet in one space."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError, ShapeError
from diptych.model.image_tower import ImageTower, ImageTowerConfig
from diptych.model.resnet_tower import ResNetTower, ResNetTowerConfig
from diptych.model.text_tower import TextTower, TextTowerConfig

INITIAL_TEMPERATURE = 0.07
MAX_LOG_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Sizes of a whole model.

    Raises:
        ConfigError: `embed_dim` is below 1; the towers check themselves.
    """

    embed_dim: int  # D, shared by both towers
    image: ImageTowerConfig | ResNetTowerConfig
    text: TextTowerConfig

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ConfigError(f"embed_dim must be at least 1. Got {self.embed_dim}.")


class CLIPOutput(NamedTuple):
    """What a training step needs of a batch of pairs."""

    image_features: Tensor  # [B, D], unit length
    text_features: Tensor  # [B, D], unit length
    logit_scale: Tensor  # [], the factor, at most 100


class CLIP(nn.Module):
    """Two towers, images and texts, into one space of unit vectors.

    The parameter `logit_scale` holds the logarithm, as released checkpoints keep it; `logit_scale_factor()` is the
    factor itself.

    Source: CLIP, arXiv:2103.00020, sections 2.3 to 2.5. Letters: B, S, L, D.

    Args:
        config: sizes of both towers.
        generator: where the initial parameters are drawn from; they land on torch's default device. Without one
            the parameters stay on the meta device, shapes alone: for counting, or to be filled with
            `load_state_dict(weights, assign=True)`.
    """

    def __init__(self, config: CLIPConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        device = torch.empty(0).device  # the default one, a surrounding `with torch.device(...)` included
        with torch.device("meta"):  # torch's own initialisation would take its time and move the global generator
            self.image: ImageTower | ResNetTower = (
                ImageTower(config.image, config.embed_dim)
                if isinstance(config.image, ImageTowerConfig)
                else ResNetTower(config.image, config.embed_dim)
            )
            self.text = TextTower(config.text, config.embed_dim)
            self.logit_scale = nn.Parameter(torch.empty(()))
        if generator is not None:
            self.to_empty(device=device)
            self.reset_parameters(generator)

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, D], unit length, float32 also when autocast computed them in less.

        Raises:
            ShapeError: the images are not of the size or type that the tower takes.
        """
        side = self.config.image.image_size
        if images.ndim != 4 or images.shape[1:] != (3, side, side) or not images.is_floating_point():
            raise ShapeError(
                f"images must be [B, 3, {side}, {side}] float. Got {list(images.shape)} {_name(images.dtype)}. "
                "The model's preprocess makes them so."
            )
        return _unit_length(self.image(images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length.

        Returns:
            [B, D], unit length, float32 also when autocast computed them in less.

        Raises:
            ShapeError: the tokens are not of the length or type that the tower takes.
        """
        longest = self.config.text.context_length
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= longest or tokens.dtype != torch.int64:
            raise ShapeError(
                f"tokens must be [B, L] int64, L from 1 to {longest}. Got {list(tokens.shape)} {_name(tokens.dtype)}. "
                "The model's tokenizer makes them so."
            )
        return _unit_length(self.text(tokens))

    def logit_scale_factor(self) -> Tensor:
        """[], the factor on cosines, 1 / temperature, at most 100 (CLIP, section 2.5)."""
        # The logarithm is clamped, not the factor: exp(log 100) rounds to above 100 in float32, and a clamp there
        # would cut the gradient for good of a parameter that the trainer holds at the cap.
        return self.logit_scale.clamp(max=MAX_LOG_LOGIT_SCALE).exp()

    def forward(self, images: Tensor, tokens: Tensor) -> CLIPOutput:
        """Encode a batch of pairs.

        Args:
            images: [B, 3, S, S] float.
            tokens: [B, L] int64.

        Raises:
            ShapeError: see `encode_image` and `encode_text`.
        """
        return CLIPOutput(self.encode_image(images), self.encode_text(tokens), self.logit_scale_factor())

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, as the released code does; the global generator is not touched."""
        self.image.reset_parameters(generator)
        self.text.reset_parameters(generator)
        nn.init.constant_(self.logit_scale, math.log(1 / INITIAL_TEMPERATURE))


def _unit_length(features: Tensor) -> Tensor:
    # In float32 at least: eight bits of bfloat16 would leave lengths off by up to 0.4%.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
