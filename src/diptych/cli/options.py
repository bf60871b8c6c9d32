"""What several commands take: pictures by path or pattern, prompt templates, and how a model is measured."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain
from diptych.config import unknown_name
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.prompts import PLAIN, TEMPLATES, check_templates, read_lines
from diptych.errors import ConfigError, DataError
from diptych.eval.tasks import ComputePrecision
from diptych.files import expanded
from diptych.weights.packaged import DEFAULT_TOWERS, check_model_name

if TYPE_CHECKING:
    from diptych.eval.features import ModelFeatures, OnPictures
    from diptych.eval.suite import Asked
    from diptych.eval.tasks import FewShot
    from diptych.sets.labelled import LabelledImages
    from diptych.weights.bundle import Bundle
    from diptych.weights.dual_encoder import DualEncoder
    from diptych.where import Locator

B = TypeVar("B", bound="DualEncoder")
MANY = 500  # pictures from which it is worth finding out which engine is soonest
MEGAPIXELS = 100  # --max-pixels, as `diptych.data.images.MAX_PIXELS`

# Written out here: --help must not wait for numpy. A test holds them to those of `diptych.weights.engines`.
_Engine = Literal["auto", "torch", "onnx", "openvino"]
_Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Who computes features, and where.

    Parameters
    ----------
    engine
        torch, onnx (onnxruntime) or openvino, the latter two for models that carry their graphs; or auto: torch where
        there is a GPU for it, else what starts soonest, and for many pictures what was measured to be soonest at work.
    device
        auto, a GPU where there is one that the engine takes; cpu; or a name: cuda, cuda:1, mps of torch, cuda, coreml,
        directml of onnxruntime.
    dtype
        What torch keeps weights and computes in; auto is float32, and for whole libraries bfloat16 where this machine
        is quick at it.
    """

    engine: _Engine = "auto"
    device: str = "auto"
    dtype: _Dtype = "auto"

    def load(self, model: str | None, max_pixels: int = MEGAPIXELS, *, many: bool | None = False) -> "DualEncoder":
        """A model, which decodes at most so many million pixels of a picture.

        Args:
            model: its name or path.
            max_pixels: millions.
            many: see `diptych.load`.
        """
        from diptych.weights.engines import load

        bundle = load(model, engine=self.engine, many=many, device=self.device, dtype=self.dtype)
        return limited(bundle, max_pixels)


