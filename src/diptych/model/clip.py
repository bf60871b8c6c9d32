"""CLIP: an image tower and a text tower that meet in one space."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError, ShapeError
from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Block, Stack
from diptych.model.text_tower import TextTower
from diptych.model.towers import ImageConfig, TextConfig, blank, check_drawn, check_facts, check_module

INITIAL_TEMPERATURE = 0.07
MAX_LOG_LOGIT_SCALE = math.log(100)
INITIAL_SIGMOID_SCALE, INITIAL_SIGMOID_BIAS = 10.0, -10.0  # SigLIP, arXiv:2303.15343, section 3.2


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Sizes of a whole model.

    Raises:
        ConfigError: `embed_dim` is below 1, or not that of an image tower without a projection; a tower from outside
            lacks a fact; the towers check themselves.
    """

    embed_dim: int  # D, shared by both towers
    head: Literal["softmax", "sigmoid"] = "softmax"  # a picture's labels compete, or each is judged by itself
    image: ImageConfig
    text: TextConfig

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ConfigError(f"embed_dim must be at least 1. Got {self.embed_dim}.")
        if self.head not in ("softmax", "sigmoid"):
            raise ConfigError(f"head must be 'softmax' or 'sigmoid'. Got {self.head!r}.")
        check_facts(self.image, "image")
        check_facts(self.text, "text")
        if self.image.fixed_embed_dim not in (None, self.embed_dim):
            raise ConfigError(
                f"embed_dim must be {self.image.fixed_embed_dim}, the width of the {self.image.kind} image tower, "
                f"which has no projection. Got {self.embed_dim}."
            )


class CLIPOutput(NamedTuple):
    """What a training step needs of a batch of pairs."""

    image_features: Tensor  # [B, D], unit length
    text_features: Tensor  # [B, D], unit length
    logit_scale: Tensor  # [], the factor; at most 100 for softmax
    logit_bias: Tensor | None  # [], added to each logit; None for softmax


