"""What `diptych models` lists: the models in the package, and a choice of the published ones. torch is not needed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError, WeightsError
from diptych.weights.folder import CONFIG, WEIGHTS, count_parameters, read_json, read_seal
from diptych.weights.graphs import GRAPHS, read_graphs
from diptych.weights.joint_file import both, read_joint
from diptych.weights.packaged import packaged_models
from diptych.weights.published import PublishedModel, published_models


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model that ships in the package."""

    name: str
    parameters: int
    embed_dim: int  # D
    image_size: int  # S, pixels of one side
    size: int  # bytes on disk of all files of its folder
    source: str
    licence: str  # of the weights
    data: str  # what it was trained on


def list_packaged() -> list[PackagedModel]:
    """The models that ship in the package, in alphabetical order; their facts are read off their files.

    Raises:
        WeightsError: the folder of one is damaged.
    """
    models = packaged_models()
    one = {name: _packaged(name, folder) for name, folder in models.items() if not read_joint(folder)}
    return [one.get(name) or _joined(name, folder, one) for name, folder in models.items()]


def packaged_by(fingerprint: str) -> str:
    """The name of the one model in the package that has this fingerprint; empty where none has.

    Raises:
        WeightsError: the folder of one is damaged.
    """
    folders = {name: folder for name, folder in packaged_models().items() if not read_joint(folder)}
    return next((n for n, folder in folders.items() if read_graphs(folder / GRAPHS).fingerprint == fingerprint), "")


def choose_published(
    *, family: str | None = None, licence: str | None = None, max_size: float | None = None
) -> list[PublishedModel]:
    """Those of the published models that fit.

    Args:
        family: one of the table's; case does not count.
        licence: a part of it, such as "MIT"; case does not count.
        max_size: GB of the weights at float32; models of unknown size are left out.

    Raises:
        ConfigError: there is no such family, or no such licence.
    """
    models = published_models()
    if family is not None:
        families = {model.family.lower(): model.family for model in models}
        if family.lower() not in families:
            raise ConfigError(unknown_name(family, "", families.values(), "a family"))
        models = [model for model in models if model.family.lower() == family.lower()]
    if licence is not None:
        licences = sorted({model.licence for model in published_models()})
        if not any(licence.lower() in one.lower() for one in licences):
            raise ConfigError(f"{licence} must be a part of a licence. Licences: {'; '.join(licences)}.")
        models = [model for model in models if licence.lower() in model.licence.lower()]
    if max_size is not None:
        models = [model for model in models if model.size is not None and model.size <= max_size * 1e9]
    return models


def _packaged(name: str, folder: Path) -> PackagedModel:
    graphs = read_graphs(folder / GRAPHS)
    seal = read_seal(folder / CONFIG, read_json(folder / CONFIG))
    if seal is None:
        raise WeightsError(f"{folder} must be a bundle that diptych wrote, and is none. Install diptych again.")
    return PackagedModel(
        name=name,
        parameters=_parameters(folder / WEIGHTS),
        embed_dim=graphs.embed_dim,
        image_size=graphs.image_size,
        size=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        source=seal.about.source,
        licence=seal.about.licence,
        data=seal.about.data,
    )


def _joined(name: str, folder: Path, others: Mapping[str, PackagedModel]) -> PackagedModel:
    joint = read_joint(folder)
    assert joint
    first, second = others[joint.photographs], others[joint.drawings]
    return PackagedModel(
        name=name,
        parameters=first.parameters + second.parameters,
        embed_dim=first.embed_dim + second.embed_dim + 1,
        image_size=first.image_size,
        size=first.size + second.size,
        source=both(first.source, second.source),
        licence=both(first.licence, second.licence),
        data=both(first.data, second.data),
    )


def _parameters(weights: Path) -> int:
    """By the header of the file: the values are not read."""
    try:
        with weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, LookupError, TypeError, MemoryError, OverflowError) as error:
        raise WeightsError(f"{weights} cannot be read ({error!r}). Install diptych again.") from error
    return count_parameters(shapes)
