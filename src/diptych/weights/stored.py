"""A model as it lies on disk: which library wrote it, its sizes, its tensors, and what goes with them.

Nothing is built here and no value is read: tensors are mapped. Code that a file may hold is never run.
"""

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor

from diptych.config import from_dict, to_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.weights.adapters import OWN, Naming
from diptych.weights.eight_bit import from_eight_bits
from diptych.weights.folder import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PREPROCESS,
    WEIGHTS,
    Seal,
    read_json,
    read_preprocess,
    read_seal,
)
from diptych.weights.hub import MODEL_TYPES
from diptych.weights.hugging_face import layout_of
from diptych.weights.open_clip import (
    as_named,
    cleaning_of,
    config_from_open_clip,
    ends_with_padding,
    naming_of,
    own_padding,
    plain_names,
    preprocess_from_open_clip,
)
from diptych.weights.open_clip_coca import DECODER
from diptych.weights.open_clip_shapes import LONG, config_from_shapes, one_kind_of_positions
from diptych.weights.tensors import PICKLES, read_tensors
from diptych.weights.untold import (
    ACTIVATION,
    END_TOKEN,
    RECIPE,
    Origin,
    Told,
    Untold,
    fill,
    known_activation,
    left_out_sentence,
)

_HF_WEIGHTS = (WEIGHTS, f"{WEIGHTS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_OPEN_CLIP_WEIGHTS = (OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.bin", WEIGHTS, "pytorch_model.bin")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
_MERGES = "bpe_simple_vocab_16e6.txt.gz"  # CLIP's published merges, under the name that every peer gives them
_CLIP_VOCABULARY = 49_408
_BY_FILE: dict[str, Origin] = {ACTIVATION: "file", "heads": "file", END_TOKEN: "file", RECIPE: "file"}
SIGLIPS_RECIPE = functools.partial(Preprocess, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_LARGEST = 16_384  # px of one side: convolutions take pictures of any size, whatever their weights are


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """All that the files of a model tell."""

    path: Path  # the folder, or the one file
    kind: str  # whose layout, in a few words
    untold: Untold  # sizes, picture recipe, and where each of them is known from
    naming: Naming  # of the tensors
    weights: Path  # the file that they are in; of split ones, the index
    tensors: dict[str, Tensor]  # by their foreign names, mapped
    tokenizer: Path | None  # a folder or a file of merges; None when none was found
    cleaning: Cleaning  # of texts, where the tokenizer's own file may leave it out
    pad_token_id: int | None  # where the model reads the padding, and its tokenizer's own file may say another
    ends_with_padding: bool  # whether the model reads padding where its tokenizer's own file puts an end token
    seal: Seal | None  # None where diptych did not write the files
    beside: tuple[str, ...]  # tensors of the file that are no part of the two towers, by their foreign names

    @property
    def config(self) -> CLIPConfig:
        """The sizes."""
        return self.untold.config

    @property
    def preprocess(self) -> Preprocess:
        """The picture recipe."""
        return self.untold.preprocess

    def build(self) -> CLIP:
        """The model on the CPU, float32 whatever it is stored as, in eval mode.

        Raises:
            WeightsError: the tensors are not those of the model.
        """
        self._check_sizes()
        try:
            model = CLIP(self.config)
        except (RuntimeError, OverflowError, TypeError) as error:  # a tensor of more values than can be counted
            raise WeightsError(
                f"{self.path} must have the sizes of a model. Got others: {_first_line(error)}."
            ) from error
        shapes = model.state_dict()
        expected = self.naming.from_ours(shapes)
        try:
            theirs = from_eight_bits(self.tensors)
        except WeightsError as error:
            raise WeightsError(f"{self.weights}: {error}") from error
        self._check_fit(expected, theirs)
        for name, shape in expected.items():
            if name not in theirs:  # num_batches_tracked: some files leave it out, and nothing is computed from it
                theirs[name] = torch.zeros_like(shape, device="cpu")
            theirs[name] = theirs[name].reshape(shape.shape)  # open_clip may keep a scalar as [1]
            if theirs[name].is_floating_point() != shape.is_floating_point():
                raise WeightsError(f"{self.weights}: {name} must be {shape.dtype} or alike. Got {theirs[name].dtype}.")
        give_weights(model, self.naming.to_ours(theirs, shapes))
        return model

    def _check_sizes(self) -> None:
        """Refuse sizes that the file cannot hold before anything of these sizes is built."""
        values = sum(tensor.numel() for tensor in self.tensors.values())
        for tower in ("image", "text"):
            for name, size in to_dict(getattr(self.config, tower)).items():
                sizes = [size] if isinstance(size, int) else size if isinstance(size, list) else []
                most = {"layers": len(self.tensors), "image_size": _LARGEST}.get(name, values)
                if sum(sizes) > most:
                    raise WeightsError(
                        f"{self.path}: {tower}.{name} must be at most {most:,}, by what {self.weights.name} holds. Got "
                        f"{_short(sum(sizes))}: were its files mixed up?"
                    )

    @property
    def left_out(self) -> list[str]:
        """A sentence about tensors that no feature needs, and that are not kept."""
        if self.beside:
            return [left_out_sentence(self.beside, self.path)]
        names = [name for name in self.tensors if re.fullmatch(DECODER, name)]
        if not names:
            return []
        numbers = sum(self.tensors[name].numel() for name in names)
        return [
            f"{self.path} holds {len(names)} tensors ({names[0]}, ...; {numbers:,} numbers) that write captions, as a "
            "whole CoCa does. They are left out: features do not need them."
        ]

    def read_tokenizer(self) -> Tokenizer:
        """The tokenizer that was found with the weights.

        Raises:
            WeightsError: none was found, or it is damaged.
        """
        if self.tokenizer is None:
            raise WeightsError(
                f"{self.path} comes without a tokenizer. Put tokenizer.json or {_MERGES} beside the weights, or pass "
                "tokenizer=, a folder with one or a file of CLIP's merges."
            )
        length = self.config.text.context_length
        if self.tokenizer.is_dir():
            return Tokenizer.load(
                self.tokenizer,
                context_length=length,
                cleaning=self.cleaning,
                pad_token_id=self.pad_token_id,
                ends_with_padding=self.ends_with_padding,
            )
        return Tokenizer.from_merges(self.tokenizer, context_length=length)

    def _check_fit(self, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
        missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
        known = f"{self.naming.without_meaning}|{self.naming.left_out}"
        unexpected = [name for name in found if name not in expected and not re.fullmatch(known, name)]
        misshapen = [
            f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and not _same_shape(found[name], tensor)
        ]
        faults = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, kind in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
            if names
        ]
        if faults:
            raise WeightsError(
                f"{self.weights} does not fit the model's sizes: {', '.join(faults)}. "
                "Was it saved from another architecture?"
            )


def open_stored_model(path: Path, *, weights: str = "", **told: Unpack[Told]) -> StoredModel:
    """What lies at a path.

    Args:
        path: a bundle, a folder of `transformers` (CLIP, MetaCLIP 2, SigLIP), of `open_clip` or of
            sentence-transformers, a file of tensors, or one of OpenAI's archives.
        weights: the name of the file of weights, where a folder may hold several.
        told: what the files may leave out; see `Told`.

    Raises:
        WeightsError: files are missing or damaged, or of a model that diptych does not have; or something is told that
            the files tell themselves.
    """
    try:
        found = _open_folder(path, weights, told) if path.is_dir() else _open_file(path, told)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    given = told.get("tokenizer")
    place = _find_tokenizer(found.weights.parent, found.untold.config.text.vocab_size) if given is None else Path(given)
    return StoredModel(path=path, tokenizer=place, **found._asdict())


def give_weights(model: CLIP, weights: Mapping[str, Tensor]) -> None:
    """Give a model its weights, as float32 where they are numbers with a point; those are not copied that are it."""
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    model.load_state_dict(whole, assign=True)
    if model.config.image.wants_channels_last:
        model.image.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.eval()


class _Found(NamedTuple):
    """The part of a `StoredModel` that each layout tells in its own way."""

    kind: str
    untold: Untold
    naming: Naming
    weights: Path
    tensors: dict[str, Tensor]
    seal: Seal | None = None
    cleaning: Cleaning = "file"
    pad_token_id: int | None = None
    ends_with_padding: bool = False
    beside: tuple[str, ...] = ()


def _open_folder(folder: Path, weights: str, told: Told) -> _Found:
    layouts = ((CONFIG, _HF_WEIGHTS, _open_hugging_face), (OPEN_CLIP_CONFIG, _OPEN_CLIP_WEIGHTS, _open_open_clip))
    present = [(names, read) for config, names, read in layouts if (folder / config).is_file()]
    if len(present) == 2 and read_json(folder / CONFIG).get("model_type") not in MODEL_TYPES:
        del present[0]  # on a hub, a config.json beside open_clip's may be another library's
    for names, read in present:
        for name in names:
            if (folder / name).is_file() and weights in ("", name):
                return read(folder, folder / name, told)
    for names, read in present:
        if found := weights or _variant(folder, names):
            return read(folder, folder / found, told)
    if present:
        raise WeightsError(
            f"{folder} must hold {WEIGHTS}, or weights under another of the published names. It has none."
        )
    within = sorted(path.parent for path in folder.glob(f"[0-9]_*/{CONFIG}"))  # of sentence-transformers
    if within:
        return _open_folder(within[0], weights, told)
    raise WeightsError(
        f"{folder} must hold {CONFIG} or {OPEN_CLIP_CONFIG}, and has neither. Is it a model's folder? Give a single "
        "file of weights by its own path."
    )


def _variant(folder: Path, names: Sequence[str]) -> str:
    """The weights of another precision, such as model.fp16.safetensors, where they are the only ones."""
    stems = {name.partition(".")[0] for name in names}
    endings = {Path(name).suffix for name in names} - {".json"}
    found = sorted(
        path.name for path in folder.iterdir() if path.name.partition(".")[0] in stems and path.suffix in endings
    )
    if len(found) > 1:
        raise WeightsError(f"{folder} holds {', '.join(found)}. Leave one of them there, or name it {WEIGHTS}.")
    return found[0] if found else ""


def _open_hugging_face(folder: Path, weights: Path, told: Told) -> _Found:
    data = read_json(folder / CONFIG)
    seal = read_seal(folder / CONFIG, data)
    file = read_tensors(weights, state_dict=told.get("state_dict"))
    layout = None if data.get("model_type") == "diptych-clip" else layout_of(data)
    preprocess = read_preprocess(folder) if layout is None or layout.reads_recipe else None
    if seal and preprocess is None:
        raise WeightsError(f"{folder} must hold {PREPROCESS}, as it was saved with it. Copy or download it again.")
    if layout is None:
        return _open_own(folder, weights, told, data, seal, preprocess, file.tensors)
    config = layout.read(data)
    naming, tensors = layout.naming(config), layout.respelt(file.tensors)
    if preprocess and layout.image_size == "recipe":
        config = _with_image_size(config, preprocess.image_size)
    elif preprocess and layout.image_size == "config":
        preprocess = dataclasses.replace(preprocess, image_size=config.image.image_size)
    return _Found(
        kind="diptych bundle" if seal else "transformers folder",
        untold=fill(
            _with_head(config, tensors),
            told,
            path=folder,
            preprocess=preprocess,
            assumed=Preprocess(image_size=config.image.image_size, **layout.silent_recipe),
            origins=_BY_FILE,
        ),
        naming=naming,
        weights=weights,
        tensors=tensors,
        seal=seal,
        cleaning=layout.cleaning,
        beside=(*file.beside, *(name for name in tensors if re.fullmatch(naming.left_out, name))),
    )


def _open_own(
    folder: Path,
    weights: Path,
    told: Told,
    data: Mapping[str, Any],
    seal: Seal | None,
    preprocess: Preprocess | None,
    tensors: dict[str, Tensor],
) -> _Found:
    config = from_dict(CLIPConfig, data.get("model", {}), where="model")
    # The first bundles of ResNets were no open_clip folders, and had our own names.
    is_open_clips = (folder / OPEN_CLIP_CONFIG).is_file()
    naming, tensors = (naming_of(config), plain_names(tensors)) if is_open_clips else (OWN, tensors)
    if config.image.row_width and preprocess:  # how many patches is a fact of the pictures, and not of the weights
        config = _with_image_size(config, preprocess.image_size)
    is_siglip = config.text.kind == "siglip"
    return _Found(
        kind="diptych bundle" if seal else "transformers folder",
        untold=fill(
            config,
            told,
            path=folder,
            preprocess=preprocess,
            assumed=(SIGLIPS_RECIPE if is_siglip else Preprocess)(image_size=config.image.image_size),
            origins=_BY_FILE,
        ),
        naming=naming,
        weights=weights,
        tensors=tensors,
        seal=seal,
        cleaning="siglip" if is_siglip else "file",
    )


def _with_image_size(config: CLIPConfig, image_size: int) -> CLIPConfig:
    """Another size in the config alone, of a tower whose weights take any."""
    return dataclasses.replace(config, image=dataclasses.replace(config.image, image_size=image_size))


def _open_open_clip(folder: Path, weights: Path, told: Told) -> _Found:
    data = read_json(folder / OPEN_CLIP_CONFIG)
    model_cfg, preprocess_cfg = data.get("model_cfg"), data.get("preprocess_cfg") or {}
    if not isinstance(model_cfg, dict) or not isinstance(preprocess_cfg, dict):
        raise ConfigError(f"{OPEN_CLIP_CONFIG} must hold model_cfg and preprocess_cfg as JSON objects.")
    tensors = plain_names(read_tensors(weights, state_dict=told.get("state_dict")).tensors)
    config = as_named(_with_head(config_from_open_clip(model_cfg), tensors), tensors.keys())
    side = config.image.image_size
    return _Found(
        kind="open_clip folder",
        untold=fill(
            config,
            told,
            path=folder,
            preprocess=preprocess_from_open_clip(preprocess_cfg, side) if preprocess_cfg else None,
            assumed=Preprocess(image_size=side),
            origins=_BY_FILE,
        ),
        naming=naming_of(config),
        weights=weights,
        tensors=tensors,
        seal=read_seal(folder / OPEN_CLIP_CONFIG, data),
        cleaning=cleaning_of(model_cfg),
        pad_token_id=own_padding(model_cfg) if config.text.reads_padding else None,
        ends_with_padding=ends_with_padding(model_cfg),
    )


def _with_head(config: CLIPConfig, tensors: Mapping[str, Tensor]) -> CLIPConfig:
    """The head by the weights: a config may not tell that they were trained with the sigmoid loss."""
    return dataclasses.replace(config, head="sigmoid") if "logit_bias" in tensors else config


def _open_file(path: Path, told: Told) -> _Found:
    file = read_tensors(path, state_dict=told.get("state_dict"))
    tensors = one_kind_of_positions(plain_names(file.tensors))
    if "vision_model.embeddings.patch_embedding.weight" in tensors:
        if (path.parent / CONFIG).is_file():
            return _open_hugging_face(path.parent, path, told)
        raise WeightsError(
            f"{path} holds weights of transformers, which do not tell the model's sizes. Put its {CONFIG}, "
            "preprocessor_config.json and tokenizer.json beside it, and give the folder."
        )
    by_openai = file.is_archive or not {"input_resolution", LONG}.isdisjoint(file.tensors)  # Long-CLIP is its code
    shapes: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    known = "quick_gelu" if by_openai else known_activation(path) if path.suffix in PICKLES else None
    origin: Origin = "format" if by_openai else "known by SHA-256"
    config = config_from_shapes(shapes, activation=told.get("activation") or known, heads=told.get("heads"))
    text = config.text
    origins: dict[str, Origin] = {
        ACTIVATION: "told" if told.get("activation") else origin,
        END_TOKEN: origin if known else "format" if text.vocab_size == _CLIP_VOCABULARY else "assumed",
        RECIPE: origin if known else "assumed",
    }
    return _Found(
        kind="OpenAI archive" if file.is_archive else "OpenAI state dict" if by_openai else "open_clip state dict",
        untold=fill(
            config,
            told,
            path=path,
            preprocess=None,
            assumed=Preprocess(image_size=config.image.image_size),
            origins=origins,
        ),
        naming=naming_of(config),
        weights=path,
        tensors=tensors,
    )


def _find_tokenizer(folder: Path, vocab_size: int) -> Path | None:
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return folder
    if vocab_size != _CLIP_VOCABULARY:
        return None
    # The same file lies in the packages of those who publish the weights: it is read as data, nothing is imported.
    specs = (importlib.util.find_spec(package) for package in ("open_clip", "clip"))
    places = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    return next((place / _MERGES for place in (folder, *places) if (place / _MERGES).is_file()), None)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _short(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**18 else "a number beyond counting"


def _same_shape(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape or (expected.ndim == 0 and found.numel() == 1)
