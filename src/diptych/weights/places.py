"""Where a model lies, by what it is called: in the package, on a hub, or at a path. Nothing of it is opened."""

from pathlib import Path
from typing import NamedTuple

from diptych.errors import ConfigError
from diptych.weights.folder import About
from diptych.weights.hub import HUB_PREFIX, fetch
from diptych.weights.packaged import DEFAULT_MODEL, check_model_name, packaged_models
from diptych.weights.published import published_models


class ModelPlace(NamedTuple):
    """Where the files of a model are."""

    name: str
    path: Path  # a folder, or one file
    weights: str = ""  # the name of the file of weights, where a folder may hold several
    about: About | None = None  # what is known from elsewhere than the files


def find_model(
    name_or_path: str | Path | None, *, revision: str | None = None, default: str = DEFAULT_MODEL
) -> ModelPlace:
    """Look a model up; one on a hub is fetched.

    Args:
        name_or_path: as `diptych.load` takes it.
        revision: of a hub name.
        default: what None is.

    Raises:
        ConfigError: there is neither such a model nor such a path; the nearest name is given.
        WeightsError: the hub does not give it.
    """
    name = default if name_or_path is None else name_or_path
    if isinstance(name, str) and name.startswith(HUB_PREFIX):
        snapshot = fetch(name, revision=revision)
        known = next((model for model in published_models() if snapshot.name in (model.hub, *model.also)), None)
        about = About(
            source=f"{snapshot.name}@{snapshot.revision}",
            licence=known.licence if known else "",
            data=known.data if known else "",
            sha256=snapshot.sha256.get(snapshot.weights, ""),
        )
        return ModelPlace(snapshot.name, snapshot.folder, snapshot.weights, about)
    if revision is not None:
        raise ConfigError(f"a revision is of a hub name, hf:org/name. Got {str(name)!r}.")
    models = packaged_models()
    if isinstance(name, str) and name in models:
        return ModelPlace(name, models[name])
    check_model_name(name_or_path, default=default)
    return ModelPlace(Path(name).name, Path(name))
