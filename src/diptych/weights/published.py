"""The published models that diptych opens, from `published.toml`: what they are, and what others measured of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.config import from_dict, read_toml


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One row of the table."""

    name: str  # architecture, and a tag for the data where one architecture has several
    hub: str  # hf:org/name
    architecture: str  # in open_clip's manner, without the activation, which the files tell
    data: str  # what it was trained on
    licence: str  # of the weights
    parameters: int
    size: int  # bytes of the weights at float32
    image_size: int  # S, pixels of one side
    imagenet: float  # zero-shot top-1 on ImageNet, per cent
    source: str  # of `imagenet`


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A bare file of weights, which does not tell its activation itself."""

    name: str  # of the model, as `PublishedModel.name`
    sha256: str  # the first digits, as its publisher has them in the file's address
    activation: Literal["quick_gelu", "gelu"]


def published_files() -> tuple[PublishedFile, ...]:
    """The bare files that are known by their SHA-256; all have CLIP's picture recipe and end token."""
    return from_dict(_Table, read_toml(Path(__file__).with_name("published.toml"))).file


def published_models() -> list[PublishedModel]:
    """The published models, in families of the same data, licence and source; small ones first in each."""
    table = from_dict(_Table, read_toml(Path(__file__).with_name("published.toml")))
    return [
        PublishedModel(
            name=model.name,
            hub=model.hub,
            architecture=model.architecture,
            data=family.data,
            licence=family.licence,
            parameters=model.parameters,
            size=4 * model.parameters,
            image_size=model.image_size,
            imagenet=model.imagenet,
            source=family.source,
        )
        for family in table.family
        for model in family.models
    ]


@dataclass(frozen=True, kw_only=True)
class _Model:
    name: str
    hub: str
    architecture: str
    parameters: int
    image_size: int
    imagenet: float


@dataclass(frozen=True, kw_only=True)
class _Family:
    data: str
    licence: str
    source: str
    models: tuple[_Model, ...]


@dataclass(frozen=True, kw_only=True)
class _Table:
    family: tuple[_Family, ...]
    file: tuple[PublishedFile, ...]
