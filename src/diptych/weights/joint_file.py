"""What `joint.json` holds: which two models stand behind one name, and what tells them apart. Nothing else is read."""

from dataclasses import dataclass
from pathlib import Path

from diptych.config import from_dict
from diptych.errors import ConfigError, WeightsError
from diptych.weights.folder import read_json
from diptych.weights.packaged import JOINT, packaged_models

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Whether a picture is a drawing, read off its feature in the model for photographs.

    `image_feature @ weights + offset`, held within 0 and 1: 0 a photograph, 1 a drawing, between them both.
    """

    weights: tuple[float, ...]  # [D] of the model for photographs
    offset: float


@dataclass(frozen=True, kw_only=True)
class JointFile:
    """Two models behind one name; see `diptych.weights.joint`."""

    version: int = _VERSION
    photographs: str  # their names
    drawings: str
    level: float  # logit of a drawing that counts as 0, so that words fit drawings and photographs alike
    gate: Gate
    golden: tuple[float, ...]  # of both models' golden pictures: by these a test knows whether they are still the ones
    about: str = ""  # how it was made


def read_joint(folder: Path) -> JointFile | None:
    """What the folder of a model says of its parts; None where it is one model.

    Raises:
        WeightsError: the file is damaged, of a later format, or names what is no model of the package.
    """
    path = folder / JOINT
    if not path.is_file():
        return None
    data = read_json(path)
    if isinstance(version := data.get("version"), int) and version > _VERSION:
        raise WeightsError(f"{path} has format {version}; this diptych reads up to {_VERSION}. Update diptych.")
    try:
        joint = from_dict(JointFile, data)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    models = packaged_models()
    for part in (joint.photographs, joint.drawings):  # a stranger's file does not say what is fetched or opened
        if part not in models or (models[part] / JOINT).is_file():
            raise WeightsError(f"{path} must name two models of this package that have weights. Got {part!r}.")
    return joint


def both(first: str, second: str) -> str:
    """What two models say of themselves, once where it is the same."""
    return " / ".join(dict.fromkeys(one for one in (first, second) if one))


def check_one(name: str, folder: Path) -> None:
    """Refuse what is two models behind one name, where the inside of one is wanted.

    Raises:
        ConfigError: it is two; both are named.
    """
    if joint := read_joint(folder):
        raise two_models(name, joint.photographs, joint.drawings)


def two_models(name: str, photographs: str, drawings: str) -> ConfigError:
    """That this wants the inside of one model, and between which two there is a choice."""
    return ConfigError(
        f"{name} is two models behind one name, and this needs the inside of one. Name {photographs}, for photographs, "
        f"or {drawings}, for drawings."
    )