BY_MEASURE = EngineOptions()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is measured, and how.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    cache
        A folder for features, which other commands and runs use again. A suite has OUT/features by default.
    precision
        What the model computes in: float32, bfloat16, or auto, the faster of the two on this machine.
    device
        auto, the GPU where there is one; cpu; or a name that torch knows: cuda, cuda:1, mps.
    seed
        Of whatever is drawn: intervals, validation pictures, shots, halves.
    batch_size
        Pictures, and texts, in one forward pass.
    truncate
        Cut class names that are too long for the model, with their template, instead of refusing them. Captions and
        words of others are always cut. How many were cut is said, and stands in the result.
    image_size
        Pixels of one side of the pictures that the model is given; by default its own size. Its learned positions are
        stretched. Of a NaFlex model: the side of a square picture; others have as many patches in their own shape.
    """

    model: str | None = None
    cache: Path | None = None
    precision: ComputePrecision = "float32"
    device: str = "auto"
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64
    truncate: bool = False
    image_size: PositiveInt | None = None

    def features(
        self,
        *,
        bundle: "Bundle | None" = None,
        cache: Path | None = None,
        on_progress: "OnPictures | None" = None,
    ) -> "ModelFeatures":
        """The model, loaded.

        Args:
            bundle: in place of the model that is asked for.
            cache: where features go when no other folder is asked for.
            on_progress: is called after each batch of pictures.
        """
        from diptych.eval.features import ModelFeatures
        from diptych.weights.registry import load_in_torch

        bundle = bundle or load_in_torch(self.model, device=self.device)
        return ModelFeatures(
            bundle.with_image_size(self.image_size) if self.image_size else bundle,
            cache=self.cache or cache,
            precision=self.precision,
            batch_size=self.batch_size,
            truncate=self.truncate,
            on_note=complain,
            on_progress=on_progress or (lambda _done, _all: None),
        )

    def asked(self, templates: Sequence[str] | None = None, few_shot: "FewShot | None" = None) -> "Asked":
        from diptych.eval.suite import Asked
        from diptych.eval.tasks import FewShot

        return Asked(
            model=self.model or DEFAULT_TOWERS,
            seed=self.seed,
            templates=tuple(templates) if templates else None,
            few_shot=few_shot or FewShot(),
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the model is told of the classes.

    Parameters
    ----------
    templates
        A prompt template with {} for the class name, or the name of a published set, e.g. imagenet. May be given
        several times. By default those of the table of tasks, where the data is one of them; else those of the data;
        else the class name as it is.
    templates_file
        A text file with one prompt template a line.
    """

    templates: list[str] | None = None
    templates_file: Path | None = None

    def read(self) -> tuple[str, ...] | None:
        """See `read_templates`."""
        return read_templates(self.templates, self.templates_file)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What a chapter of an audit on labelled pictures is asked with.

    Parameters
    ----------
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads. By default drawings that are embedded.
    split
        Which split of the set.
    out
        A folder for NAME.json.
    seed
        Of whatever is drawn: pictures, words, noises, classes, and intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """

    data: str = HELD_OUT
    split: str = "test"
    out: Path | None = None
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64

    def labelled(self) -> "LabelledImages":
        from diptych.sets.open import read_labelled

        return read_labelled(data_path(self.data), split=self.split)

    def features(self, model: str) -> "ModelFeatures":
        return ModelOptions(model=model, seed=self.seed, batch_size=self.batch_size, truncate=True).features()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """How pictures are looked at for the places of texts.

    Parameters
    ----------
    templates
        A prompt template with {} for the text, or the name of a published set; as in `diptych classify`.
    templates_file
        A text file with one prompt template a line.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    size
        Pixels of the longer side that a picture is looked at with; by default twice the model's own.
    device
        auto, the GPU where there is one; cpu; or a name that torch knows: cuda, cuda:1, mps.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    json_
        Print JSON.
    """

    templates: list[str] | None = None
    templates_file: Path | None = None
    model: str | None = None
    size: PositiveInt | None = None
    device: str = "auto"
    max_pixels: PositiveInt = MEGAPIXELS
    json_: bool = False

    def locator(self, texts: Sequence[str]) -> "Locator":
        """What looks for the texts; words that the model does not know are said."""
        check_model_name(self.model)
        prompts = read_templates(self.templates, self.templates_file) or PLAIN

        from diptych.weights.registry import load_in_torch
        from diptych.where import Locator

        bundle = limited(load_in_torch(self.model, device=self.device), self.max_pixels)
        locator = Locator(bundle, texts, prompts, image_size=self.size)
        for text in locator.unread:
            complain(str(text))
        return locator


AS_USUAL = ModelOptions()
BY_THE_RULE = PromptOptions()
AS_DRAWN = ProbeOptions()
AT_TWICE_THE_SIZE = MapOptions()


def find_pictures(names: Sequence[str], *, hint: str = "") -> list[Path]:
    """Files, folders and patterns to files, each once.

    Args:
        names: a pattern is what holds `*`, `?` or `[` and is no path itself; `**` stands for any subfolders.
        hint: put behind the message when a name that leads to nothing does not look like a file's.

    Raises:
        DataError: there is nothing under a name, or no picture in all of them.
    """
    from diptych.embed import find_images

    paths: list[Path] = []
    for name in names:
        path = expanded(name)
        if os.path.lexists(path):
            paths.append(path)
        elif found := glob.glob(str(path), recursive=True):  # noqa: PTH207, Path.glob takes no absolute one
            paths += sorted(map(Path, found))  # as a shell does
        else:
            cure = hint if not path.suffix else ""
            raise DataError(f"{name} must be a picture, a folder or a pattern, and nothing is there. {cure}".rstrip())
    return find_images(paths, on_note=lambda sentence: complain(f"skipped: {sentence}"))


def limited(bundle: B, megapixels: int) -> B:
    """The same model, which decodes at most so many million pixels of a picture."""
    return replace(bundle, preprocess=replace(bundle.preprocess, max_pixels=megapixels * 1_000_000))


def read_templates(templates: Sequence[str] | None, file: Path | None) -> tuple[str, ...] | None:
    """The prompt templates of a command line; None when it names none.

    Args:
        templates: each a template, or the name of a published set.
        file: one template a line.

    Raises:
        ConfigError: one is neither a template nor a set.
        DataError: a template has several gaps, or the file cannot be read.
    """
    chosen: list[str] = []
    for template in templates or ():
        if "{}" in template or "{c}" in template:
            chosen.append(template)
        elif template in TEMPLATES:
            chosen += TEMPLATES[template]
        else:
            what = "a prompt template (it has no {}), nor the name of a set of them"
            raise ConfigError(unknown_name(template, "", TEMPLATES, what))
    if file:
        chosen += read_lines(file)
    return check_templates(chosen) if chosen else None
