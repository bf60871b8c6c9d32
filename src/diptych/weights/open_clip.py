"""Names and sizes of the models that OpenAI and open_clip publish: both libraries name their tensors alike.

`open_clip_config.json` tells the sizes. A bare state dict does not: most of them are read off the shapes, and what
shapes cannot tell is asked for.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from diptych.config import from_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError, WeightsError
from diptych.model.blocks import Activation
from diptych.model.clip import INITIAL_SIGMOID_BIAS, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import Naming, TensorRow

_OpenClipCleaning = Literal["whitespace", "lower", "canonicalize"]
_HEAD = 64  # channels of an attention head in all that OpenAI published
_WIDEST_OF_64 = 1024  # wider image towers (ViT-H 80, g 88, bigG 104) were published with other heads

_ROWS = (
    TensorRow(ours="logit_scale", theirs=("logit_scale",)),
    TensorRow(ours="logit_bias", theirs=("logit_bias",)),  # where it was trained with the sigmoid loss
    TensorRow(ours="image.class_embedding", theirs=("visual.class_embedding",)),
    TensorRow(ours="image.position_embedding", theirs=("visual.positional_embedding",)),
    TensorRow(ours="image.patch_embedding.{}", theirs=("visual.conv1.{}",)),
    TensorRow(ours="image.ln_pre.{}", theirs=("visual.ln_pre.{}",)),
    TensorRow(ours="image.ln_post.{}", theirs=("visual.ln_post.{}",)),
    TensorRow(ours="text.token_embedding.{}", theirs=("token_embedding.{}",)),
    TensorRow(ours="text.position_embedding", theirs=("positional_embedding",)),
    TensorRow(ours="text.ln_final.{}", theirs=("ln_final.{}",)),
    TensorRow(ours="text.projection", theirs=("text_projection",)),
    *(
        TensorRow(ours=f"{ours}.blocks.{{}}.{part}{end}", theirs=(f"{theirs}.resblocks.{{}}.{their_part}{their_end}",))
        for ours, theirs in (("image", "visual.transformer"), ("text", "transformer"))
        for part, their_part, end, their_end in (
            ("ln_attention", "ln_1", ".{}", ".{}"),
            ("attention.in_projection", "attn.in_proj", ".{}", "_{}"),
            ("attention.out_projection", "attn.out_proj", ".{}", ".{}"),
            ("ln_mlp", "ln_2", ".{}", ".{}"),
            ("mlp.up", "mlp.c_fc", ".{}", ".{}"),
            ("mlp.down", "mlp.c_proj", ".{}", ".{}"),
        )
    ),
)
_STAGES = 4  # of a ResNet
_WITHOUT_MEANING = r"input_resolution|context_length|vocab_size|(transformer\..*)?attn_mask"  # sizes, and a constant

VIT = Naming(
    rows=(*_ROWS, TensorRow(ours="image.projection", theirs=("visual.proj",))), without_meaning=_WITHOUT_MEANING
)
# A ResNet's image projection is a layer with a bias; ours are `projection.weight` and `projection.bias` there.
RESNET = Naming(
    rows=(
        *_ROWS,
        *(
            TensorRow(ours=f"image.stem.{index}.{{}}", theirs=(f"visual.{name}.{{}}",))
            for index, name in ((0, "conv1"), (1, "bn1"), (3, "conv2"), (4, "bn2"), (6, "conv3"), (7, "bn3"))
        ),
        *(
            TensorRow(ours=f"image.stages.{stage}.{{}}.{part}", theirs=(f"visual.layer{stage + 1}.{{}}.{their_part}",))
            for stage in range(_STAGES)
            for part, their_part in (
                ("shortcut.1.{}", "downsample.0.{}"),
                ("shortcut.2.{}", "downsample.1.{}"),
                ("{}", "{}"),
            )
        ),
        TensorRow(ours="image.pool.position_embedding", theirs=("visual.attnpool.positional_embedding",)),
        *(
            TensorRow(ours=f"image.pool.{name}.{{}}", theirs=(f"visual.attnpool.{name[0]}_proj.{{}}",))
            for name in ("query", "key", "value")
        ),
        TensorRow(ours="image.projection.{}", theirs=("visual.attnpool.c_proj.{}",)),
    ),
    without_meaning=_WITHOUT_MEANING,
)


def fits_open_clip(config: CLIPConfig) -> bool:
    """Whether open_clip has a class for such a model."""
    match config.image, config.text:
        case ImageTowerConfig(), TextTowerConfig():
            return True
        case ResNetTowerConfig(layers=layers), TextTowerConfig():
            return len(layers) == _STAGES
        case _:
            return False


def kinds_of(config: CLIPConfig) -> str:
    """Both towers and the head in a few words, for those who refuse them."""
    image = config.image
    stages = f" of {len(image.layers)} stages" if isinstance(image, ResNetTowerConfig) else ""
    return f"{image.kind}{stages} and {config.text.kind} with a {config.head} head"


def naming_of(config: CLIPConfig) -> Naming:
    """The table for a model of these sizes, which `fits_open_clip`."""
    return VIT if isinstance(config.image, ImageTowerConfig) else RESNET


def plain_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without the "text." that open_clip's newer models put before the text tower's names."""
    return {re.sub(r"^text\.", "", name): tensor for name, tensor in tensors.items()}


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
            "heads": width // _HEAD,
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
            "layers": [_count(shapes, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 1 + _STAGES)],
            "heads": heads or 32 * width // _HEAD,
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
        "heads": heads or width // _HEAD,
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


