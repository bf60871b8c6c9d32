"""A model as it lies on disk: which library wrote it, its sizes, its tensors, and what goes with them.

Nothing is built here and no value is read: tensors are mapped. Code that a file may hold is never run.
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from diptych.config import to_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.weights.adapters import Naming
from diptych.weights.disk_layouts import open_file, open_folder
from diptych.weights.eight_bit import from_eight_bits
from diptych.weights.folder import (
    Seal,
)
from diptych.weights.not_weights import check_content
from diptych.weights.open_clip_coca import DECODER
from diptych.weights.open_clip_towers import VOCABULARY
from diptych.weights.untold import (
    Told,
    Untold,
    left_out_sentence,
)

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
_MERGES = "bpe_simple_vocab_16e6.txt.gz"  # CLIP's published merges, under the name that every peer gives them
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
        found = open_folder(path, weights, told) if path.is_dir() else open_file(path, told)
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


def _find_tokenizer(folder: Path, vocab_size: int) -> Path | None:
    if files := [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]:
        check_content(files[0])
        return folder
    if vocab_size != VOCABULARY:
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
