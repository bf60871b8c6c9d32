"""What a forward pass of training hands to objectives, and what it gives back. Letters: B, D, K, L, P, V, W."""

from typing import Literal, NamedTuple

from torch import Tensor

from diptych.model.clip import CLIPOutput

# word_rows: those of a text tower whose rows are features; its own forward pass is another need.
Need = Literal["image_features", "text_features", "image_tokens", "tokens", "word_rows"]


class Seen(NamedTuple):
    """What there is of some pairs, for objectives that look at each pair by itself."""

    image_features: Tensor  # [B, D], unit length
    image_tokens: Tensor | None  # [B, P, W], not unit length; where somebody needs them
    tokens: Tensor  # [B, L] int64
    logit_scale: Tensor  # [], the factor
    word_rows: Tensor | None  # [V, D] of a text tower whose rows are features, not unit length
    word_weights: Tensor | None  # [V], how much each counts


class Outputs(NamedTuple):
    """What a forward pass makes of some pairs."""

    features: CLIPOutput | None  # for objectives over the batch; None where there is none
    losses: Tensor | None  # [B, K] in nats, of each pair and each objective per sample; None where there is none

    def without_rows(self) -> "Outputs":
        """The same with no pair left."""
        features, losses = self
        if features is not None:
            images, texts = features.image_features[:0], features.text_features[:0]
            features = features._replace(image_features=images, text_features=texts)
        return Outputs(features, None if losses is None else losses[:0])
