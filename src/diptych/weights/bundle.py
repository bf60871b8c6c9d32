"""Bundle: a model with its preprocess and tokenizer, and what it makes of pictures and texts."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from diptych.data.ahead import batched, decoded_ahead
from diptych.data.images import ImageSource, Preprocess
from diptych.data.inputs import as_pictures, as_texts
from diptych.data.tokenizer import Tokenizer, Unread
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP
from diptych.model.resize import with_image_size
from diptych.model.vocabulary import end_positions
from diptych.weights.adapters import OWN, Naming
from diptych.weights.folder import About
from diptych.weights.saving import (
    Layout,
    as_stored,
    check_replaceable,
    check_seal,
    config_file,
    stored_weights,
    write_folder,
)
from diptych.weights.stored import open_stored_model
from diptych.weights.untold import Told, assumptions


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model and all it needs to take pictures and texts.

    Args:
        model: on any device; encoding leaves its modes (train or eval, module by module) as they were.
        preprocess: pictures to what the image tower takes.
        tokenizer: texts to what the text tower takes.
        about: where the weights come from.
        naming: what the tensors are called where they come from, for messages.

    Raises:
        ConfigError: the three do not fit together.
    """

    model: CLIP
    preprocess: Preprocess
    tokenizer: Tokenizer
    about: About = field(default_factory=About)
    naming: Naming = field(default=OWN, repr=False)

    def __post_init__(self) -> None:
        image_size = self.model.config.image.image_size
        if self.preprocess.image_size != image_size:
            sizes = f"{self.preprocess.image_size} and {image_size}"
            raise ConfigError(f"preprocess and image tower must have the same image_size. Got {sizes}.")
        if self.preprocess.row_width != self.model.config.image.row_width:
            raise ConfigError(
                "preprocess.resize must be 'naflex', with the patch_size of the image tower, where that is a NaFlex "
                f"tower, and there alone. Got {self.preprocess.resize!r} for a {self.model.config.image.kind} tower."
            )
        self.model.config.text.check_tokenizer(self.tokenizer)

    @property
    def logit_scale(self) -> float:
        """The factor on cosines, 1 / temperature; for softmax at most 100."""
        return self.model.logit_scale_factor().item()

    @torch.no_grad()
    def logits_per_image(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """[N, D] and [C, D] to [N, C]; see `CLIP.logits_per_image`."""
        return self.model.logits_per_image(image_features, text_features)

    @torch.no_grad()
    def logits_of(self, cosines: Tensor) -> Tensor:
        """[N, C] to [N, C]; see `CLIP.logits_of`."""
        return self.model.logits_of(cosines)

    def probabilities(self, logits_per_image: Tensor) -> Tensor:
        """[N, C] to [N, C]; see `CLIP.probabilities`."""
        return self.model.probabilities(logits_per_image)

    def encode_images(self, images: Sequence[ImageSource], *, batch_size: int = 64) -> Tensor:
        """Encode pictures.

        Args:
            images: N pictures, each in a form that `open_image` takes.
            batch_size: pictures a forward pass.

        Returns:
            [N, D] float32 on the CPU, unit length.

        Raises:
            DataError: it is no list, but one picture.
            ImageError: the first picture that cannot be read; `embed_images` skips those instead.
            WeightsError: the features are not finite.
        """
        images = as_pictures(images)
        features = torch.empty(len(images), self.model.config.embed_dim)
        done = 0
        with decoded_ahead(self.preprocess.pixels, images, batch_size) as pictures:
            for batch in batched(pictures, batch_size):
                features[done : done + len(batch)] = self.encode_pixels(np.stack(batch))
                done += len(batch)
        return features

    def encode_pixels(self, pixels: np.ndarray) -> Tensor:
        """Encode one batch of pictures that are already of the tower's size.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            [B, D] float32 on the CPU, unit length.

        Raises:
            WeightsError: the features are not finite.
        """
        with _encoding(self.model) as device:
            batch = self.preprocess.normalise(torch.from_numpy(pixels).to(device))
            features = self.model.encode_image(batch).float().cpu()
        self._check_finite(features, "image")
        return features.clone()  # outside of inference mode: a tensor that autograd takes

    def encode_pixels_and_trunk(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Encode one batch of pictures for zero-shot and linear probe in one pass.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            What `encode_pixels` gives, [B, D], and the features before the projection [B, W]: float32 on the CPU.

        Raises:
            WeightsError: the features are not finite.
        """
        with _encoding(self.model) as device:
            batch = self.preprocess.normalise(torch.from_numpy(pixels).to(device))
            features, trunk = (part.float().cpu() for part in self.model.encode_image_and_trunk(batch))
        self._check_finite(features, "image")
        return features.clone(), trunk.clone()  # as in `encode_pixels`

    def encode_grid(self, pixels: np.ndarray) -> Tensor:
        """Which part of each picture says what: features of its places, in the space of the words.

        A product with the feature of a text says how much a place speaks for it, and means little until it is compared
        with other texts: `diptych.where` does so. A picture that is encoded larger, by `with_image_size`, has a finer
        grid. A tower's `grid` tells where the features come from.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            [B, h, w, D] float32 on the CPU, not unit length; h and w are of the tower's last grid, line by line.

        Raises:
            ConfigError: the model's image tower comes from outside the package, and has no grid.
            ShapeError: pictures of a NaFlex tower differ in shape.
            WeightsError: the features are not finite.
        """
        with _encoding(self.model) as device:
            batch = self.preprocess.normalise(torch.from_numpy(pixels).to(device))
            grid = self.model.encode_grid(batch).float().cpu()
        self._check_finite(grid.flatten(1), "image")
        return grid.clone()  # as in `encode_pixels`

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256, truncate: bool = False) -> Tensor:
        """Encode texts.

        Args:
            texts: N texts.
            batch_size: texts a forward pass.
            truncate: cut what is too long instead of refusing it.

        Returns:
            [N, D] float32 on the CPU, unit length.

        Raises:
            TextError: a text is too long, or is no valid string; or it is no list, but one text.
            WeightsError: the features are not finite.
        """
        text, tokenizer = self.model.config.text, self.tokenizer
        tokens = tokenizer.encode(as_texts(texts), truncate=truncate)  # [N, L]
        features = torch.empty(len(tokens), self.model.config.embed_dim)
        for rows in _batches(len(tokens), batch_size):
            batch = tokens[rows]
            # What comes after the last end token of the batch costs time and changes nothing, unless the tower reads
            # it: one that is read at the highest id of a text does where that is the padding's.
            if not text.reads_padding and tokenizer.pad_token_id <= tokenizer.end_token_id:
                batch = batch[:, : 1 + max(end_positions(batch, tokenizer.end_token_id))]
            with _encoding(self.model) as device:
                features[rows] = self.model.encode_text(batch.to(device)).float().cpu()
        self._check_finite(features, "text")
        return features

    @functools.cached_property
    def _broken(self) -> list[str]:
        """Tensors that hold NaN or infinite numbers, by their name in the file; looked at with the first features.

        Features do not tell: attention may hide a NaN, and give numbers that are finite, and wrong. At load it would
        cost reading all of the file, which is read here anyway. A sum is the cheapest look at all values, but may
        overflow.
        """
        weights = self.model.state_dict()
        ours = {
            name: tensor
            for name, tensor in weights.items()
            if not tensor.sum().isfinite() and not tensor.isfinite().all()
        }
        return [name for name, tensor in self.naming.from_ours(ours).items() if not tensor.isfinite().all()]

    def _check_finite(self, features: Tensor, of: Literal["image", "text"]) -> None:
        """Refuse numbers that are none, among the features or the weights."""
        is_fine = bool(features.isfinite().all())
        if is_fine and not self._broken:
            return
        if not is_fine:
            self.__dict__.pop("_broken", None)  # the weights may have changed since
        broken = self._broken
        if broken:
            more = f", and {len(broken) - 1:,} more" if len(broken) > 1 else ""
            cause = f"{broken[0]}{more} of the weights holds NaN or infinite numbers. Copy or download them again"
        else:
            cause = "No tensor of the weights holds such: they overflow on the way. Compute in float32"
        count = int((~features.isfinite().all(dim=1)).sum())
        found = f"{count:,} of {len(features):,} are not" if count else "their weights are not"
        raise WeightsError(f"{of} features must be finite numbers, and {found}. {cause}, or take another model.")

    def unread(self, texts: Sequence[str]) -> list[Unread]:
        """Those of the texts of which the tokenizer does not know all words; see `Tokenizer.unread`."""
        return self.tokenizer.unread(texts)

    def with_image_size(self, image_size: int) -> "Bundle":
        """The same model for pictures of another size; see `diptych.model.resize.with_image_size`.

        Of a NaFlex tower: for pictures of as many patches as a square one of this size has.

        Raises:
            ConfigError: the image tower cannot take this size.
        """
        model = with_image_size(self.model, image_size)
        preprocess = dataclasses.replace(self.preprocess, image_size=image_size, max_patches=0)
        return dataclasses.replace(self, model=model, preprocess=preprocess)

    def fingerprint(self) -> str:
        """SHA-256 of sizes, weights, preprocess and tokenizer; the same again after `save` in float32 and `load`."""
        parts = [config_file(self.model.config, self.tokenizer), self.preprocess.to_hf(), self.tokenizer.fingerprint()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        layout: Layout = "bundle",
    ) -> None:
        """Write the bundle's folder, whole or not at all; one that stood there is replaced.

        Args:
            folder: where to.
            dtype: what parameters are stored as; batch norm's statistics and the logit scale stay float32. In int8
                matrices alone become so, see `diptych.weights.eight_bit`, and diptych alone opens the folder.
            layout: "bundle", which `transformers` opens where it has a class for the model, and `open_clip` where it
                has none (ResNets); or "open_clip", which `open_clip` opens.

        Raises:
            ConfigError: dtype is none of float32, float16, bfloat16, int8, or open_clip has no such model or dtype.
            DataError: the folder cannot be written, or what stands there is no model's.
            WeightsError: the features are not finite.
        """
        folder = Path(folder)
        check_replaceable(folder)
        weights = stored_weights(self.model, dtype)
        stored = dataclasses.replace(self, model=as_stored(self.model.config, weights))
        write_folder(folder, stored, weights, layout=layout, dtype=dtype)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        verify: bool = True,
        weights: str = "",
        **told: Unpack[Told],
    ) -> "Bundle":
        """Read a model from disk, whoever wrote it. No code of a file is run, and float32 weights are mapped, not read.

        Args:
            path: a bundle, a CLIP or SigLIP folder of `transformers`, an `open_clip` folder, a file of its tensors
                (`.safetensors`, `.pt`, `.bin`), or one of OpenAI's archives.
            verify: check the SHA-256 of weights and tokenizer, and golden inputs' features, where diptych wrote them.
            weights: the name of the file of weights, where a folder may hold several.
            told: what a bare state dict or a part of a folder does not tell (activation, heads, tokenizer, mean, std,
                resize, interpolation, end_token, state_dict); see `diptych.weights.untold.Told`. What is assumed
                instead is said as a warning of the logger "diptych".

        Returns:
            A bundle with its model on the CPU, float32 whatever it is stored as, in eval mode.

        Raises:
            WeightsError: a file is missing or damaged, the files do not fit together, or the golden features come out
                otherwise than they were saved.
        """
        path = Path(path)
        stored = open_stored_model(path, weights=weights, **told)
        for sentence in assumptions(stored.untold, path):
            logging.getLogger("diptych").warning(sentence)
        try:
            bundle = cls(
                model=stored.build(),
                preprocess=stored.preprocess,
                tokenizer=stored.read_tokenizer(),
                about=stored.seal.about if stored.seal else About(),
                naming=stored.naming,
            )
        except ConfigError as error:
            raise WeightsError(f"{path}: {error}") from error
        if verify and stored.seal:
            check_seal(bundle, path, stored.seal)
        return bundle


def _batches(count: int, batch_size: int) -> Iterator[slice]:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Got {batch_size}.")
    return (slice(start, start + batch_size) for start in range(0, count, batch_size))


@contextlib.contextmanager
def _encoding(model: nn.Module) -> Iterator[torch.device]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        for module, mode in modes:
            module.training = mode
