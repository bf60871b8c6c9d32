"""The models that ship, by name alone: nothing heavy is loaded to tell a wrong name."""

import re
from pathlib import Path

from diptych.config import unknown_name
from diptych.data.embedded import drawings
from diptych.errors import ConfigError
from diptych.weights.hub import HUB_PREFIX
from diptych.weights.published import published_models

DEFAULT_MODEL = "diptych"
DEFAULT_TOWERS = "diptych-photo"  # the default where the inside of one model is wanted: maps, evaluation, scores
JOINT = "joint.json"  # of a folder that is two models behind one name

_LONGEST = 200  # characters of a wrong name that are told
_MODELS = Path(__file__).with_name("models")


def packaged_models() -> dict[str, Path]:
    """Their folders by name, in alphabetical order."""
    beside = drawings()
    configs = [*_MODELS.glob("*/config.json"), *_MODELS.glob(f"*/{JOINT}")]
    configs += (beside / "models").glob("*/config.json") if beside else ()
    return dict(sorted((config.parent.name, config.parent) for config in configs))


def check_model_name(name: str | Path | None, *, default: str = DEFAULT_MODEL) -> None:
    """Refuse what `load` would find nothing under; a name of the hub is not looked up. None is the default.

    Raises:
        ConfigError: there is neither such a model nor such a path; the nearest name is given.
    """
    models = packaged_models()
    if (name or default) in models or (name and (str(name).startswith(HUB_PREFIX) or _is_there(Path(name)))):
        return
    if name and (meant := _published_as(str(name))):
        raise ConfigError(f"{name} is neither a model of this package nor a path. Did you mean {meant}?")
    what = unknown_name(str(name or default)[:_LONGEST], "", models, "a model")
    more = "" if drawings() else " Small models of drawings come with: pip install diptych-pictograms."
    raise ConfigError(f"{what} Or give the folder or file of one, or hf:org/name.{more}")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is longer than any file's
        return False


def _published_as(name: str) -> str:
    """The hub name that is meant by what other programs, or the table of published models, call a model."""
    prefixed = re.fullmatch(r"(hf-hub:|(?:https?://)?huggingface\.co/)?([\w.-]{1,96}/[\w.-]{1,96})/?", name)
    address = HUB_PREFIX + prefixed[2] if prefixed else ""
    for model in published_models():
        if name.replace("/", ".").lower() == model.name.lower() or address in (model.hub, *model.also):
            return model.hub if address not in model.also else address
    return address if prefixed and prefixed[1] else ""
