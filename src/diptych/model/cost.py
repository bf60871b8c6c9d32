"""What one sample costs in a tower: FLOPs and bytes kept for the backward pass, from the config alone.

One multiply-add counts as 2 FLOPs.
"""

from typing import NamedTuple

from diptych.errors import ConfigError
from diptych.model.efficientnet_tower import EfficientNetTowerConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig

_FLOAT = 4  # bytes of a float32


class TowerCost(NamedTuple):
    """What one sample costs in one tower."""

    forward: int  # FLOPs
    backward: int  # FLOPs: twice the forward pass, but for the layer that pixels enter, whose input needs no gradient
    blocks: int  # FLOPs of the forward pass in transformer blocks, which checkpointing computes twice
    activations: int  # bytes kept for the backward pass
    checkpointed: int  # the same when such blocks keep their inputs alone, and one of them at a time the rest


def frozen(cost: TowerCost) -> TowerCost:
    """What a tower costs that does not learn: its forward pass."""
    return TowerCost(cost.forward, backward=0, blocks=0, activations=0, checkpointed=0)


def tower_cost(
    config: (
        ImageTowerConfig
        | ResNetTowerConfig
        | TextTowerConfig
        | SigLIPImageTowerConfig
        | SigLIPTextTowerConfig
        | EfficientNetTowerConfig
        | SentenceTowerConfig
    ),
    embed_dim: int,
    *,
    element: int,
    kept_patches: int | None = None,
) -> TowerCost:
    """FLOPs and activations of one sample in one tower.

    FLOPs are those of matrix products and convolutions, exactly; a causal mask saves none of them, by convention.
    Activations are what autograd keeps under autocast, with fused attention (its matrix is never kept). A text is
    counted at full context length.

    Args:
        config: of the tower.
        embed_dim: D.
        element: bytes of one number in matrix products, 4 or 2; layer norms and the residual stream stay float32.
        kept_patches: of a vision transformer under patch dropout; all when not given.

    """
    if isinstance(config, ImageTowerConfig):
        tokens = 1 + (config.patches if kept_patches is None else kept_patches)
        first = 2 * config.patches * config.width * 3 * config.patch_size**2
        # Pixels, the input of the first layer norm, and the last residual stream, of which a view is kept.
        outside = element * 3 * config.image_size**2 + tokens * (
            _layer_norm_bytes(config.width) + _FLOAT * config.width
        )
        last = 2 * config.width * embed_dim
        return _transformer(config, tokens, element, first=first, last=last, outside=outside)
    if isinstance(config, TextTowerConfig | SigLIPTextTowerConfig):
        last = 2 * config.width * embed_dim
        # SigLIP reads the last position through a view of the whole stream.
        outside = _FLOAT * config.context_length * config.width if isinstance(config, SigLIPTextTowerConfig) else 0
        return _transformer(config, config.context_length, element, first=0, last=last, outside=outside)
    if isinstance(config, SigLIPImageTowerConfig):
        return _siglip_image(config, config.patches if kept_patches is None else kept_patches, element)
    if isinstance(config, ResNetTowerConfig):
        return _resnet(config, embed_dim, element)
    raise ConfigError(f"costs are not known of every tower. Got {type(config).__name__}.")


def _transformer(
    config: ImageTowerConfig | TextTowerConfig | SigLIPImageTowerConfig | SigLIPTextTowerConfig,
    tokens: int,
    element: int,
    *,
    first: int,
    last: int,
    outside: int,
) -> TowerCost:
    """Blocks of a transformer, with FLOPs before (`first`) and behind them (`last`), and bytes kept outside of them."""
    width, hidden = config.width, config.mlp_width
    block = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    # Of each token: inputs of both layer norms; in the matrix type, inputs of the attention, query, key, value, its
    # output and the input of the MLP, then both sides of the activation; one float a head of the fused attention.
    kept = tokens * (2 * _layer_norm_bytes(width) + element * (6 * width + 2 * hidden) + _FLOAT * config.heads)
    blocks = config.layers * block
    forward = first + blocks + last
    return TowerCost(
        forward=forward,
        backward=2 * forward - first,
        blocks=blocks,
        activations=outside + config.layers * kept,
        checkpointed=outside + config.layers * tokens * width * _FLOAT + kept,
    )


def _siglip_image(config: SigLIPImageTowerConfig, tokens: int, element: int) -> TowerCost:
    width, hidden = config.width, config.mlp_width
    first = 2 * config.patches * width * 3 * config.patch_size**2
    # The pool: keys and values of all, what one query makes of them, and an MLP. The query is the same for a batch.
    pool = 4 * tokens * width**2 + 4 * tokens * width + 2 * width**2 + 4 * width * hidden
    # Pixels; of each token the last layer norm, the stream it leaves in the matrix type, keys and values; the MLP.
    outside = element * 3 * config.image_size**2 + tokens * (_layer_norm_bytes(width) + element * 3 * width)
    outside += _layer_norm_bytes(width) + element * (4 * width + 2 * hidden)
    return _transformer(config, tokens, element, first=first, last=pool, outside=outside)


def _resnet(config: ResNetTowerConfig, embed_dim: int, element: int) -> TowerCost:
    width, side = config.width, config.image_size // 2
    first = 2 * 3 * (width // 2) * 9 * side**2
    stem = first + 2 * (width // 2) * (width // 2 + width) * 9 * side**2
    # Elements: pixels, and what enters and leaves each normalisation.
    kept = 3 * config.image_size**2 + 4 * width * side**2
    side //= 2
    channels, bottlenecks = width, 0
    kept += width * side**2
    for stage, count in enumerate(config.layers):
        inner = width * 2**stage
        for number in range(count):
            out = 4 * inner
            after = side // 2 if stage and number == 0 else side
            has_shortcut = number == 0
            bottlenecks += 2 * inner * (channels + 9 * inner) * side**2
            bottlenecks += 2 * out * (inner + has_shortcut * channels) * after**2
            pooled = inner + channels if after != side else 0
            kept += 4 * inner * side**2 + (out * (2 + has_shortcut) + pooled) * after**2
            channels, side = out, after
    final, tokens = config.final_width, 1 + config.patches
    pool = 2 * final**2 * (1 + 2 * tokens) + 4 * tokens * final  # one query, keys and values of all
    kept += 4 * tokens * final  # inputs and outputs of keys and values
    activations = element * kept
    forward = stem + bottlenecks + pool + 2 * final * embed_dim
    return TowerCost(
        forward=forward,
        backward=2 * forward - first,
        blocks=0,
        activations=activations,
        checkpointed=activations,
    )


def _layer_norm_bytes(width: int) -> int:
    return _FLOAT * (width + 2)  # its input, mean and deviation
