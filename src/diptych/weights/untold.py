"""What the files of a model may leave out: told by the user instead, known of a published file, or assumed.

Nothing is assumed in silence: each assumption is a sentence, with the option that says otherwise.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from diptych.config import from_dict, to_dict
from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.files import sha256
from diptych.model.blocks import Activation
from diptych.model.clip import CLIPConfig
from diptych.weights.published import published_files

Origin = Literal["file", "format", "known by SHA-256", "told", "assumed"]
RECIPE, END_TOKEN, ACTIVATION = "picture recipe", "end token", "activation"
_RECIPE_OPTIONS = ("mean", "std", "resize", "interpolation")


class Told(TypedDict, total=False):
    """What a user tells of a model where its files do not; None is not told.

    Keys:
        activation: of a bare state dict.
        heads: of the image tower of a bare state dict, where they are not 64 channels wide.
        tokenizer: a folder with one, or a file of CLIP's merges, instead of what lies beside the weights.
        mean: of R, G, B in [0, 1], that pictures are normalised with.
        std: likewise.
        resize: "shortest" (the shorter side, then a crop in the middle) or "squash" (both sides).
        interpolation: "bicubic" or "bilinear".
        end_token: the id at which the text tower is read; else the highest of a text.
        state_dict: which model of a checkpoint that holds several.
    """

    activation: Activation | None
    heads: int | None
    tokenizer: str | Path | None
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    resize: Literal["shortest", "squash"] | None
    interpolation: Literal["bicubic", "bilinear"] | None
    end_token: int | None
    state_dict: str | None


@dataclass(frozen=True, kw_only=True)
class Untold:
    """The facts of a model that its files may leave out."""

    preprocess: Preprocess
    config: CLIPConfig
    origins: Mapping[str, Origin]  # of picture recipe, end token and activation


def fill(
    config: CLIPConfig,
    told: Told,
    *,
    path: Path,
    preprocess: Preprocess | None,
    assumed: Preprocess,
    origins: Mapping[str, Origin],
) -> Untold:
    """A model's facts, with what is told in the place of what is not.

    Args:
        config: by the files.
        told: by the user.
        path: for messages.
        preprocess: the picture recipe, None where the files do not tell it.
        assumed: what is then taken.
        origins: of what the files tell.

    Raises:
        WeightsError: something is told that the files tell themselves.
        ConfigError: what is told makes no picture recipe or end token.
    """
    recipe = {name: told.get(name) for name in _RECIPE_OPTIONS if told.get(name) is not None}
    given = [name for name in ("activation", "heads", "end_token") if told.get(name) is not None]
    itself = [name for name in given if origins.get("end token" if name == "end_token" else name) == "file"]
    itself += list(recipe) if preprocess is not None else []
    if itself:
        raise WeightsError(f"{path} tells its own {' and '.join(itself)}: leave that out.")
    origins = dict(origins)
    if preprocess is None:
        preprocess = dataclasses.replace(assumed, **recipe)
        by_files = origins.get(RECIPE, "file")
        origins[RECIPE] = "told" if recipe else "assumed" if by_files == "file" else by_files
    if (number := told.get("end_token")) is not None:
        text = from_dict(type(config.text), to_dict(config.text) | {"end_token_id": number}, where="text")
        config = dataclasses.replace(config, text=text)
        origins[END_TOKEN] = "told"
    return Untold(preprocess=preprocess, config=config, origins=origins)


def known_activation(path: Path) -> Activation | None:
    """Of a published file of weights, whatever it is called: it is known by its SHA-256."""
    digest = sha256(path)
    return next((file.activation for file in published_files() if digest.startswith(file.sha256)), None)


def assumptions(untold: Untold, path: Path) -> list[str]:
    """A sentence for each thing that was assumed."""
    said = []
    if untold.origins.get(RECIPE) == "assumed":
        said.append(
            f"{path} does not tell its picture recipe. Assumed: {summary(untold.preprocess)}. A model that was trained "
            "with another wants mean=, std=, resize= or interpolation=."
        )
    if untold.origins.get(END_TOKEN) == "assumed":
        said.append(
            f"{path} does not tell its end token. Assumed: the highest id of a text. A model that was trained with "
            "another wants end_token=."
        )
    return said


def left_out_sentence(left_out: Sequence[str], path: Path) -> str:
    """What of a file is no part of the two towers: how much, and of which parts."""
    parts = dict.fromkeys(re.sub(r"\.\d+\b", ".*", name).rpartition(".")[0] or name for name in left_out)
    few = [*parts][:4]
    return (
        f"{path} holds more than two towers. Left out: {len(left_out):,} tensors, of {', '.join(few)}"
        f"{' and others' if len(parts) > len(few) else ''}."
    )


def summary(preprocess: Preprocess) -> str:
    """A picture recipe in one line."""
    how = {
        "shortest": "shorter side, then a crop in the middle",
        "squash": "both sides",
        "naflex": f"its shape kept, at most {preprocess.shape[0]:,} patches of {preprocess.patch_size} px",
    }[preprocess.resize]
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (preprocess.mean, preprocess.std))
    return f"{preprocess.image_size} px ({how}), {preprocess.interpolation}, mean {mean}, std {std}"
