"""What a forward pass of training runs: a model and the heads of its objectives, and of both what is needed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diptych.errors import ShapeError
from diptych.model.clip import CLIP, CLIPOutput
from diptych.train.objectives import Objective, all_needs, over_batch
from diptych.train.seen import Outputs, Seen


class Learner(nn.Module):
    """A model with its heads.

    Args:
        model: is trained.
        heads: of the objectives per sample, by their kinds.
        objectives: of the run.
    """

    def __init__(self, model: CLIP, heads: nn.ModuleDict, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.needs = all_needs(objectives, model.config)
        self._is_over_batch = bool(over_batch(objectives))

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kept_patches: Tensor | None = None,
        image_features: Tensor | None = None,
        with_heads: bool = True,
    ) -> Outputs:
        """What the objectives need of a batch of pairs.

        Args:
            images: [B, 3, S, S] float.
            tokens: [B, L] int64.
            kept_patches: see `CLIP.encode_image`.
            image_features: [B, D], what a frozen tower made of the images before; it does not run again.
            with_heads: whether the heads run.

        Raises:
            ShapeError: see `CLIP.encode_image` and `CLIP.encode_text`.
        """
        image_tokens, features, losses = None, None, None
        if image_features is None:
            image_features, image_tokens = self.encode_image(images, kept_patches)
        scale = self.model.logit_scale_factor()
        if self._is_over_batch:
            features = CLIPOutput(image_features, self.model.encode_text(tokens), scale, self.model.logit_bias)
        if self.heads and with_heads:
            seen = self._seen(image_features, image_tokens, tokens, scale)
            losses = torch.stack([self._loss(name, seen) for name in self.heads], dim=1)  # [B, K]
        return Outputs(features, losses)

    def _loss(self, name: str, seen: Seen) -> Tensor:
        loss, count = self.heads[name](seen), len(seen.image_features)
        got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        if got != [count]:
            raise ShapeError(f"the head {name} must return a loss for each pair, [B] = [{count}]. Got {got}.")
        return loss

    def see(self, images: Tensor) -> Seen:
        """What heads see of pictures alone: [B, 3, S, S] float, and no text."""
        image_features, image_tokens = self.encode_image(images, None)
        none = image_features.new_zeros(len(images), 0, dtype=torch.int64)
        return self._seen(image_features, image_tokens, none, self.model.logit_scale_factor())

    def encode_image(self, images: Tensor, kept_patches: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Image features [B, D], and image tokens [B, P, W] where an objective needs them."""
        if "image_tokens" in self.needs:
            return self.model.encode_image_and_tokens(images, kept_patches)
        return self.model.encode_image(images, kept_patches), None

    def _seen(self, image_features: Tensor, image_tokens: Tensor | None, tokens: Tensor, scale: Tensor) -> Seen:
        rows = weights = None
        if self.model.config.text.rows_are_features:
            rows, weights = self.model.text.token_embedding.weight, self.model.text.get_buffer("token_weights")
        return Seen(image_features, image_tokens, tokens, scale, rows, weights)
