"""What the programs of JAX's world make of their own files: features of stand-ins, kept for the tests.

    python benchmarks/parity_files.py big-vision     (where open_clip and timm are installed)
    python benchmarks/parity_files.py flax           (where transformers 4 and flax are: later ones have no flax)

Weights are drawn by a rule from each array's name, so that `tests/foreign_files/NAME.json` holds names, shapes and
features alone: big_vision's as open_clip's own reader and towers compute them, flax's as `FlaxCLIPModel` does.
tests/test_big_vision.py and tests/test_flax_files.py hold diptych to them.
"""

import argparse
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent.parent / "tests" / "foreign_files"
WIDTH, PATCH, SIDE = 48, 8, 32  # of the image tower
TEXT_WIDTH, TOKENS, WORDS = 32, 16, 600


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a name: the same on every machine."""
    return np.asarray(0.2 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape), np.float32)


def big_vision() -> dict[str, Any]:
    """An `.npz` in the layout that open_clip reads, through open_clip's reader and timm's tower."""
    import tempfile

    import open_clip.timm_model
    import torch
    from open_clip.convert import load_big_vision_weights
    from open_clip.model import CustomTextCLIP
    from timm.models.vision_transformer import VisionTransformer

    def tower(*_: Any, **__: Any) -> torch.nn.Module:
        sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
        kind = {"class_token": False, "global_pool": "map", "num_classes": 0, "act_layer": "gelu_tanh"}
        return VisionTransformer(**sizes, **kind)  # pyright: ignore[reportArgumentType]

    open_clip.timm_model.timm.create_model = tower
    text = {
        **{"context_length": TOKENS, "vocab_size": WORDS, "width": TEXT_WIDTH},
        **{"heads": 4, "layers": 3, "mlp_ratio": 2.5},
        **{"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        **{"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}},  # as big_vision computes
    }
    vision = {"image_size": SIDE, "timm_model_name": "any", "timm_pool": "map", "timm_proj": "none"}
    model = CustomTextCLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=text, init_logit_bias=-10).eval()  # type: ignore[arg-type]
    shapes = big_vision_shapes()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/x.npz", **{name: drawn(name, shape) for name, shape in shapes.items()})  # type: ignore[arg-type]
        load_big_vision_weights(model, f"{folder}/x.npz")
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(pixels()), normalize=True)
        texts = model.encode_text(torch.from_numpy(tokens()), normalize=True)
    return {"arrays": shapes, "image_features": rounded(images.numpy()), "text_features": rounded(texts.numpy())}


def big_vision_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small SigLIP."""
    shapes: dict[str, tuple[int, ...]] = {
        "img/embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "img/embedding/bias": (WIDTH,),
        "img/pos_embedding": (1, (SIDE // PATCH) ** 2, WIDTH),
        "img/MAPHead_0/probe": (1, 1, WIDTH),
        "txt/Embed_0/embedding": (WORDS, TEXT_WIDTH),
        "txt/pos_embedding": (1, TOKENS, TEXT_WIDTH),
        **{"txt/head/kernel": (TEXT_WIDTH, WIDTH), "txt/head/bias": (WIDTH,), "t": (1,), "b": (1,)},
    }
    image, text = ("img/Transformer", WIDTH, 3, 96, 2), ("txt/Encoder_0", TEXT_WIDTH, 4, 80, 3)
    for top, width, heads, mlp, layers in (image, text):
        shapes |= norm(f"{top}/encoder_norm", width)
        for layer in range(layers):
            shapes |= block(f"{top}/encoderblock_{layer}", width, heads, mlp) | norm(
                f"{top}/encoderblock_{layer}/LayerNorm_1", width
            )
    shapes |= block("img/MAPHead_0", WIDTH, 3, 96)
    return {f"params/{name}": shape for name, shape in shapes.items()}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def block(name: str, width: int, heads: int, mlp: int) -> dict[str, tuple[int, ...]]:
    attention, each = f"{name}/MultiHeadDotProductAttention_0", (heads, width // heads)
    inward = {f"{attention}/{part}/kernel": (width, *each) for part in ("query", "key", "value")}
    biases = {f"{attention}/{part}/bias": each for part in ("query", "key", "value")}
    outward = {f"{attention}/out/kernel": (*each, width), f"{attention}/out/bias": (width,)}
    up = {f"{name}/MlpBlock_0/Dense_0/kernel": (width, mlp), f"{name}/MlpBlock_0/Dense_0/bias": (mlp,)}
    down = {f"{name}/MlpBlock_0/Dense_1/kernel": (mlp, width), f"{name}/MlpBlock_0/Dense_1/bias": (width,)}
    return {**norm(f"{name}/LayerNorm_0", width), **inward, **biases, **outward, **up, **down}


def flax() -> dict[str, Any]:
    """A `FlaxCLIPModel` with weights by the rule."""
    from flax.traverse_util import flatten_dict, unflatten_dict  # type: ignore[import-not-found]
    from transformers import CLIPConfig, FlaxCLIPModel  # type: ignore[attr-defined]

    ids = {"bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": WORDS - 1}
    both = {"num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": WORDS, "hidden_size": TEXT_WIDTH, "intermediate_size": 80, "max_position_embeddings": TOKENS}
    vision = {"hidden_size": WIDTH, "intermediate_size": 96, "image_size": SIDE, "patch_size": PATCH}
    config = {"projection_dim": 24, "text_config": text | both | ids, "vision_config": vision | both}
    model = FlaxCLIPModel(CLIPConfig(**config), seed=0)
    shapes = {name: array.shape for name, array in flatten_dict(model.params, sep=".").items()}
    model.params = unflatten_dict({name: drawn(name, shape) for name, shape in shapes.items()}, sep=".")
    images, texts = model.get_image_features(pixels()), model.get_text_features(tokens())
    unit = [np.asarray(some) / np.linalg.norm(some, axis=1, keepdims=True) for some in (images, texts)]
    features = dict(zip(("image_features", "text_features"), map(rounded, unit), strict=True))
    return {"config": {"model_type": "clip", **config}, "arrays": shapes, **features}


def pixels() -> np.ndarray:
    return 5 * drawn("pixels", (2, 3, SIDE, SIDE))


def tokens() -> np.ndarray:
    """[2, L] int64: a start, words, an end and what pads it."""
    words = np.random.default_rng(zlib.crc32(b"tokens")).integers(0, WORDS - 2, (2, TOKENS))
    words[:, 0], words[0, 9:], words[1, 4:] = WORDS - 2, WORDS - 1, WORDS - 1
    return words


def rounded(features: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 7) for value in row] for row in features]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=["big-vision", "flax"])
    which = parser.parse_args().which
    result = big_vision() if which == "big-vision" else flax()
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{which.replace('-', '_')}.json"
    path.write_text(json.dumps(result, indent=None) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
