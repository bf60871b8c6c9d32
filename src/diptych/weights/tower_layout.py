"""How open_clip describes one kind of tower and names its tensors: what a file of `weights/` has for each kind."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from diptych.errors import ConfigError
from diptych.weights.adapters import TensorRow

Section = Mapping[str, Any]  # vision_cfg or text_cfg of an `open_clip_config.json`
HEAD = 64  # channels of an attention head where nothing else is said


@dataclass(frozen=True, kw_only=True)
class TowerLayout:
    """One kind of tower in an `open_clip_config.json` and in its file of weights; both ways.

    Attributes:
        kind: of our config.
        fits: whether a section describes such a tower.
        read: the options of our config, its kind too, from a section and the `model_cfg` that it stands in. It raises
            ConfigError where the section says what our tower does not do, and may let a wrong type raise as it does.
        write: the section, from our config. It raises ConfigError where open_clip has no such tower.
        rows: the names of its tensors, from our config: ours begin with "image." or "text.", theirs are those of
            `plain_names`.
        has: whether one of our configs of this kind is such a tower, where there are others of the kind.
        without_meaning: a pattern for names that hold no weights and may be there or not.
        has_text_module: of an image tower, whether models with it keep the tensors of their texts in a module, as
            `custom_text` says; what a text tower's section says may be another reason.
        by_names: our config as the names of their tensors, those of `plain_names`, show it to be, where a section does
            not tell all.
    """

    kind: str
    fits: Callable[[Section], bool]
    read: Callable[[Section, Section], dict[str, Any]]
    write: Callable[[Any], dict[str, Any]]
    rows: Callable[[Any], tuple[TensorRow, ...]]
    has: Callable[[Any], bool] = lambda _: True
    without_meaning: str = "(?!)"
    has_text_module: bool = False
    by_names: Callable[[Any, Collection[str]], Any] = lambda config, _: config


def check_says(where: str, section: Section, must: Mapping[str, Any], what_it_is: Mapping[str, str]) -> None:
    """Refuse a section that says otherwise of a tower than it must for ours to be the same.

    Args:
        where: "vision_cfg" or "text_cfg".
        section: of that name.
        must: by key, the value without which ours is another tower; absent is as good.
        what_it_is: by key, what a model is that says otherwise, where there is a word for it.

    Raises:
        ConfigError: one key is named.
    """
    for key, value in must.items():
        if section.get(key, value) != value:
            found = f"{where}.{key} must be {value!r} or absent. Got {section[key]!r}"
            raise ConfigError(f"{found}: {what_it_is.get(key, 'a tower that diptych does not have')}.")