class CLIP(nn.Module):
    """Two towers, images and texts, into one space of unit vectors.

    The parameter `logit_scale` holds the logarithm, as released checkpoints keep it; `logit_scale_factor()` is the
    factor itself. A sigmoid head has a second one, `logit_bias`.

    Source: CLIP, arXiv:2103.00020, sections 2.3 to 2.5; sigmoid: SigLIP, arXiv:2303.15343, section 3.2.
    Letters: B, S, L, D, N, C.

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
            self.image = config.image.build(config.embed_dim)
            self.text = config.text.build(config.embed_dim)
            check_module(self.image, config.image, "image")
            check_module(self.text, config.text, "text")
            self.logit_scale = nn.Parameter(torch.empty(()))
            self.logit_bias = nn.Parameter(torch.empty(())) if config.head == "sigmoid" else None
        if generator is not None:
            self.to_empty(device=device)
            for tower in self._of_others():
                blank(tower)
            self.reset_parameters(generator)
            for tower in self._of_others():
                check_drawn(tower, "a tower")

    def encode_image(self, images: Tensor, kept_patches: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does; for a NaFlex tower
                [B, N, 2 + 3 p^2], a row for each patch. So for all other methods.
            kept_patches: [B, K] int64, for patch dropout in training: the patches that a vision transformer looks at.

        Returns:
            [B, D], unit length, float32 also when autocast computed them in less.

        Raises:
            ShapeError: the images are not of the size or type that the tower takes.
        """
        self._check_images(images)
        features = self.image(images) if kept_patches is None else self.image(images, kept_patches)
        return self._unit_length(features, images.shape[0])

    def encode_image_and_trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images for zero-shot and linear probe in one pass.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            What `encode_image` gives, [B, D], and the features before the projection [B, W], not unit length.

        Raises:
            ShapeError: see `encode_image`.
        """
        self._check_images(images)
        trunk = self.image.trunk(images)
        return self._unit_length(self.image.project(trunk), images.shape[0]), trunk

    def _unit_length(self, features: Tensor, count: int) -> Tensor:
        if features.shape != (count, self.config.embed_dim):
            raise ShapeError(
                f"a tower must give [B, D] = [{count}, {self.config.embed_dim}], model.embed_dim wide. "
                f"Got {list(features.shape)}."
            )
        # In float32 at least: eight bits of bfloat16 would leave lengths off by up to 0.4%.
        return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)

    def _of_others(self) -> list[nn.Module]:
        """Towers that a recipe named from outside the package."""
        towers = ((self.config.image, self.image), (self.config.text, self.text))
        return [module for config, module in towers if ":" in config.kind]

    def encode_image_and_tokens(self, images: Tensor, kept_patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode images as a whole and position by position, of a tower whose `token_width` is not 0.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.
            kept_patches: see `encode_image`.

        Returns:
            What `encode_image` gives, [B, D], and the image tokens [B, P, W], not unit length.

        Raises:
            ShapeError: see `encode_image`.
        """
        self._check_images(images)
        kept = () if kept_patches is None else (kept_patches,)
        tokens, feature = self.image.tokens_and_feature(images, *kept)  # pyright: ignore[reportCallIssue]  # see `towers`
        return self._unit_length(feature, images.shape[0]), tokens

    def encode_grid(self, images: Tensor) -> Tensor:
        """Which part of a picture says what, in the space of the words; each tower's `grid` says how.

        Args:
            images: [B, 3, S, S] float, normalised as the bundle's `preprocess` does.

        Returns:
            [B, h, w, D], not unit length, float32 also when autocast computed them in less.

        Raises:
            ConfigError: the tower, which is from outside the package, has no grid.
            ShapeError: see `encode_image`; the grid is no [B, h, w, D]; or pictures of a NaFlex tower differ in shape.
        """
        if not self.config.image.has_grid:
            raise ConfigError(
                f"a map of a picture needs the method `grid`, and a {self.config.image.kind} tower has none."
            )
        self._check_images(images)
        grid: Tensor = self.image.grid(images)  # pyright: ignore[reportCallIssue]  # see `towers`
        if grid.ndim != 4 or (len(grid), grid.shape[3]) != (len(images), self.config.embed_dim):
            shape = f"[{len(images)}, h, w, {self.config.embed_dim}]"
            raise ShapeError(f"the grid of a tower must be [B, h, w, D] = {shape}. Got {list(grid.shape)}.")
        return grid.to(torch.promote_types(grid.dtype, torch.float32))

    def _check_images(self, images: Tensor) -> None:
        side, row_width = self.config.image.image_size, self.config.image.row_width
        if row_width:
            if images.ndim != 3 or images.shape[2] != row_width or not images.is_floating_point():
                raise ShapeError(
                    f"images must be [B, N, {row_width}] float, a row for each patch. Got {list(images.shape)} "
                    f"{_name(images.dtype)}. The model's preprocess makes them so."
                )
        elif images.ndim != 4 or images.shape[1:] != (3, side, side) or not images.is_floating_point():
            raise ShapeError(
                f"images must be [B, 3, {side}, {side}] float. Got {list(images.shape)} {_name(images.dtype)}. "
                "The model's preprocess makes them so."
            )

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; all of it where the tower reads the padding.

        Returns:
            [B, D], unit length, float32 also when autocast computed them in less.

        Raises:
            ShapeError: the tokens are not of the length or type that the tower takes.
        """
        text = self.config.text
        longest = text.context_length
        shortest = longest if text.reads_padding else 1
        if tokens.ndim != 2 or not shortest <= tokens.shape[1] <= longest or tokens.dtype != torch.int64:
            raise ShapeError(
                f"tokens must be [B, L] int64, L from {shortest} to {longest}. "
                f"Got {list(tokens.shape)} {_name(tokens.dtype)}. The model's tokenizer makes them so."
            )
        return self._unit_length(self.text(tokens), tokens.shape[0])

    def with_head(self, head: Literal["softmax", "sigmoid"]) -> "CLIP":
        """The same towers under another head, which begins as that of a new model; itself where it is that head."""
        if head == self.config.head:
            return self
        model = CLIP(dataclasses.replace(self.config, head=head))
        model.image.load_state_dict(self.image.state_dict(), assign=True)
        model.text.load_state_dict(self.text.state_dict(), assign=True)
        for name in ("logit_scale", "logit_bias"):
            if getattr(model, name) is not None:
                setattr(model, name, nn.Parameter(torch.empty((), device=self.logit_scale.device)))
        model._reset_head()
        return model.train(self.training)

    def logit_scale_factor(self) -> Tensor:
        """[], the factor on cosines, 1 / temperature; for softmax at most 100 (CLIP, section 2.5)."""
        if self.config.head == "sigmoid":
            return self.logit_scale.exp()
        # The logarithm is clamped, not the factor: exp(log 100) rounds to above 100 in float32, and a clamp there
        # would cut the gradient for good of a parameter that the trainer holds at the cap.
        return self.logit_scale.clamp(max=MAX_LOG_LOGIT_SCALE).exp()

    def logits_per_image(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """The factor times the cosine, plus the bias of a sigmoid head.

        Args:
            image_features: [N, D], unit length.
            text_features: [C, D], unit length.

        Returns:
            [N, C], of the type and on the device of the features.
        """
        logits = self.logit_scale_factor().to(image_features) * image_features @ text_features.T
        return logits if self.logit_bias is None else logits + self.logit_bias.to(logits)

    def logits_of(self, cosines: Tensor) -> Tensor:
        """The same from cosines that are there already; the last digit may differ, as a product is rounded elsewhere.

        Args:
            cosines: [N, C], of image features with text features.

        Returns:
            [N, C], of the type and on the device of the cosines.
        """
        logits = self.logit_scale_factor().to(cosines) * cosines
        return logits if self.logit_bias is None else logits + self.logit_bias.to(logits)

    def probabilities(self, logits_per_image: Tensor) -> Tensor:
        """What logits say of each picture's labels.

        Args:
            logits_per_image: [N, C].

        Returns:
            [N, C]. Softmax: a row adds up to 1. Sigmoid: the probability of each label by itself.
        """
        return logits_per_image.softmax(dim=1) if self.config.head == "softmax" else logits_per_image.sigmoid()

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kept_patches: Tensor | None = None,
        image_features: Tensor | None = None,
    ) -> CLIPOutput:
        """Encode a batch of pairs.

        Args:
            images: [B, 3, S, S] float.
            tokens: [B, L] int64.
            kept_patches: see `encode_image`.
            image_features: [B, D], what a frozen tower made of the images before; it does not run again.

        Raises:
            ShapeError: see `encode_image` and `encode_text`.
        """
        if image_features is None:
            image_features = self.encode_image(images, kept_patches)
        return CLIPOutput(image_features, self.encode_text(tokens), self.logit_scale_factor(), self.logit_bias)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters anew, as the released code does; the global generator is not touched."""
        self.image.reset_parameters(generator)
        self.text.reset_parameters(generator)
        self._reset_head()

    def _reset_head(self) -> None:
        if self.logit_bias is None:
            nn.init.constant_(self.logit_scale, math.log(1 / INITIAL_TEMPERATURE))
        else:
            nn.init.constant_(self.logit_scale, math.log(INITIAL_SIGMOID_SCALE))
            nn.init.constant_(self.logit_bias, INITIAL_SIGMOID_BIAS)

    def blocks(self) -> list[Block]:
        """The transformer blocks of both towers: those that can be compiled, and shared out among processes."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def recompute_blocks(self, wanted: bool) -> None:
        """Whether the blocks keep their inputs alone for the backward pass, and are computed a second time."""
        for module in self.modules():
            if isinstance(module, Stack):
                module.recomputes = wanted

    def pack_texts(self, wanted: bool) -> None:
        """Whether a causal text tower leaves out padding in training, where that is faster; see `TextTower.packs`."""
        if isinstance(self.text, TextTower):
            self.text.packs = wanted

    def freeze_batch_statistics(self) -> None:
        """Put batch norms into eval mode: they then use the statistics that they have."""
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                module.eval()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
