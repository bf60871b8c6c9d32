"""Published figures of OpenAI's weights, from `published_scores.toml`: what a result is compared with."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config import read_toml
from diptych.errors import ConfigError
from diptych.weights.published import published_models

KINDS = ("zero_shot", "rerun", "linear_probe")


@dataclass(frozen=True)
class PublishedScore:
    value: float  # share, between 0 and 1
    metric: str  # "accuracy", "mean per class", ...
    source: str


def published_score(model: str, data: str, kind: str = "zero_shot") -> PublishedScore | None:
    """What others measured of a model on a data set; None where the table has no figure.

    Args:
        model: a name of `diptych models` or a hub name, e.g. "ViT-B-32.openai".
        data: name of the set in any spelling, e.g. "CIFAR-10".
        kind: "zero_shot" or "linear_probe" of the paper, or "rerun" by open_clip, zero-shot.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
    table = _table()
    names = {one.hub: one.name for one in published_models()}
    architecture, _, tag = names.get(model, model).partition(".")
    key = re.sub(r"[^a-z0-9]", "", data.casefold())
    scores = table[kind]["scores"].get(key)
    if tag != "openai" or architecture not in table["models"] or scores is None:
        return None
    value = scores[table["models"].index(architecture)] / 100
    return PublishedScore(value, table["metric"].get(key, "accuracy"), table[kind]["source"])


@functools.cache
def _table() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("published_scores.toml"))