# What a tower of theirs must say, where it says it, for ours to be the same.
_VISION_MUST: dict[str, Any] = {
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "block_type": None,
    "timm_model_name": None,
}
_TEXT_MUST: dict[str, Any] = {
    "hf_model_name": None,
    "ls_init_value": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "final_ln_after_pool": False,
    "proj_bias": False,
    "proj_type": "linear",
    "block_type": None,
}
_BOTH_MUST = dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"), False)

# What a model is that says otherwise.
_WHAT_IT_IS = {
    "timm_model_name": "an image tower of timm, of which diptych has none",
    "hf_model_name": "a text tower of transformers, of which diptych has none",
    "attentional_pool": "CoCa, or a tower with its pool, which diptych does not have",
    "no_ln_pre": "CLIPA, whose towers diptych does not have",
}


def config_from_open_clip(model_cfg: Mapping[str, Any]) -> CLIPConfig:
    """Sizes from the `model_cfg` of an `open_clip_config.json`; what it is silent about is as there.

    Raises:
        ConfigError: it describes a model that `CLIP` cannot be.
    """
    vision, text = _section(model_cfg, "vision_cfg"), _section(model_cfg, "text_cfg")
    for name, section, must in (("vision_cfg", vision, _VISION_MUST), ("text_cfg", text, _TEXT_MUST)):
        for key, value in {**must, **_BOTH_MUST}.items():
            if section.get(key, value) != value:
                found = f"{name}.{key} must be {value!r} or absent. Got {section[key]!r}"
                raise ConfigError(f"{found}: {_WHAT_IT_IS.get(key, 'a tower that diptych does not have')}.")
    pool = text.get("pool_type", "argmax")
    if pool not in ("argmax", "eos"):
        raise ConfigError(f"text_cfg.pool_type must be argmax or eos. Got {pool!r}.")
    quick = bool(model_cfg.get("quick_gelu", False))
    try:
        image, text = _image_from_open_clip(vision, quick), _text_from_open_clip(text, quick)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"vision_cfg and text_cfg must give sizes as numbers, and one is none ({error}).") from error
    head = "softmax" if model_cfg.get("init_logit_bias") is None else "sigmoid"
    return from_dict(CLIPConfig, {"embed_dim": model_cfg.get("embed_dim"), "head": head, "image": image, "text": text})


def cleaning_of(model_cfg: Mapping[str, Any]) -> Cleaning:
    """What open_clip does to a text before the tokenizer that the `model_cfg` of an `open_clip_config.json` names.

    Raises:
        ConfigError: it does what `Tokenizer` does not.
    """
    text = _section(model_cfg, "text_cfg")
    options = text.get("tokenizer_kwargs") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"text_cfg.tokenizer_kwargs must be a JSON object. Got {options!r}.")
    if text.get("tokenizer_mode"):
        raise ConfigError(f"text_cfg.tokenizer_mode must be absent. Got {text['tokenizer_mode']!r}.")
    is_own = not text.get("hf_tokenizer_name")  # CLIP's, whose rules are all in its merges
    clean = options.get("clean", "lower" if is_own else "whitespace")
    for key, value in {**options, "clean": clean}.items():
        known = ("lower",) if is_own else get_args(_OpenClipCleaning)
        if value not in known if key == "clean" else value:
            must = " or ".join(known) if key == "clean" else "absent"
            raise ConfigError(f"text_cfg.tokenizer_kwargs.{key} must be {must}. Got {value!r}.")
    return "file" if is_own else clean


