"""What the files of a model tell, by the layout that they lie in: folders of `transformers`, open_clip and our own, and
single files of OpenAI's, open_clip's and big_vision's.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from diptych.config import from_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import OWN, Naming
from diptych.weights.big_vision import is_big_vision, siglip_from_big_vision
from diptych.weights.folder import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    PREPROCESS,
    WEIGHTS,
    Seal,
    read_json,
    read_preprocess,
    read_seal,
)
from diptych.weights.hub import MODEL_TYPES
from diptych.weights.hugging_face import layout_of
from diptych.weights.not_weights import check_not_quantised
from diptych.weights.open_clip import (
    as_named,
    cleaning_of,
    config_from_open_clip,
    ends_with_padding,
    naming_of,
    own_padding,
    plain_names,
    preprocess_from_open_clip,
)
from diptych.weights.open_clip_shapes import LONG, config_from_shapes, one_kind_of_positions
from diptych.weights.open_clip_towers import VOCABULARY
from diptych.weights.tensors import read_tensors
from diptych.weights.untold import (
    ACTIVATION,
    END_TOKEN,
    RECIPE,
    Origin,
    Told,
    Untold,
    fill,
    known_activation,
)
from diptych.weights.weights_file import ENDINGS, PICKLES, choose_weights

_BY_FILE: dict[str, Origin] = {ACTIVATION: "file", "heads": "file", END_TOKEN: "file", RECIPE: "file"}
SIGLIPS_RECIPE = functools.partial(Preprocess, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class FoundModel(NamedTuple):
    """The part of a `StoredModel` that each layout tells in its own way."""

    kind: str
    untold: Untold
    naming: Naming
    weights: Path
    tensors: dict[str, Tensor]
    seal: Seal | None = None
    cleaning: Cleaning = "file"
    pad_token_id: int | None = None
    ends_with_padding: bool = False
    beside: tuple[str, ...] = ()


def open_folder(folder: Path, weights: str, told: Told) -> FoundModel:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    configs = [name for name in (CONFIG, OPEN_CLIP_CONFIG) if name in names]
    if len(configs) == 2 and read_json(folder / CONFIG).get("model_type") not in MODEL_TYPES:
        del configs[0]  # on a hub, a config.json beside open_clip's may be another library's
    if chosen := choose_weights(names, configs, where=str(folder), asked=weights):
        path, is_open_clips = folder / chosen.name, chosen.config == OPEN_CLIP_CONFIG
        if len(configs) == 2 and not chosen.is_published:  # the name tells nothing, and the tensors do
            tensors = read_tensors(path, state_dict=told.get("state_dict")).tensors
            is_open_clips = any(name.startswith("visual.") for name in tensors)
        return _open_open_clip(folder, path, told) if is_open_clips else _open_hf(folder, path, told)
    if configs:
        raise WeightsError(
            f"{folder} must hold {WEIGHTS}, or weights under another name that ends in one of {', '.join(ENDINGS)}. It "
            "has none."
        )
    if within := sorted(path.parent for path in folder.glob(f"[0-9]_*/{CONFIG}")):  # of sentence-transformers
        return open_folder(within[0], weights, told)
    if models := sorted({path.parent for name in (CONFIG, OPEN_CLIP_CONFIG) for path in folder.glob(f"*/{name}")}):
        few = ", ".join(str(path) for path in models[:3])
        raise WeightsError(
            f"{folder} must be a model's folder, and has {len(models)} within: {few}"
            f"{', ...' if len(models) > 3 else ''}. Give one of them."
        )
    raise WeightsError(
        f"{folder} must hold {CONFIG} or {OPEN_CLIP_CONFIG}, and has neither. Is it a model's folder? Give a single "
        "file of weights by its own path."
    )


def _open_hf(folder: Path, weights: Path, told: Told) -> FoundModel:
    data = read_json(folder / CONFIG)
    check_not_quantised(data, str(folder))
    seal = read_seal(folder / CONFIG, data)
    file = read_tensors(weights, state_dict=told.get("state_dict"))
    layout = None if data.get("model_type") == "diptych-clip" else layout_of(data)
    preprocess = read_preprocess(folder) if layout is None or layout.reads_recipe else None
    if seal and preprocess is None:
        raise WeightsError(f"{folder} must hold {PREPROCESS}, as it was saved with it. Copy or download it again.")
    if layout is None:
        return _open_own(folder, weights, told, data, seal, preprocess, file.tensors)
    config = layout.read(data)
    naming, tensors = layout.naming(config), layout.respelt(file.tensors)
    if preprocess and layout.image_size == "recipe":
        config = _with_image_size(config, preprocess.image_size)
    elif preprocess and layout.image_size == "config":
        preprocess = dataclasses.replace(preprocess, image_size=config.image.image_size)
    return FoundModel(
        kind="diptych bundle" if seal else "transformers folder",
        untold=fill(
            _with_head(config, tensors),
            told,
            path=folder,
            preprocess=preprocess,
            assumed=Preprocess(image_size=config.image.image_size, **layout.silent_recipe),
            origins=_BY_FILE,
        ),
        naming=naming,
        weights=weights,
        tensors=tensors,
        seal=seal,
        cleaning=layout.cleaning,
        beside=(*file.beside, *(name for name in tensors if re.fullmatch(naming.left_out, name))),
    )


def _open_own(
    folder: Path,
    weights: Path,
    told: Told,
    data: Mapping[str, Any],
    seal: Seal | None,
    preprocess: Preprocess | None,
    tensors: dict[str, Tensor],
) -> FoundModel:
    config = from_dict(CLIPConfig, data.get("model", {}), where="model")
    # The first bundles of ResNets were no open_clip folders, and had our own names.
    is_open_clips = (folder / OPEN_CLIP_CONFIG).is_file()
    naming, tensors = (naming_of(config), plain_names(tensors)) if is_open_clips else (OWN, tensors)
    if config.image.row_width and preprocess:  # how many patches is a fact of the pictures, and not of the weights
        config = _with_image_size(config, preprocess.image_size)
    is_siglip = config.text.kind == "siglip"
    return FoundModel(
        kind="diptych bundle" if seal else "transformers folder",
        untold=fill(
            config,
            told,
            path=folder,
            preprocess=preprocess,
            assumed=(SIGLIPS_RECIPE if is_siglip else Preprocess)(image_size=config.image.image_size),
            origins=_BY_FILE,
        ),
        naming=naming,
        weights=weights,
        tensors=tensors,
        seal=seal,
        cleaning="siglip" if is_siglip else "file",
    )


def _with_image_size(config: CLIPConfig, image_size: int) -> CLIPConfig:
    """Another size in the config alone, of a tower whose weights take any."""
    return dataclasses.replace(config, image=dataclasses.replace(config.image, image_size=image_size))


def _open_open_clip(folder: Path, weights: Path, told: Told) -> FoundModel:
    data = read_json(folder / OPEN_CLIP_CONFIG)
    model_cfg, preprocess_cfg = data.get("model_cfg"), data.get("preprocess_cfg") or {}
    if not isinstance(model_cfg, dict) or not isinstance(preprocess_cfg, dict):
        raise ConfigError(f"{OPEN_CLIP_CONFIG} must hold model_cfg and preprocess_cfg as JSON objects.")
    tensors = plain_names(read_tensors(weights, state_dict=told.get("state_dict")).tensors)
    config = as_named(_with_head(config_from_open_clip(model_cfg), tensors), tensors.keys())
    side = config.image.image_size
    return FoundModel(
        kind="open_clip folder",
        untold=fill(
            config,
            told,
            path=folder,
            preprocess=preprocess_from_open_clip(preprocess_cfg, side) if preprocess_cfg else None,
            assumed=Preprocess(image_size=side),
            origins=_BY_FILE,
        ),
        naming=naming_of(config),
        weights=weights,
        tensors=tensors,
        seal=read_seal(folder / OPEN_CLIP_CONFIG, data),
        cleaning=cleaning_of(model_cfg),
        pad_token_id=own_padding(model_cfg) if config.text.reads_padding else None,
        ends_with_padding=ends_with_padding(model_cfg),
    )


def _with_head(config: CLIPConfig, tensors: Mapping[str, Tensor]) -> CLIPConfig:
    """The head by the weights: a config may not tell that they were trained with the sigmoid loss."""
    return dataclasses.replace(config, head="sigmoid") if "logit_bias" in tensors else config


def open_file(path: Path, told: Told) -> FoundModel:
    file = read_tensors(path, state_dict=told.get("state_dict"))
    if is_big_vision(file.tensors):
        return _open_big_vision(path, file.tensors, told)
    tensors = one_kind_of_positions(plain_names(file.tensors))
    if "vision_model.embeddings.patch_embedding.weight" in tensors:
        if (path.parent / CONFIG).is_file():
            return _open_hf(path.parent, path, told)
        raise WeightsError(
            f"{path} holds weights of transformers, which do not tell the model's sizes. Put its {CONFIG}, "
            "preprocessor_config.json and tokenizer.json beside it, and give the folder."
        )
    is_bare = file.is_archive or told.get("activation") or told.get("heads")
    if not is_bare and (path.parent / OPEN_CLIP_CONFIG).is_file():
        return _open_open_clip(path.parent, path, told)
    by_openai = file.is_archive or not {"input_resolution", LONG}.isdisjoint(file.tensors)  # Long-CLIP is its code
    shapes: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    known = "quick_gelu" if by_openai else known_activation(path) if path.suffix in PICKLES else None
    origin: Origin = "format" if by_openai else "known by SHA-256"
    config = config_from_shapes(shapes, activation=told.get("activation") or known, heads=told.get("heads"))
    text = config.text
    origins: dict[str, Origin] = {
        ACTIVATION: "told" if told.get("activation") else origin,
        END_TOKEN: origin if known else "format" if text.vocab_size == VOCABULARY else "assumed",
        RECIPE: origin if known else "assumed",
    }
    return FoundModel(
        kind="OpenAI archive" if file.is_archive else "OpenAI state dict" if by_openai else "open_clip state dict",
        untold=fill(
            config,
            told,
            path=path,
            preprocess=None,
            assumed=Preprocess(image_size=config.image.image_size),
            origins=origins,
        ),
        naming=naming_of(config),
        weights=path,
        tensors=tensors,
    )


def _open_big_vision(path: Path, arrays: Mapping[str, Tensor], told: Told) -> FoundModel:
    config, tensors = siglip_from_big_vision(arrays, path)
    return FoundModel(
        kind="big_vision checkpoint",
        untold=fill(
            config,
            told,
            path=path,
            preprocess=None,
            assumed=SIGLIPS_RECIPE(image_size=config.image.image_size),
            origins={ACTIVATION: "format", END_TOKEN: "format", RECIPE: "assumed"},
        ),
        naming=OWN,
        weights=path,
        tensors=tensors,
        cleaning="siglip",
    )
