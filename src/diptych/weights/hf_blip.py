"""BLIP of `transformers`: the two towers that it compares pictures with texts by.

Two classes of the library have them. BlipForImageTextRetrieval is what was published, beside a head that looks at a
picture and a text together, which is left out; BlipModel goes out again, too.
"""

from typing import Any

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.weights.adapters import Naming, TensorRow
from diptych.weights.hf_bert import bert_rows, is_bert, read_bert, write_bert
from diptych.weights.model_layout import (
    WITHOUT_MEANING,
    ModelLayout,
    Section,
    Table,
    TokenIds,
    read_tower,
    section,
    vision_section,
    write_tower,
)

_RETRIEVAL, _PLAIN = "BlipForImageTextRetrieval", "BlipModel"
_IMAGE: Table = (
    ("image_size", "image_size", 384),
    ("patch_size", "patch_size", 16),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("activation", "hidden_act", "gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-5),
)
_SILENT_TEXT = {"vocab_size": 30_524, "num_attention_heads": 8}
_IMAGE_OPTIONS = {"has_ln_pre": False, "has_patch_bias": True}
_BLOCK = "vision_model.encoder.layers.{}."
_IMAGE_ROWS = (
    TensorRow(ours="image.class_embedding", theirs=("vision_model.embeddings.class_embedding",), boxed=2),
    TensorRow(ours="image.position_embedding", theirs=("vision_model.embeddings.position_embedding",), boxed=1),
    TensorRow(ours="image.patch_embedding.{}", theirs=("vision_model.embeddings.patch_embedding.{}",)),
    TensorRow(ours="image.ln_post.{}", theirs=("vision_model.post_layernorm.{}",)),
    *(
        TensorRow(ours=f"image.blocks.{{}}.{ours}.{{}}", theirs=(f"{_BLOCK}{theirs}.{{}}",))
        for ours, theirs in (
            ("ln_attention", "layer_norm1"),
            ("attention.in_projection", "self_attn.qkv"),
            ("attention.out_projection", "self_attn.projection"),
            ("ln_mlp", "layer_norm2"),
            ("mlp.up", "mlp.fc1"),
            ("mlp.down", "mlp.fc2"),
        )
    ),
)
# Where texts look at pictures, and the head behind that.
_LEFT_OUT = r"itm_head\..*|text_(model|encoder)\.encoder\.layer\.\d+\.crossattention\..*|text_encoder\.pooler\..*"


def _read(data: Section) -> CLIPConfig:
    classes = data.get("architectures") or [_PLAIN]
    if classes not in ([_RETRIEVAL], [_PLAIN]):
        raise ConfigError(
            f"architectures of a BLIP must be {_RETRIEVAL} or {_PLAIN}. Got {classes!r}, which writes sentences: its "
            "pictures and texts are not compared. Take one for retrieval, such as Salesforce/blip-itm-base-coco."
        )
    is_retrieval = classes == [_RETRIEVAL]
    text = {**_SILENT_TEXT, **section(data, "text_config")}
    # It has no types of tokens, and decodes in its other classes alone.
    text = {key: value for key, value in text.items() if key != "is_decoder"} | {"type_vocab_size": 0}
    image = {**read_tower(vision_section(data), _IMAGE), **_IMAGE_OPTIONS}
    if is_retrieval:
        head = {"pool": "first", "head": "linear", "head_bias": True}
        image["has_projection_bias"] = True
    else:
        head = {"pool": "dense", "head": "linear"}
        image["norms_twice"] = True
    key, silent = ("image_text_hidden_size", 256) if is_retrieval else ("projection_dim", 512)
    return from_dict(CLIPConfig, {"embed_dim": data.get(key, silent), "image": image, "text": read_bert(text, **head)})


def _naming(config: CLIPConfig) -> Naming:
    assert isinstance(config.text, BertTowerConfig)
    if config.text.head_bias:
        rows = (
            TensorRow(ours="logit_scale", theirs=()),  # it compares by the cosine itself
            TensorRow(ours="image.projection", theirs=("vision_proj.weight",), transposed=True),
            TensorRow(ours="image.projection_bias", theirs=("vision_proj.bias",)),
            TensorRow(ours="text.head.projection.{}", theirs=("text_proj.{}",)),
            *bert_rows(config.text, "text_encoder."),
        )
    else:
        rows = (
            TensorRow(ours="logit_scale", theirs=("logit_scale",)),
            TensorRow(ours="image.projection", theirs=("visual_projection.weight",), transposed=True),
            TensorRow(ours="text.head.projection.{}", theirs=("text_projection.{}",)),
            *bert_rows(config.text, "text_model."),
        )
    return Naming(rows=(*rows, *_IMAGE_ROWS), without_meaning=WITHOUT_MEANING, left_out=_LEFT_OUT)


def _fits(config: CLIPConfig) -> bool:
    image = config.image
    if not isinstance(image, ImageTowerConfig) or config.head != "softmax":
        return False
    options = (image.pool, image.stem, image.has_ln_pre, image.has_patch_bias, image.has_projection_bias)
    of_text = {"places": "index", "pool": "dense", "head": "linear", "head_bias": False, "token_types": 0}
    return options == ("class", "patch", False, True, False) and image.norms_twice and is_bert(config, **of_text)


def _write(config: CLIPConfig, tokens: TokenIds) -> dict[str, Any]:
    assert isinstance(config.text, BertTowerConfig)  # it fits
    text = {key: value for key, value in write_bert(config.text).items() if key != "type_vocab_size"}
    return {
        "model_type": "blip",
        "architectures": [_PLAIN],
        "projection_dim": config.embed_dim,
        "text_config": {
            "model_type": "blip_text_model",
            **text,
            "is_decoder": False,  # so that it has no layers that look at pictures
            "bos_token_id": tokens.start,
            "eos_token_id": tokens.end,
            "sep_token_id": tokens.end,
        },
        "vision_config": {"model_type": "blip_vision_model", **write_tower(config.image, _IMAGE)},
    }


BLIP = ModelLayout(
    model_types=("blip",),
    read=_read,
    naming=_naming,
    fits=_fits,
    write=_write,
    silent_recipe={"resize": "squash"},
)
