"""Models by name: those that ship inside the package, those on a hub, and anything by its path."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from diptych.config import to_dict
from diptych.data.images import Preprocess
from diptych.model.clip import CLIPConfig
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About, count_parameters
from diptych.weights.joint_file import both, check_one, read_joint
from diptych.weights.packaged import DEFAULT_TOWERS, packaged_models
from diptych.weights.places import ModelPlace, find_model
from diptych.weights.stored import open_stored_model
from diptych.weights.untold import ACTIVATION, END_TOKEN, RECIPE, Origin, Told, summary


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What can be told of a model without building it."""

    name: str
    kind: str  # whose layout its files have
    architecture: str  # one line
    parameters: int
    embed_dim: int  # D
    image_size: int  # S, pixels of one side
    types: str  # what its parameters are stored as
    tensors: int  # how many the file holds
    recipe: str  # what is done to a picture, one line
    end_token: str  # where a text is read
    origins: Mapping[str, Origin]  # where picture recipe, end token and activation are known from
    tokenizer: str  # the file or folder of it, empty when there is none
    source: str  # who made the weights, or where they are from
    licence: str
    data: str  # what it was trained on
    size: int  # bytes on disk of all files of its folder, or of the one file


def list_models() -> list[ModelInfo]:
    """The models that ship in the package, in alphabetical order.

    Raises:
        WeightsError: the folder of one is damaged.
    """
    return [model_info(name) for name in packaged_models()]


def model_info(
    name_or_path: str | Path | None,
    *,
    revision: str | None = None,
    **told: Unpack[Told],
) -> ModelInfo:
    """The facts of one model, from its files; nothing is built and no value is read.

    Args:
        name_or_path: as `load` takes it; so are the others.
        revision: see `load`.
        told: see `load`.

    Raises:
        ConfigError: there is neither such a model nor such a path.
        WeightsError: a file is missing or damaged.
    """
    place = find_model(name_or_path, revision=revision)
    if joint := read_joint(place.path):
        return _joined_info(place.name, model_info(joint.photographs), model_info(joint.drawings))
    stored = open_stored_model(place.path, weights=place.weights, **told)
    path = stored.path
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    about = place.about or (stored.seal.about if stored.seal else About())
    weights = {
        name: tensor for name, tensor in stored.tensors.items() if not re.fullmatch(stored.naming.without_meaning, name)
    }
    types = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if tensor.ndim > 0}
    return ModelInfo(
        name=place.name,
        kind=stored.kind,
        architecture=_one_line(stored.config),
        parameters=count_parameters({name: tensor.shape for name, tensor in weights.items()}),
        embed_dim=stored.config.embed_dim,
        image_size=stored.config.image.image_size,
        types=", ".join(sorted(types)),
        tensors=len(stored.tensors),
        recipe=summary(stored.preprocess),
        end_token=_end_token(stored.config),
        origins={name: stored.untold.origins[name] for name in (RECIPE, END_TOKEN, ACTIVATION)},
        tokenizer=str(stored.tokenizer or ""),
        source=about.source,
        licence=about.licence,
        data=about.data,
        size=sum(file.stat().st_size for file in files),
    )


def sizes_of(name_or_path: str | Path) -> tuple[CLIPConfig, Preprocess]:
    """The sizes and the picture recipe of a model, from its files; nothing is built.

    Args:
        name_or_path: as `load` takes it.

    Raises:
        ConfigError: there is neither such a model nor such a path, or it is two models behind one name.
        WeightsError: a file is missing or damaged.
    """
    place = find_model(name_or_path)
    check_one(place.name, place.path)
    stored = open_stored_model(place.path, weights=place.weights)
    return stored.config, stored.preprocess


def load_in_torch(
    name_or_path: str | Path | ModelPlace | None = None,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    image_size: int | None = None,
    revision: str | None = None,
    **told: Unpack[Told],
) -> Bundle:
    """A model in torch by its name or from its files, whoever wrote them; see `diptych.load`.

    Args:
        name_or_path: as `diptych.load` takes it, or where it was found already; None is `DEFAULT_TOWERS`.
        device: as torch names it; "auto" is the GPU where there is one.
        dtype: what its weights are kept and computed in; "auto" is float32.
        image_size: see `diptych.load`.
        revision: see `diptych.load`.
        told: see `diptych.load`.

    Raises:
        ConfigError: there is neither such a model nor such a path; the nearest name is given. Or it is two models
            behind one name, or cannot take this image size, or there is no such device here.
        WeightsError: the files are missing, damaged, or of another kind of model, or the hub does not give them.
    """
    place = name_or_path
    if not isinstance(place, ModelPlace):
        place = find_model(place, revision=revision, default=DEFAULT_TOWERS)
    check_one(place.name, place.path)
    bundle = Bundle.load(place.path, weights=place.weights, **told)
    if place.about:
        bundle = dataclasses.replace(bundle, about=place.about)
    if image_size is not None:
        bundle = bundle.with_image_size(image_size)
    return bundle.to(device, None if dtype == "auto" else dtype)


def _joined_info(name: str, first: ModelInfo, second: ModelInfo) -> ModelInfo:
    """Of two models behind one name: sums, and what both say."""
    return dataclasses.replace(
        first,
        name=name,
        kind="two models behind one name",
        architecture=f"{first.name}: {first.architecture} / {second.name}: {second.architecture}",
        parameters=first.parameters + second.parameters,
        embed_dim=first.embed_dim + second.embed_dim + 1,
        tensors=first.tensors + second.tensors,
        source=both(first.source, second.source),
        licence=both(first.licence, second.licence),
        data=both(first.data, second.data),
        size=first.size + second.size,
    )


def _end_token(config: CLIPConfig) -> str:
    text = config.text
    if "end_token_id" not in {field.name for field in dataclasses.fields(text)}:
        return "not looked for"
    number = to_dict(text).get("end_token_id")
    return "the highest id of a text" if number is None else f"token {number:,}"


def _one_line(config: CLIPConfig) -> str:
    text = config.text
    return f"{config.image.summary}; text: {text.summary}, {text.vocab_size:,} x {text.context_length} tokens"
