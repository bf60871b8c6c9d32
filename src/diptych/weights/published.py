"""The published models, from `published.toml`: what they are, and what others measured of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych.config import from_dict, read_toml

_TABLE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One row of the table."""

    name: str  # architecture, and a tag for the data where one architecture has several
    hub: str  # hf:org/name
    also: tuple[str, ...] = ()  # other repositories with the same weights
    family: str
    architecture: str  # in open_clip's manner, without the activation, which the files tell
    data: str  # what it was trained on
    licence: str  # of the weights; "see its card" where nothing that was read tells it
    parameters: int | None = None
    size: int | None = None  # bytes of the weights at float32
    image_size: int | None = None  # S, pixels of one side
    imagenet: float | None = None  # zero-shot top-1 on ImageNet, per cent
    source: str = ""  # of `imagenet`


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A bare file of weights, which does not tell its activation itself."""

    name: str  # of the model, as `PublishedModel.name`
    sha256: str  # the first digits, as its publisher has them in the file's address
    activation: Literal["quick_gelu", "gelu"]


def published_files() -> tuple[PublishedFile, ...]:
    """The bare files that are known by their SHA-256; all have CLIP's picture recipe and end token."""
    return _table().file


def published_models() -> list[PublishedModel]:
    """The published models, in families of the same data, licence and source; small ones first in each."""
    return [
        PublishedModel(
            name=model.name,
            hub=model.hub,
            also=model.also,
            family=family.family,
            architecture=model.architecture,
            data=family.data,
            licence=family.licence,
            parameters=model.parameters,
            size=None if model.parameters is None else 4 * model.parameters,
            image_size=model.image_size,
            imagenet=model.imagenet,
            source=family.source,
        )
        for family, model in _rows()
    ]


def published_configs() -> dict[str, Mapping[str, Any]]:
    """By the hub name of each published model, what of its config decides whether it opens.

    A `config.json` of transformers has a model_type there, and no sizes; else it is the `model_cfg` of an
    `open_clip_config.json`, with the sizes of its defaults and the name of its timm tower.
    """
    configs = read_toml(_TABLE)["configs"]
    found: dict[str, Mapping[str, Any]] = {}
    for family, model in _rows():
        config = {"model_type": model.model_type} if model.model_type else configs[model.config or family.config]
        found[model.hub] = config if "model_type" in config else _model_cfg(config, model)
    return found


def _model_cfg(config: Mapping[str, Any], model: "_Model") -> Mapping[str, Any]:
    vision = config["vision_cfg"]
    if model.timm:
        vision = vision | {"timm_model_name": model.timm, "image_size": model.image_size}
    told = {key: None if value == "null" else value for key, value in vision.items()}
    return {"embed_dim": model.embed_dim, **config, "vision_cfg": told}


def _rows() -> "list[tuple[_Family, _Model]]":
    return [(family, model) for family in _table().family for model in family.models]


def _table() -> "_Table":
    return from_dict(_Table, {key: value for key, value in read_toml(_TABLE).items() if key != "configs"})


@dataclass(frozen=True, kw_only=True)
class _Model:
    name: str
    hub: str
    also: tuple[str, ...] = ()
    architecture: str
    parameters: int | None = None
    image_size: int | None = None
    imagenet: float | None = None
    config: str = ""  # where it is not that of the family
    timm: str = ""
    embed_dim: int = 512
    model_type: str = ""  # instead of a config


@dataclass(frozen=True, kw_only=True)
class _Family:
    family: str
    data: str
    licence: str
    source: str
    config: str = ""
    models: tuple[_Model, ...]


@dataclass(frozen=True, kw_only=True)
class _Table:
    family: tuple[_Family, ...]
    file: tuple[PublishedFile, ...]
