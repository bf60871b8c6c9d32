"""The models that ship, by name alone: nothing heavy is loaded to tell a wrong name."""

from pathlib import Path

from diptych.config import unknown_name
from diptych.data.embedded import drawings
from diptych.errors import ConfigError
from diptych.weights.hub import HUB_PREFIX

DEFAULT_MODEL = "diptych-photo"

_MODELS = Path(__file__).with_name("models")


def packaged_models() -> dict[str, Path]:
    """Their folders by name, in alphabetical order."""
    beside = drawings()
    configs = [*_MODELS.glob("*/config.json"), *((beside / "models").glob("*/config.json") if beside else ())]
    return dict(sorted((config.parent.name, config.parent) for config in configs))


def check_model_name(name: str | Path | None) -> None:
    """Refuse what `load` would find nothing under; a name of the hub is not looked up.

    Raises:
        ConfigError: there is neither such a model nor such a path; the nearest name is given.
    """
    models = packaged_models()
    if (name or DEFAULT_MODEL) in models or (name and (str(name).startswith(HUB_PREFIX) or Path(name).exists())):
        return
    what = unknown_name(str(name or DEFAULT_MODEL), "", models, "a model")
    more = "" if drawings() else " Small models of drawings come with: pip install diptych-pictograms."
    raise ConfigError(f"{what} Or give the folder or file of one, or hf:org/name.{more}")
