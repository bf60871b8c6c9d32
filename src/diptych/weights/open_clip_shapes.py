"""A bare state dict of open_clip's own towers: sizes read off its shapes, and what they cannot tell is asked."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diptych.config import from_dict
from diptych.errors import WeightsError
from diptych.model.blocks import Activation
from diptych.model.clip import CLIPConfig
from diptych.weights.open_clip_towers import STAGES
from diptych.weights.tower_layout import HEAD

LONG = "positional_embedding_res"  # by this name a file is known to be Long-CLIP's
_FROZEN = 20  # positions of Long-CLIP that never learned
_WIDEST_OF_64 = 1024  # wider image towers (ViT-H 80, g 88, bigG 104) were published with other heads


def one_kind_of_positions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of Long-CLIP as any CLIP's; others stay as they are.

    Long-CLIP (arXiv:2403.15378) keeps its positions twice: of the first 20 those that never learned, of the rest the
    others.
    """
    usual = {**tensors}
    rest = usual.pop(LONG, None)
    if rest is not None and "positional_embedding" in usual:
        usual["positional_embedding"] = torch.cat([usual["positional_embedding"][:_FROZEN], rest[_FROZEN:]])
    return usual


def config_from_shapes(
    shapes: Mapping[str, Sequence[int]], *, activation: Activation | None, heads: int | None
) -> CLIPConfig:
    """The sizes of a state dict, by `plain_names`.

    Args:
        shapes: of its tensors.
        activation: shapes do not tell it.
        heads: of the image tower; None is heads of 64 channels, for towers up to 1,024 wide.

    Raises:
        WeightsError: it is no CLIP, or activation or heads are needed and not given.
        ConfigError: the sizes do not fit together.
    """
    if "visual.conv1.weight" not in shapes or "text_projection" not in shapes:
        if any(name.startswith("visual.trunk.") for name in shapes):
            raise WeightsError(
                "a state dict with an image tower of timm does not tell the model's sizes. Put its "
                "open_clip_config.json beside the weights."
            )
        few = ", ".join(sorted(shapes)[:3])
        raise WeightsError(
            "a state dict must hold visual.conv1.weight and text_projection, as OpenAI's and open_clip's CLIP do. "
            f"Got {len(shapes)} tensors such as {few}: is it another kind of model?"
        )
    if activation is None:
        raise WeightsError(
            "a bare state dict does not tell its activation: pass activation='quick_gelu' (OpenAI, DFN, MetaCLIP, and "
            "names with quickgelu) or activation='gelu' (LAION, DataComp), or put its open_clip_config.json beside it "
            "and give the folder."
        )
    try:
        image = _image_from_shapes(shapes, activation, heads)
        width = shapes["ln_final.weight"][0]
        text = {
            "context_length": shapes["positional_embedding"][0],
            "vocab_size": shapes["token_embedding.weight"][0],
            "width": width,
            "layers": _count(shapes, r"transformer\.resblocks\.(\d+)\."),
            "heads": width // HEAD,
            "mlp_width": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
            "activation": activation,
        }
        head = "sigmoid" if "logit_bias" in shapes else "softmax"
        sizes = {"embed_dim": shapes["text_projection"][1], "head": head, "image": image, "text": text}
        return from_dict(CLIPConfig, sizes)
    except (LookupError, ValueError) as error:
        raise WeightsError(f"the shapes of the state dict are no CLIP's ({error!r}). Is it whole?") from error


def _image_from_shapes(
    shapes: Mapping[str, Sequence[int]], activation: Activation, heads: int | None
) -> dict[str, Any]:
    if "visual.layer1.0.conv1.weight" in shapes:
        width = shapes["visual.layer1.0.conv1.weight"][0]
        return {
            "kind": "resnet",
            "image_size": 32 * _grid(shapes["visual.attnpool.positional_embedding"]),
            "width": width,
            "layers": [_count(shapes, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 1 + STAGES)],
            "heads": heads or 32 * width // HEAD,
        }
    width, _, patch_size, _ = shapes["visual.conv1.weight"]
    if heads is None and width > _WIDEST_OF_64:
        raise WeightsError(
            f"a bare state dict does not tell its heads, and image towers {width} wide were published with others than "
            "64 channels: pass heads=16 for ViT-H, ViT-g and ViT-bigG."
        )
    return {
        "image_size": patch_size * _grid(shapes["visual.positional_embedding"]),
        "patch_size": patch_size,
        "width": width,
        "layers": _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\."),
        "heads": heads or width // HEAD,
        "mlp_width": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        "activation": activation,
    }


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return 1 + max(int(match[1]) for name in shapes if (match := re.match(pattern, name)))


def _grid(positions: Sequence[int]) -> int:
    """Positions of one side, from [1 + P, W]."""
    side = math.isqrt(positions[0] - 1)
    if side * side != positions[0] - 1:
        raise ValueError(f"{positions[0] - 1} positions are no square grid")
    return side
