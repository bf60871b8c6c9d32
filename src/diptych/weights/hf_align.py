"""ALIGN of `transformers`: EfficientNet beside BERT; both ways."""

from typing import Any

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.align_tower import AlignTowerConfig
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.clip import CLIPConfig
from diptych.model.efficientnet_tower import STAGES
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.hf_bert import bert_rows, is_bert, read_bert, write_bert
from diptych.weights.model_layout import (
    WITHOUT_MEANING,
    ModelLayout,
    Section,
    TokenIds,
    check_says,
    section,
    vision_section,
)

_REPEATS, _KERNELS, _STRIDES, _EXPANSIONS, _OUTS = (list(column) for column in zip(*STAGES, strict=True))
_MUST: dict[str, Any] = {
    "depth_divisor": 8,
    "kernel_sizes": _KERNELS,
    "in_channels": [32, *_OUTS[:-1]],
    "out_channels": _OUTS,
    "strides": _STRIDES,
    "num_block_repeats": _REPEATS,
    "expand_ratios": _EXPANSIONS,
    "squeeze_expansion_ratio": 0.25,
    "hidden_act": "swish",
    "pooling_type": "mean",
    "batch_norm_eps": 0.001,
}
_BLOCK = "vision_model.encoder.blocks.{}."


def _read(data: Section) -> CLIPConfig:
    vision = vision_section(data)
    check_says("vision_config", vision, _MUST)
    image = {
        "kind": "align",
        "image_size": vision.get("image_size", 600),
        "width": vision.get("width_coefficient", 2.0),
        "depth": vision.get("depth_coefficient", 3.1),
        "padded_alike": vision.get("depthwise_padding", []),
    }
    text = read_bert(section(data, "text_config"), pool="first", head="linear", head_bias=True)
    embed_dim = data.get("projection_dim", 640)
    tower = from_dict(AlignTowerConfig, image, where="image")
    if tower.fixed_embed_dim != embed_dim:
        raise ConfigError(
            f"projection_dim must be {tower.fixed_embed_dim}, the channels that the image tower ends with. "
            f"Got {embed_dim!r}."
        )
    return from_dict(CLIPConfig, {"embed_dim": embed_dim, "image": image, "text": text})


def _naming(config: CLIPConfig) -> Naming:
    assert isinstance(config.text, BertTowerConfig)
    return Naming(
        rows=(
            TensorRow(ours="logit_scale", theirs=("temperature",), as_inverse=True),
            TensorRow(ours="image.stem.1.{}", theirs=("vision_model.embeddings.convolution.{}",)),
            TensorRow(ours="image.stem.2.{}", theirs=("vision_model.embeddings.batchnorm.{}",)),
            *(
                TensorRow(ours=f"image.stages.{{}}.{ours}.{{}}", theirs=(f"{_BLOCK}{theirs}.{{}}",))
                for ours, theirs in (
                    ("widen", "expansion.expand_conv"),
                    ("bn_widen", "expansion.expand_bn"),
                    ("depthwise", "depthwise_conv.depthwise_conv"),
                    ("bn_depthwise", "depthwise_conv.depthwise_norm"),
                    ("squeeze", "squeeze_excite.reduce"),
                    ("excite", "squeeze_excite.expand"),
                    ("narrow", "projection.project_conv"),
                    ("bn_narrow", "projection.project_bn"),
                )
            ),
            *bert_rows(config.text, "text_model."),
            TensorRow(ours="text.head.projection.{}", theirs=("text_projection.{}",)),
        ),
        without_meaning=WITHOUT_MEANING,
        left_out=r"text_model\.pooler\..*",
    )


def _fits(config: CLIPConfig) -> bool:
    options = {"places": "index", "pool": "first", "head": "linear", "head_bias": True, "token_types": 2}
    return isinstance(config.image, AlignTowerConfig) and is_bert(config, **options) and config.head == "softmax"


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    image, text = config.image, config.text
    assert isinstance(image, AlignTowerConfig)  # it fits
    assert isinstance(text, BertTowerConfig)
    return {
        "model_type": "align",
        "architectures": ["AlignModel"],
        "projection_dim": config.embed_dim,
        "text_config": {
            "model_type": "align_text_model",
            **write_bert(text),
            "bos_token_id": tokens.start,
            "eos_token_id": tokens.end,
        },
        "vision_config": {
            "model_type": "align_vision_model",
            "image_size": image.image_size,
            "width_coefficient": image.width,
            "depth_coefficient": image.depth,
            "depthwise_padding": list(image.padded_alike),
            **_MUST,
        },
    }


ALIGN = ModelLayout(
    model_types=("align",),
    read=_read,
    naming=_naming,
    fits=_fits,
    write=_write,
    silent_recipe={
        "resize": "squash",
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    image_size="recipe",  # convolutions take pictures of any size
)
