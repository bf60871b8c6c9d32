"""Whether a model opens, told by its config alone: asked of a repository before its weights are got, and of each
published model where they are listed.
"""

from collections.abc import Mapping
from typing import Any

from diptych.errors import ConfigError
from diptych.weights.hugging_face import config_from_hf
from diptych.weights.open_clip import cleaning_of, config_from_open_clip
from diptych.weights.published import PublishedModel, published_configs


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a model that diptych does not have.

    Args:
        config: the content of a `config.json` of transformers, which has a model_type, or the `model_cfg` of an
            `open_clip_config.json`.

    Raises:
        ConfigError: it is such a model; the sentence says what it is.
    """
    if config.get("model_type") == "diptych-clip":
        return
    if "model_type" in config:
        config_from_hf(config)
    else:
        config_from_open_clip(config)
        cleaning_of(config)


def refusals(models: list[PublishedModel]) -> dict[str, str]:
    """Why a published model does not open, by its hub name; those that open are not among them."""
    configs, found = published_configs(), {}
    for model in models:
        try:
            check_config(configs[model.hub])
        except ConfigError as error:
            found[model.hub] = str(error)
    return found
