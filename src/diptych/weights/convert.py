"""A bundle as the files of another library, or as another bundle of fewer bits."""

import io
from pathlib import Path
from typing import Literal, get_args

import torch

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.files import atomic_file
from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.bundle import Bundle
from diptych.weights.eight_bit import TableBits
from diptych.weights.open_clip import fits_open_clip, kinds_of, naming_of
from diptych.weights.saving import stored_weights, transformers_naming

Format = Literal["bundle", "huggingface", "open_clip", "openai"]


def save_as(
    bundle: Bundle,
    out: str | Path,
    *,
    format: Format,
    dtype: torch.dtype = torch.float32,
    table_bits: TableBits = 8,
) -> None:
    """Write a model, mostly for another library, whole or not at all; diptych opens all of these.

    Args:
        bundle: the model.
        out: where to: a folder, for openai a file that ends in .pt.
        format: "huggingface", a folder for `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained` (SigLIP
            likewise); "open_clip", a folder for `open_clip.create_model_and_transforms("local-dir:FOLDER")`; "openai",
            a state dict for `clip.load(FILE)`, without tokenizer and picture recipe, as that library has its own;
            "bundle", a folder as training leaves it.
        dtype: what parameters are stored as; int8 in a bundle alone.
        table_bits: see `Bundle.save`.

    Raises:
        ConfigError: that library has no such model, or dtype is none that the format has.
        DataError: the files cannot be written.
        WeightsError: the model's features are not finite.
    """
    out, config = Path(out), bundle.model.config
    if format not in get_args(Format):
        raise ConfigError(unknown_name(format, "", get_args(Format), "a format"))
    if dtype == torch.int8 and format != "bundle":
        raise ConfigError(f"{format} has no weights in 8 bits. Use another type, or the format bundle.")
    if format == "bundle":
        bundle.save(out, dtype=dtype, table_bits=table_bits)
    elif format == "open_clip":
        bundle.save(out, dtype=dtype, layout="open_clip", table_bits=table_bits)
    elif format == "huggingface":
        if transformers_naming(config, bundle.tokenizer) is None:
            raise ConfigError(
                "transformers has no class for CLIP's ResNets, EfficientNet-Lite and sentence towers, nor for parts of "
                "its models mixed, tokenizers included. Use the format open_clip or openai for a ResNet."
            )
        bundle.save(out, dtype=dtype, table_bits=table_bits)
    else:
        _check_openai(config, out)
        theirs = naming_of(config).from_ours(stored_weights(bundle.model, dtype, table_bits))
        sizes = {  # as in the files that OpenAI published; by them a state dict is known to be in their format
            "input_resolution": config.image.image_size,
            "context_length": config.text.context_length,
            "vocab_size": config.text.vocab_size,
        }
        theirs |= {name: torch.tensor(size) for name, size in sizes.items()}
        buffer = io.BytesIO()  # torch's own file writer does not say that a disk is full
        torch.save({name: tensor.clone() for name, tensor in theirs.items()}, buffer)  # alone, not as views of a file
        with atomic_file(out) as file:
            file.write_bytes(buffer.getvalue())


def _check_openai(config: CLIPConfig, out: Path) -> None:
    """Refuse what OpenAI's code would read otherwise: it takes all but the shapes for given."""
    image, text = config.image, config.text
    if out.suffix != ".pt":
        raise ConfigError(f"OpenAI's format is one file that ends in .pt. Got {out}.")
    if (
        config.head != "softmax"
        or not fits_open_clip(config)
        or not isinstance(image, ImageTowerConfig | ResNetTowerConfig)
        or not isinstance(text, TextTowerConfig)
    ):
        raise ConfigError(f"OpenAI's code has CLIP's towers and a softmax head, and no other. Got {kinds_of(config)}.")
    faults = [
        f"{name}={found}"
        for tower in (image, text)
        if not isinstance(tower, ResNetTowerConfig)
        for name, found, must in (
            ("activation", tower.activation, "quick_gelu"),
            ("heads", tower.heads, tower.width // 64),
            ("mlp_width", tower.mlp_width, 4 * tower.width),
            ("layer_norm_eps", tower.layer_norm_eps, 1e-5),
        )
        if found != must
    ]
    if isinstance(image, ResNetTowerConfig) and image.heads != image.final_width // 64:
        faults.append(f"heads={image.heads}")
    if text.end_token_id is not None:
        faults.append(f"end_token_id={text.end_token_id} instead of the highest id of a text")
    if faults:
        raise ConfigError(
            "OpenAI's code has QuickGELU, heads of 64 channels, an MLP of 4 * width and eps=1e-5, and no other. "
            f"Got {', '.join(faults)}: use the format open_clip."
        )
