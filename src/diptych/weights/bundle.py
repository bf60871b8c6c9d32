"""Bundle: a model in torch with its preprocess and tokenizer, and what it makes of pictures and texts."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, WeightsError
from diptych.measures.unit_length import unit_length
from diptych.model.clip import CLIP
from diptych.model.resize import with_context_length, with_image_size
from diptych.torch_runtime import device_named, fast_dtype
from diptych.weights.adapters import OWN, Naming
from diptych.weights.dual_encoder import DualEncoder, LogitHead
from diptych.weights.eight_bit import TableBits
from diptych.weights.folder import About
from diptych.weights.golden import check_seal, golden_of
from diptych.weights.normalise import normalise
from diptych.weights.saving import (
    Layout,
    as_stored,
    check_replaceable,
    config_file,
    stored_weights,
    write_folder,
)
from diptych.weights.stored import open_stored_model
from diptych.weights.untold import Told, assumptions


@dataclass(frozen=True, kw_only=True)
class Bundle(DualEncoder):
    """A model and all it needs to take pictures and texts.

    Args:
        model: on any device; encoding leaves its modes (train or eval, module by module) as they were.
        preprocess: pictures to what the image tower takes.
        tokenizer: texts to what the text tower takes.
        about: where the weights come from.
        naming: what the tensors are called where they come from, for messages.
        may_round: whether `encode_fast` may compute in bfloat16 where the model is in float32.

    Raises:
        ConfigError: the three do not fit together.
    """

    model: CLIP
    naming: Naming = field(default=OWN, repr=False)
    may_round: bool = True

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
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.model.config.embed_dim

    @property
    def head(self) -> LogitHead:
        """What is made of cosines."""
        bias = self.model.logit_bias
        return LogitHead(
            kind=self.model.config.head,
            logit_scale=self.model.logit_scale_factor().item(),
            logit_bias=None if bias is None else bias.item(),
        )

    @property
    def reads_padding(self) -> bool:
        """Whether the text tower reads what comes after the end of a text, so that none may be left out."""
        return self.model.config.text.reads_padding

    @property
    def golden_texts(self) -> tuple[str, ...]:
        """What a saved model is checked with."""
        return self.model.config.text.golden_texts

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> "Bundle":
        """Move the model, as torch does: this bundle encodes there from now on.

        Args:
            device: "cpu", "cuda", "cuda:1", "mps", or "auto", the GPU where there is one.
            dtype: "float32", "bfloat16" or "float16", what weights are kept and computed in.

        Returns:
            A bundle of the same model, which stays in a dtype that was asked for whatever is encoded.

        Raises:
            ConfigError: there is no such device here, or no such dtype.
        """
        if isinstance(dtype, str) and dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype must be float32, bfloat16 or float16. Got {dtype!r}.")
        numbers: torch.dtype | None = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.model.to(device=device_named(device) if isinstance(device, str) else device, dtype=numbers)
        return self if dtype is None else dataclasses.replace(self, may_round=False)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_pixels`."""
        (features,) = self._encoded(pixels, "image", lambda images: (self.model.encode_image(images),))
        return features

    def encode_each(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `DualEncoder.encode_each`: a GPU is given the next batch before the last one is waited for."""
        if self.device.type == "cpu":
            yield from super().encode_each(batches)
            return
        before: Tensor | None = None
        for pixels in batches:
            try:
                with _encoding(self.model) as device:
                    now = self.model.encode_image(self._inputs(pixels, "image", device)).float()
            except torch.OutOfMemoryError:
                now = None
            if before is not None:
                yield self._fetched(before)
            if now is None:
                yield self.encode_pixels(pixels)  # in parts, as nothing else is in the memory now
            before = now
        if before is not None:
            yield self._fetched(before)

    def _fetched(self, features: Tensor) -> np.ndarray:
        features = features.cpu()
        self._check_finite(features, "image")
        return features.numpy()

    def encode_fast(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_fast`: bfloat16 where that is faster."""
        first = next(self.model.parameters())
        dtype = fast_dtype(first.device) if self.may_round and first.dtype == torch.float32 else torch.float32
        with torch.autocast(first.device.type, dtype, enabled=dtype != torch.float32):
            features = self.encode_pixels(pixels)
        return unit_length(features)  # bfloat16 has lost a part of it

    def in_torch(self) -> "Bundle":
        """The bundle itself."""
        return self

    def prepare_to_share(self) -> None:
        """See `DualEncoder.prepare_to_share`: no thread may find the model in another mode."""
        self.model.eval()

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_tokens`."""
        (features,) = self._encoded(tokens, "text", lambda some: (self.model.encode_text(some),))
        return features

    def encode_pixels_and_trunk(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode one batch of pictures for zero-shot and linear probe in one pass.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            What `encode_pixels` gives, [B, D], and the features before the projection [B, W]: float32.

        Raises:
            WeightsError: the features are not finite.
        """
        features, trunk = self._encoded(pixels, "image", self.model.encode_image_and_trunk)
        return features, trunk

    def _encoded(
        self, batch: np.ndarray, of: Literal["image", "text"], encode: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> list[np.ndarray]:
        """What a tower makes of a batch, float32; in parts, where the device has no memory for all of it at once."""
        known = vars(self).setdefault("_at_once", {})  # that the memory did hold
        at_once = min(known.get(of, len(batch)), len(batch)) or 1
        with _encoding(self.model) as device:
            while True:
                try:
                    parts = [
                        [one.float().cpu() for one in encode(self._inputs(batch[start : start + at_once], of, device))]
                        for start in range(0, max(1, len(batch)), at_once)
                    ]
                    break
                except torch.OutOfMemoryError:
                    if at_once == 1:
                        raise
                    too_many, at_once = at_once, (at_once + 1) // 2
                    known[of] = at_once
                    logging.getLogger("diptych").warning(
                        f"the memory of {device} does not hold {too_many:,} at once: encoding {at_once:,} at a time."
                    )
        whole = [torch.cat(some) for some in zip(*parts, strict=True)]
        self._check_finite(whole[0].flatten(1), of)
        return [one.numpy() for one in whole]

    def _inputs(self, batch: np.ndarray, of: Literal["image", "text"], device: torch.device) -> Tensor:
        values = torch.from_numpy(batch)
        if device.type == "cuda":
            values = values.pin_memory()
        values = values.to(device, non_blocking=True)
        return normalise(self.preprocess, values).to(self._dtype) if of == "image" else values

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def encode_grid(self, pixels: np.ndarray) -> np.ndarray:
        """Which part of each picture says what: features of its places, in the space of the words.

        A product with the feature of a text says how much a place speaks for it, and means little until it is compared
        with other texts: `diptych.where` does so. A picture that is encoded larger, by `with_image_size`, has a finer
        grid. A tower's `grid` tells where the features come from.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            [B, h, w, D] float32, not unit length; h and w are of the tower's last grid, line by line.

        Raises:
            ConfigError: the model's image tower comes from outside the package, and has no grid.
            ShapeError: pictures of a NaFlex tower differ in shape.
            WeightsError: the features are not finite.
        """
        (grid,) = self._encoded(pixels, "image", lambda images: (self.model.encode_grid(images),))
        return grid

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
            vars(self).pop("_broken", None)  # the weights may have changed since
        broken = self._broken
        if broken:
            more = f", and {len(broken) - 1:,} more" if len(broken) > 1 else ""
            cause = f"{broken[0]}{more} of the weights holds NaN or infinite numbers. Copy or download them again"
        else:
            cause = "No tensor of the weights holds such: they overflow on the way. Compute in float32"
        count = int((~features.isfinite().all(dim=1)).sum())
        found = f"{count:,} of {len(features):,} are not" if count else "their weights are not"
        raise WeightsError(f"{of} features must be finite numbers, and {found}. {cause}, or take another model.")

    def with_image_size(self, image_size: int) -> "Bundle":
        """The same model for pictures of another size; see `diptych.model.resize.with_image_size`.

        Of a NaFlex tower: for pictures of as many patches as a square one of this size has.

        Raises:
            ConfigError: the image tower cannot take this size.
        """
        model = with_image_size(self.model, image_size)
        preprocess = dataclasses.replace(self.preprocess, image_size=image_size, max_patches=0)
        return dataclasses.replace(self, model=model, preprocess=preprocess)

    def with_context_length(self, context_length: int) -> "Bundle":
        """The same model for texts of another length; see `diptych.model.resize.with_context_length`.

        Raises:
            ConfigError: the text tower reads its padding, or there is no room for a token.
        """
        tokenizer = self.tokenizer.with_context_length(context_length)
        model = with_context_length(self.model, context_length)
        return dataclasses.replace(self, model=model, tokenizer=tokenizer)

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
        table_bits: TableBits = 8,
    ) -> None:
        """Write the bundle's folder, whole or not at all; one that stood there is replaced.

        Args:
            folder: where to.
            dtype: what parameters are stored as; batch norm's statistics and the logit scale stay float32. In int8
                matrices alone become so, see `diptych.weights.eight_bit`, and diptych alone opens the folder.
            layout: "bundle", which `transformers` opens where it has a class for the model, and `open_clip` where it
                has none (ResNets); or "open_clip", which `open_clip` opens.
            table_bits: beside int8, what a number of the table of tokens is stored in. With 4 an error of some 9 %
                of its weights is made, which turns the features of texts by a cosine of 0.99 to 0.999.

        Raises:
            ConfigError: dtype is none of float32, float16, bfloat16, int8, or open_clip has no such model or dtype; or
                a table of 4 bits is asked for beside another type.
            DataError: the folder cannot be written, or what stands there is no model's.
            WeightsError: the features are not finite.
        """
        folder = Path(folder)
        check_replaceable(folder)
        weights = stored_weights(self.model, dtype, table_bits)
        stored = dataclasses.replace(self, model=as_stored(self.model.config, weights))
        try:
            golden = golden_of(stored)
        except WeightsError as error:
            raise WeightsError(f"this model is not saved: has its training diverged? {error}") from error
        write_folder(folder, stored, weights, golden, layout=layout, dtype=dtype)

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
        for sentence in (*assumptions(stored.untold, path), *stored.left_out):
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
            check_seal(bundle, stored.weights.parent, stored.seal)
        return bundle


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