def _image_from_open_clip(vision: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    width, layers = vision.get("width", 768), vision.get("layers", 12)
    sizes = {"image_size": _side(vision.get("image_size", 224)), "width": width, "layers": layers}
    if isinstance(layers, Sequence):
        return {"kind": "resnet", **sizes, "heads": width * 32 // vision.get("head_width", _HEAD)}
    heads = width // vision.get("head_width", _HEAD)
    return {**sizes, "patch_size": vision.get("patch_size", 16), "heads": heads, **_block_options(vision, width, quick)}


def _text_from_open_clip(text: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    width = text.get("width", 512)
    return {
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49_408),
        "width": width,
        "layers": text.get("layers", 12),
        "heads": text.get("heads", 8),
        **_block_options(text, width, quick),
        **({"end_token_id": text.get("eos_id", 2)} if text.get("pool_type") == "eos" else {}),
    }


def config_to_open_clip(config: CLIPConfig, preprocess: Preprocess) -> dict[str, Any]:
    """The content of an `open_clip_config.json` with which `open_clip` gives the same features.

    Raises:
        ConfigError: open_clip has no such model.
    """
    image, text = config.image, config.text
    if not fits_open_clip(config):
        raise ConfigError(
            f"open_clip's own towers are those of CLIP. Got {kinds_of(config)}. "
            "Save a SigLIP model as huggingface, and keep any other as a bundle."
        )
    assert isinstance(text, TextTowerConfig)
    activation = text.activation
    if isinstance(image, ImageTowerConfig):
        if image.activation != text.activation:
            raise ConfigError("open_clip has one activation for both towers. Save this model as huggingface.")
        vision: dict[str, Any] = {
            "layers": image.layers,
            "patch_size": image.patch_size,
            "head_width": image.width // image.heads,
            **_ratio(image),
            **_options(image),
        }
    else:
        assert isinstance(image, ResNetTowerConfig)
        vision = {"layers": list(image.layers), "head_width": image.final_width // image.heads}
    pool = {} if text.end_token_id is None else {"pool_type": "eos", "eos_id": text.end_token_id}
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            **({"quick_gelu": True} if activation == "quick_gelu" else {}),
            **({"init_logit_bias": INITIAL_SIGMOID_BIAS} if config.head == "sigmoid" else {}),
            "vision_cfg": {"image_size": image.image_size, "width": image.width, **vision},
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "hf_tokenizer_name": "tokenizer.json beside this file",  # any name: in a local folder its own is read
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                **_ratio(text),
                **_options(text),
                **pool,
            },
        },
        "preprocess_cfg": {
            "size": [preprocess.image_size, preprocess.image_size],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize,
        },
    }


def preprocess_from_open_clip(preprocess_cfg: Mapping[str, Any], image_size: int) -> Preprocess:
    """The picture recipe of an `open_clip_config.json`; what it is silent about is as there.

    Raises:
        ConfigError: it asks for what `Preprocess` does not do.
    """
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    recipe = {ours: preprocess_cfg[theirs] for theirs, ours in names.items() if preprocess_cfg.get(theirs)}
    return from_dict(Preprocess, {"image_size": image_size, **recipe}, where="preprocess_cfg")


def _block_options(section: Mapping[str, Any], width: int, quick: bool) -> dict[str, Any]:
    act, norm = section.get("act_kwargs") or {}, section.get("norm_kwargs") or {}
    tanh = act.get("approximate") == "tanh"
    return {
        "mlp_width": int(width * section.get("mlp_ratio", 4.0)),
        "activation": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu",
        "layer_norm_eps": float(norm.get("eps", 1e-5)),
    }


def _options(tower: ImageTowerConfig | TextTowerConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if tower.activation == "gelu_tanh":
        options["act_kwargs"] = {"approximate": "tanh"}
    if tower.layer_norm_eps != 1e-5:
        options["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    return options


def _ratio(tower: ImageTowerConfig | TextTowerConfig) -> dict[str, float]:
    ratio = tower.mlp_width / tower.width
    if int(tower.width * ratio) != tower.mlp_width:
        ratio = math.nextafter(ratio, math.inf)  # they cut the product to a whole number
    assert int(tower.width * ratio) == tower.mlp_width
    return {} if ratio == 4 else {"mlp_ratio": ratio}


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    if not isinstance(section, Mapping):
        raise ConfigError(f"model_cfg.{name} must be a JSON object. Got {section!r}.")
    return section


def _side(size: Any) -> Any:
    return size[0] if isinstance(size, Sequence) and not isinstance(size, str) and len(set(size)) == 1 else size
