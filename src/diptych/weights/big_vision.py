"""SigLIP and SigLIP 2 as big_vision publishes them, `.npz` files of a training program: names and sizes, one way.

Layout: as open_clip 3.3 (`open_clip/convert.py`) and transformers (`convert_siglip_to_hf.py`) read these files, and
google-research/big_vision writes them (`models/vit.py`, `models/proj/image_text/text_transformer.py`). Names are paths,
layers stand one by one (`encoderblock_0`) or stacked (`encoderblock`), and kernels are [in, out]. All sizes are in the
shapes, the heads among them: the kernel of a query is [W, H, W / H].
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.config import from_dict
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIPConfig

_TOWERS = {"image": ("img", "Transformer/", "ln_post"), "text": ("txt", "Encoder_0/", "ln_final")}
_BLOCK = {
    "ln_attention": "LayerNorm_0",
    "attention": "MultiHeadDotProductAttention_0",
    "ln_mlp": "LayerNorm_1",
    "mlp.up": "MlpBlock_0/Dense_0",
    "mlp.down": "MlpBlock_0/Dense_1",
}
_POOL = {"pool.attention": "MultiHeadDotProductAttention_0", "pool.ln_mlp": "LayerNorm_0"} | {
    f"pool.mlp.{ours}": f"MlpBlock_0/Dense_{number}" for number, ours in enumerate(("up", "down"))
}
_STACKED = re.compile(r"(.*)/encoderblock/(.*)")


def is_big_vision(names: Iterable[str]) -> bool:
    """Whether names are those of such a file."""
    return any(re.match(r"(params/)?(img|txt)/", name) for name in names)


def siglip_from_big_vision(arrays: Mapping[str, Tensor], path: Path) -> tuple[CLIPConfig, dict[str, Tensor]]:
    """Sizes, and tensors under our own names, of a SigLIP.

    Args:
        arrays: by the names of the file.
        path: where from. A number in its name that makes the same grid of patches is the image size, as of the files
            that were published: 384 px have as many patches of 14 as 378 px do.

    Raises:
        WeightsError: it is another model of that program, or a tensor is missing or of another shape.
    """
    plain = {name.removeprefix("params/"): array for name, array in arrays.items() if not name.startswith("opt/")}
    arrays = dict(_unstacked(plain))
    if "img/MAPHead_0/probe" not in arrays or "txt/Embed_0/embedding" not in arrays or "img/head/kernel" in arrays:
        raise WeightsError(
            f"{path} must be a SigLIP of big_vision: an image tower that an attention pool reads (img/MAPHead_0), and "
            "a text transformer (txt/Embed_0). Got another of its models, such as LiT or an image tower alone. Take a "
            "SigLIP, or the model as another library publishes it."
        )
    try:
        config = _config(arrays, path)
        ours = dict(_tensors(arrays, config))
    except KeyError as error:
        raise WeightsError(f"{path} must hold {error.args[0]}, as a SigLIP of big_vision does. Is it whole?") from error
    except (ValueError, IndexError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise WeightsError(f"{path} must have the shapes of a SigLIP of big_vision: {reason}. Is it whole?") from error
    return config, ours


def _unstacked(arrays: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    for name, array in arrays.items():
        if match := _STACKED.fullmatch(name):
            yield from ((f"{match[1]}/encoderblock_{layer}/{match[2]}", part) for layer, part in enumerate(array))
        else:
            yield name, array


def _config(arrays: Mapping[str, Tensor], path: Path) -> CLIPConfig:
    patch_size, _, _, _ = arrays["img/embedding/kernel"].shape
    grid = math.isqrt(arrays["img/pos_embedding"].shape[1])
    vocab_size, _ = arrays["txt/Embed_0/embedding"].shape
    sizes: dict[str, dict[str, Any]] = {
        "image": {"image_size": _image_size(path, patch_size, grid), "patch_size": patch_size},
        "text": {"vocab_size": vocab_size, "context_length": arrays["txt/pos_embedding"].shape[1]},
    }
    for tower, (top, within, _) in _TOWERS.items():
        first = f"{top}/{within}encoderblock_0/"
        width, heads, _ = arrays[f"{first}MultiHeadDotProductAttention_0/query/kernel"].shape
        found = [re.match(rf"{top}/{within}encoderblock_(\d+)/", name) for name in arrays]
        sizes[tower] |= {
            "kind": "siglip",
            "width": width,
            "heads": heads,
            "layers": len({match[1] for match in found if match}),
            "mlp_width": arrays[f"{first}MlpBlock_0/Dense_0/kernel"].shape[1],
        }
    embed_dim = arrays["txt/head/kernel"].shape[1]
    return from_dict(CLIPConfig, {"embed_dim": embed_dim, "head": "sigmoid", **sizes})


def _image_size(path: Path, patch_size: int, grid: int) -> int:
    told = [int(number) for number in re.findall(r"(?<!\d)\d{2,4}(?!\d)", path.stem)]
    return next((size for size in told if size // patch_size == grid), patch_size * grid)


def _tensors(arrays: Mapping[str, Tensor], config: CLIPConfig) -> Iterable[tuple[str, Tensor]]:
    """Under our names; what a file has beyond them (an optimizer's state) is left out."""
    yield "logit_scale", arrays["t"].reshape(())
    yield "logit_bias", arrays["b"].reshape(())
    yield "image.patch_embedding.weight", arrays["img/embedding/kernel"].permute(3, 2, 0, 1)
    yield "image.patch_embedding.bias", arrays["img/embedding/bias"]
    yield "image.pool.probe", arrays["img/MAPHead_0/probe"]
    yield "text.token_embedding.weight", arrays["txt/Embed_0/embedding"]
    yield from _linear(arrays, "txt/head", "text.projection")
    for tower, (top, within, last) in _TOWERS.items():
        yield f"{tower}.position_embedding", arrays[f"{top}/pos_embedding"][0]
        yield from _norm(arrays, f"{top}/{within}encoder_norm", f"{tower}.{last}")
        for layer in range(getattr(config, tower).layers):
            yield from _parts(arrays, _BLOCK, f"{top}/{within}encoderblock_{layer}", f"{tower}.blocks.{layer}.")
    yield from _parts(arrays, _POOL, "img/MAPHead_0", "image.")


def _parts(
    arrays: Mapping[str, Tensor], table: Mapping[str, str], theirs: str, ours: str
) -> Iterable[tuple[str, Tensor]]:
    for part, their_part in table.items():
        read = _norm if "LayerNorm" in their_part else _attention if "Attention" in their_part else _linear
        yield from read(arrays, f"{theirs}/{their_part}", ours + part)


def _norm(arrays: Mapping[str, Tensor], theirs: str, ours: str) -> Iterable[tuple[str, Tensor]]:
    yield f"{ours}.weight", arrays[f"{theirs}/scale"]
    yield f"{ours}.bias", arrays[f"{theirs}/bias"]


def _linear(arrays: Mapping[str, Tensor], theirs: str, ours: str) -> Iterable[tuple[str, Tensor]]:
    yield f"{ours}.weight", arrays[f"{theirs}/kernel"].T
    yield f"{ours}.bias", arrays[f"{theirs}/bias"]


def _attention(arrays: Mapping[str, Tensor], theirs: str, ours: str) -> Iterable[tuple[str, Tensor]]:
    """Kernels of query, key and value are [W, H, W / H], that of the output [H, W / H, W]."""
    inward = ("query", "key", "value")
    yield f"{ours}.in_projection.weight", torch.cat([arrays[f"{theirs}/{one}/kernel"].flatten(1).T for one in inward])
    yield f"{ours}.in_projection.bias", torch.cat([arrays[f"{theirs}/{one}/bias"].flatten() for one in inward])
    yield f"{ours}.out_projection.weight", arrays[f"{theirs}/out/kernel"].flatten(0, 1).T
    yield f"{ours}.out_projection.bias", arrays[f"{theirs}/out/bias"]
