"""Where the data that travels inside the package lies."""

from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.files import expanded

_PREFIX = "embedded:"
_FOLDERS = (Path(__file__).parent / "pictograms", Path(__file__).parent / "tones")

TONES = _PREFIX + "tones-twemoji"  # the held-out style once more, people in five skin tones
HELD_OUT = _PREFIX + "twemoji"  # the art style that no embedded training picture has


def data_path(name: str) -> Path:
    """The path that a recipe or an option names; "embedded:NAME" is a set inside the package.

    Raises:
        ConfigError: the package has no set of that name; the nearest one is named.
    """
    if not name.startswith(_PREFIX):
        return expanded(name)
    sets = {folder.name: folder for parent in _FOLDERS for folder in parent.iterdir() if folder.is_dir()}
    if name.removeprefix(_PREFIX) not in sets:
        raise ConfigError(unknown_name(name, _PREFIX, sets, "a set inside the package"))
    return sets[name.removeprefix(_PREFIX)]
