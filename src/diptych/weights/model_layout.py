"""How `transformers` describes one type of model and names its tensors: what a file `weights/hf_*.py` has for each."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from diptych.config import unknown_name
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError
from diptych.model.blocks import Activation
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import Naming

Section = Mapping[str, Any]  # a `config.json`, or its text_config or vision_config
Table = tuple[tuple[str, str, Any], ...]  # our option, theirs, and what theirs is when `config.json` is silent

_ACTIVATIONS: dict[Activation, str] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
}
WITHOUT_MEANING = r".*\.(position_ids|token_type_ids)"  # 0, 1, 2, ... and zeros, which older versions saved


class TokenIds(NamedTuple):
    """What a `config.json` tells of a tokenizer."""

    start: int | None  # SigLIP's has none
    end: int
    vocab_size: int  # the model's may be larger


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """A type of model in a `config.json` of `transformers` and in its file of weights.

    Attributes:
        model_types: as `config.json` names them.
        read: the sizes. It raises ConfigError where it is a model that ours cannot be.
        naming: the names of the tensors, of sizes that `read` gave or that fit.
        fits: whether a model of these sizes can be written as this type; the first that fits is written.
        write: the content of a `config.json` with which the library gives the same features, of sizes that fit.
        silent_recipe: options of `Preprocess` where a folder has no recipe of pictures.
        reads_recipe: whether `Preprocess` does what recipes of this type ask for; if not, the silent one is assumed.
        image_size: which of recipe and `config.json` counts where they differ; "agree": neither, it is a fault.
        cleaning: of texts, where the tokenizer's own file may leave it out.
        spellings: patterns of names that some versions of the library wrote, and what stands in their place here.
    """

    model_types: tuple[str, ...]
    read: Callable[[Section], CLIPConfig]
    naming: Callable[[CLIPConfig], Naming]
    fits: Callable[[CLIPConfig], bool] = lambda _: False
    write: Callable[[CLIPConfig, TokenIds], dict[str, Any]] | None = None
    silent_recipe: Mapping[str, Any] = field(default_factory=dict)
    reads_recipe: bool = True
    image_size: Literal["agree", "recipe", "config"] = "agree"
    cleaning: Cleaning = "file"
    spellings: tuple[tuple[str, str], ...] = ()

    def respelt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file by the names that `naming` has for them."""
        named = dict(tensors)
        for pattern, spelling in self.spellings:
            named = {re.sub(pattern, spelling, name): tensor for name, tensor in named.items()}
        return named


def section(data: Section, name: str) -> Section:
    """text_config or vision_config of a `config.json`.

    Raises:
        ConfigError: it is no JSON object.
    """
    older = data.get(f"{name}_dict")  # in early files; where it is there, the library reads it alone
    found = (data.get(name) or {}) if older is None else older
    if not isinstance(found, Mapping):
        raise ConfigError(f"{name} must be a JSON object. Got {found!r}.")
    return found


def vision_section(data: Section) -> Section:
    """The vision_config of a `config.json`, which is of colour pictures.

    Raises:
        ConfigError: it is no JSON object, or of other pictures.
    """
    vision = section(data, "vision_config")
    if vision.get("num_channels", 3) != 3:
        raise ConfigError(f"vision_config.num_channels must be 3. Got {vision['num_channels']!r}.")
    return vision


def read_tower(found: Section, table: Table) -> dict[str, Any]:
    """Options of ours from a section.

    Raises:
        ConfigError: the activation is none of ours.
    """
    sizes = {ours: found.get(theirs, default) for ours, theirs, default in table}
    return {**sizes, "activation": read_activation(sizes["activation"])}


def read_activation(name: Any) -> Activation:
    """Ours, by the library's name.

    Raises:
        ConfigError: we have none of this name.
    """
    activations: dict[str, Activation] = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
    if not isinstance(name, str) or name not in activations:
        raise ConfigError(unknown_name(str(name), "", activations, "a hidden_act that diptych has"))
    return activations[name]


def write_tower(tower: Any, table: Table) -> dict[str, Any]:
    """A section from a config of ours."""
    sizes = {theirs: getattr(tower, ours) for ours, theirs, _ in table}
    return {**sizes, "hidden_act": _ACTIVATIONS[tower.activation]}


def check_says(where: str, found: Section, must: Mapping[str, Any]) -> None:
    """Refuse a section that says otherwise of a tower than it must for ours to be the same.

    Args:
        where: its name.
        found: the section.
        must: by key, the value without which ours is another tower; absent is as good.

    Raises:
        ConfigError: one key is named.
    """
    for key, value in must.items():
        if found.get(key, value) != value:
            raise ConfigError(
                f"{where}.{key} must be {value!r} or absent. Got {found[key]!r}: a tower that diptych does not have."
            )
