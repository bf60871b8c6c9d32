"""Where the drawings lie that travel beside the package, in `diptych_pictograms`."""

import importlib.util
from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError, MissingExtraError
from diptych.files import expanded

_PREFIX = "embedded:"
_PARENTS = ("pictograms", "tones")

TONES = _PREFIX + "tones-twemoji"  # the held-out style once more, people in five skin tones
HELD_OUT = _PREFIX + "twemoji"  # the art style that no embedded training picture has


def drawings() -> Path | None:
    """The folder of the package with the drawings; None where it is not installed."""
    spec = importlib.util.find_spec("diptych_pictograms")
    return Path(spec.origin).parent if spec and spec.origin else None


def data_path(name: str) -> Path:
    """The path that a recipe or an option names; "embedded:NAME" is a set of the drawings.

    Raises:
        ConfigError: there is no set of that name; the nearest one is named.
        MissingExtraError: the drawings are not installed.
    """
    if not name.startswith(_PREFIX):
        return expanded(name)
    folder = drawings()
    if folder is None:
        raise MissingExtraError(f"{name} needs the drawings: pip install diptych-pictograms. Other data works without.")
    sets = {one.name: one for parent in _PARENTS for one in (folder / parent).iterdir() if one.is_dir()}
    if name.removeprefix(_PREFIX) not in sets:
        raise ConfigError(unknown_name(name, _PREFIX, sets, "a set of the drawings"))
    return sets[name.removeprefix(_PREFIX)]
