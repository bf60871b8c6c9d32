"""What a model makes of a set's pictures and texts, each computed once; kept on disk when asked.

One pass over the pictures gives the features for words and those for linear probes. A file of the cache is named by the
SHA-256 of all that its content hangs on; it is whole or absent, and one that is damaged is computed anew.
Letters: B, C, D, N, T, W.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from diptych.classify import class_weights
from diptych.data.images import Preprocess
from diptych.errors import ConfigError, DataError
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.eval.tasks import ComputePrecision
from diptych.eval.zero_shot import with_targets
from diptych.files import atomic_file
from diptych.measures.logistic import Examples
from diptych.sets.labelled import LabelledImages
from diptych.sets.pictures import Pictures
from diptych.torch_runtime import fast_dtype
from diptych.version import __version__
from diptych.weights.bundle import Bundle
from diptych.weights.dual_encoder import DualEncoder

Tensors = dict[str, Tensor]
OnPictures = Callable[[int, int], None]  # pictures done, and all

_FORMAT = 1  # of the files; with another one they are not found
_SKIPPED = "skipped: "  # a tensor of this name and a cause holds a count


@dataclass(frozen=True, eq=False)
class TrunkFeatures(PictureFeatures):
    """The pictures that could be read, for words and for linear probes."""

    trunk: Tensor  # [N, W], before the projection

    def examples(self, data: LabelledImages) -> Examples:
        """The features before the projection with the classes of the set: for linear probes."""
        return Examples(self.trunk, with_targets(self, data).targets)

    def projected_examples(self, data: LabelledImages) -> Examples:
        """The features of unit length, for learners that start from words."""
        return Examples(self.image_features, with_targets(self, data).targets)


class ModelFeatures:
    """Features of one model, as tensors.

    Args:
        bundle: the model.
        cache: a folder for features, which runs and models may share; None keeps nothing.
        precision: "float32"; "bfloat16"; or "auto", bfloat16 where it is measured to be faster on this machine.
        batch_size: pictures, and texts, in one forward pass.
        truncate: whether class names are cut that are too long for the model, with their template, instead of refused.
        on_note: gets a sentence when a file of the cache could not be used or written, or class names are not read.
        on_progress: is called after each batch of pictures.

    Attributes:
        precision: "float32" or "bfloat16".

    Raises:
        ConfigError: there is no such precision, or batch_size is below 1.
    """

    def __init__(
        self,
        bundle: DualEncoder,
        *,
        cache: Path | None = None,
        precision: ComputePrecision = "float32",
        batch_size: int = 64,
        truncate: bool = False,
        on_note: Callable[[str], None] = lambda _: None,
        on_progress: OnPictures = lambda _done, _all: None,
    ) -> None:
        if precision not in get_args(ComputePrecision):
            raise ConfigError(f"precision must be one of {', '.join(get_args(ComputePrecision))}. Got {precision!r}.")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1. Got {batch_size}.")
        self.bundle: Bundle = bundle.in_torch()
        self.tokenizer = bundle.tokenizer
        self.batch_size = batch_size
        self.truncate = truncate
        self._device = next(self.bundle.model.parameters()).device
        fastest = fast_dtype(self._device) if precision == "auto" else getattr(torch, precision)
        self.precision = str(fastest).removeprefix("torch.")
        self._cache = cache
        self._note = on_note
        self._progress = on_progress

    @cached_property
    def fingerprint(self) -> str:
        """The model's, see `Bundle.fingerprint`."""
        return self.bundle.fingerprint()

    def pictures(self, data: Pictures, sha256: str = "") -> TrunkFeatures:
        """All pictures of a set. One that cannot be read is counted by its cause and left out.

        Args:
            data: the set.
            sha256: of its bytes, from `digest`. Without it nothing is looked for in the cache, nor kept.

        Raises:
            DataError: no picture can be read.
        """

        def encode() -> Tensors:
            found, trunk = self._encoded(data)
            causes = {f"{_SKIPPED}{cause}": torch.tensor(count) for cause, count in found.skipped.items()}
            return {"image_features": found.image_features, "trunk": trunk, "kept": torch.tensor(found.kept), **causes}

        keys = hashlib.sha256("\n".join(data.keys).encode(errors="surrogateescape")).hexdigest()
        tensors = self.kept("pictures", {"data": sha256, "keys": keys}, encode) if sha256 else encode()
        skipped = {name: int(count) for name, count in tensors.items() if name.startswith(_SKIPPED)}
        return TrunkFeatures(
            image_features=tensors["image_features"],
            kept=tuple(tensors["kept"].tolist()),
            skipped={name.removeprefix(_SKIPPED): count for name, count in sorted(skipped.items())},
            trunk=tensors["trunk"],
        )

    def _encoded(self, data: Pictures) -> tuple[PictureFeatures, Tensor]:
        prepared = _Prepared(
            name=data.name, split=data.split, keys=data.keys, _sources=(), whole=data, preprocess=self.bundle.preprocess
        )
        trunks: list[Tensor] = []
        done = 0

        def encode(squares: Sequence[Image.Image]) -> np.ndarray:
            nonlocal done
            features, trunk = self.bundle.encode_pixels_and_trunk(np.stack([np.asarray(one) for one in squares]))
            trunks.append(torch.from_numpy(trunk))
            done += len(squares)
            self._progress(done, len(data))
            return features

        with self._autocast():  # around all batches: the weights are made bfloat16 once
            found = encode_pictures(encode, prepared, batch_size=self.batch_size)
        return found, torch.cat(trunks)

    def encode_texts(self, texts: Sequence[str], /, *, truncate: bool = False) -> np.ndarray:
        """[N, D], unit length, not kept."""
        with self._autocast():
            return self.bundle.encode_texts(texts, batch_size=self.batch_size, truncate=truncate or self.truncate)

    def encode_images(self, images: Sequence[Any], /) -> np.ndarray:
        """[N, D], unit length, not kept."""
        with self._autocast():
            return self.bundle.encode_images(images, batch_size=self.batch_size)

    def logits_per_image(self, image_features: Tensor, text_features: Tensor, /) -> Tensor:
        """See `CLIP.logits_of`: of the cosines, so that scores and logits are rounded alike."""
        with torch.no_grad():
            return self.bundle.model.logits_of(image_features @ text_features.T)

    def probabilities(self, logits_per_image: Tensor, /) -> Tensor:
        """See `CLIP.probabilities`."""
        return self.bundle.model.probabilities(logits_per_image)

    def too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts are cut."""
        return self.tokenizer.count_too_long(texts)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[N, D] float32, unit length. What is too long is cut."""

        def encode() -> Tensors:
            return {"features": torch.from_numpy(self.encode_texts(texts, truncate=True))}

        return self.kept("texts", {"texts": list(texts)}, encode)["features"]

    def class_weights(self, labels: Sequence[str | Sequence[str]], templates: Sequence[str]) -> Tensor:
        """[C, D], see `diptych.classify.class_weights`; names that hold words unknown to the model are told."""
        self._tell_unread([name for label in labels for name in ([label] if isinstance(label, str) else label)])

        def encode() -> Tensors:
            return {"weights": torch.from_numpy(class_weights(self, labels, templates, batch_size=self.batch_size))}

        return self.kept("classes", {"labels": list(labels), "templates": list(templates)}, encode)["weights"]

    def _tell_unread(self, names: Sequence[str]) -> None:
        if unread := self.bundle.unread(names):
            self._note(
                f"{len(unread):,} of {len(names):,} class names hold words that this model does not know, e.g. "
                f"{unread[0].text!r}: what is measured of these is not by what they say."
            )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self.precision))

    def kept(self, kind: str, facts: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
        """From the cache, or computed and put there.

        Args:
            kind: what it is, in the file's name.
            facts: all that it hangs on beside model, precision and versions; plain data.
            compute: makes it.
        """
        if self._cache is None:
            return compute()
        versions = {"diptych": __version__, "torch": torch.__version__, "pillow": PIL.__version__}
        versions |= {"truncate": "yes"} if self.truncate else {}  # what is refused without it must not be found
        whole = {"format": _FORMAT, "kind": kind, "model": self.fingerprint, "precision": self.precision, **versions}
        name = hashlib.sha256(json.dumps(whole | dict(facts), sort_keys=True).encode()).hexdigest()
        path = self._cache / f"{kind}-{name[:32]}.safetensors"
        if path.exists():
            try:
                return _read(path, name)
            except DataError as error:
                self._note(f"{error} Its features are computed anew.")
        tensors = compute()
        try:
            _write(path, name, tensors)
        except DataError as error:
            self._note(f"{error} Features are used, and not kept.")
        return tensors


@dataclass(frozen=True, eq=False, kw_only=True)
class _Prepared(Pictures):
    """Pictures as squares of the tower's size, so that the threads that decode also resize."""

    whole: Pictures
    preprocess: Preprocess

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.preprocess.pixels(self.whole.open(index)))


def _write(path: Path, name: str, tensors: Tensors) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    metadata = {"key": name, "sha256": _checksum(tensors)}
    # Through bytes: the file writer of safetensors does not say that a disk is full.
    content = safetensors.torch.save(tensors, metadata)
    with atomic_file(path) as aside:
        aside.write_bytes(content)


def _read(path: Path, name: str) -> Tensors:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: where a tensor lies in the file decides how its products are rounded in the last digit.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} must hold features. It cannot be read: {error}.") from error
    if metadata.get("key") != name:
        raise DataError(f"{path} must hold the features that it is named for. It holds others.")
    if metadata.get("sha256") != _checksum(tensors):
        raise DataError(f"{path} is damaged: its SHA-256 differs.")
    return tensors


def _checksum(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
