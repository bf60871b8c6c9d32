"""Bundle: a model with its preprocess and tokenizer, in memory and as a folder.

The folder of a ViT model is a `transformers` CLIP or SigLIP folder; that of a ResNet, which `transformers` has no class
for, is an `open_clip` folder and has a `config.json` with `model_type: diptych-clip`; so have mixtures that neither
library knows. In all, `config.json` holds a block of ours, "diptych": what the bundle is, the SHA-256 of its files, and
what it makes of a few golden inputs.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from diptych.data.ahead import batched, decoded_ahead
from diptych.data.images import ImageSource, Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, WeightsError
from diptych.files import atomic_folder, write_json
from diptych.model.blocks import Activation
from diptych.model.clip import CLIP
from diptych.model.resize import with_image_size
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.model.siglip import SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.weights.adapters import OWN, Naming, config_to_own
from diptych.weights.eight_bit import from_eight_bits, to_eight_bits
from diptych.weights.folder import (
    CONFIG,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PREPROCESS,
    STATISTICS,
    TOKENIZER,
    WEIGHTS,
    About,
    Block,
    Golden,
    digests,
    write_config,
)
from diptych.weights.hugging_face import config_to_hf, hugging_face_naming
from diptych.weights.open_clip import config_to_open_clip, naming_of
from diptych.weights.source import fill, open_source

GOLDEN_TEXTS = ("a photo of a cat", "two red kites, 3 blue boats & a dog", "naïve café ½ 🙂")
SIGLIP_GOLDEN_TEXTS = ("A Photo of a CAT.", *GOLDEN_TEXTS[1:])  # with what its tokenizers clean away
# Distance between unit vectors. Another processor moves features by about 1e-5, and rounding in the file by 1e-4;
# GELU for QuickGELU moved those of an untrained 2-layer model by 3e-3, red for blue by 3e-3 to 0.3.
GOLDEN_TOLERANCE = 2e-3
Layout = Literal["bundle", "open_clip"]
_CONFIGS = (CONFIG, OPEN_CLIP_CONFIG)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model and all it needs to take pictures and texts.

    Args:
        model: on any device; encoding leaves its modes (train or eval, module by module) as they were.
        preprocess: pictures to what the image tower takes.
        tokenizer: texts to what the text tower takes.
        about: where the weights come from.

    Raises:
        ConfigError: the three do not fit together.
    """

    model: CLIP
    preprocess: Preprocess
    tokenizer: Tokenizer
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        image, text, tokenizer = self.model.config.image, self.model.config.text, self.tokenizer
        if self.preprocess.image_size != image.image_size:
            sizes = f"{self.preprocess.image_size} and {image.image_size}"
            raise ConfigError(f"preprocess and image tower must have the same image_size. Got {sizes}.")
        if tokenizer.context_length > text.context_length or tokenizer.vocab_size > text.vocab_size:
            raise ConfigError(
                f"the text tower must take all tokens: it has context_length={text.context_length}, "
                f"vocab_size={text.vocab_size}, the tokenizer {tokenizer.context_length} and {tokenizer.vocab_size}. "
                "Are they of the same model?"
            )
        if isinstance(text, SigLIPTextTowerConfig):
            if tokenizer.context_length != text.context_length:
                raise ConfigError(
                    "the tokenizer must pad to the context length of a siglip text tower, which reads the padding. "
                    f"Got {tokenizer.context_length} and {text.context_length}: of the same model?"
                )
        elif isinstance(text, SentenceTowerConfig):
            if tokenizer.pad_token_id != text.pad_token_id:
                ids = f"{text.pad_token_id} and {tokenizer.pad_token_id}"
                raise ConfigError(f"text tower and tokenizer must have the same padding. Got {ids}: of the same model?")
        elif text.end_token_id not in (None, tokenizer.end_token_id):
            ids = f"{text.end_token_id} and {tokenizer.end_token_id}"
            raise ConfigError(f"text tower and tokenizer must have the same end token. Got {ids}: of the same model?")

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
            images: N paths, bytes, files or Pillow images.
            batch_size: pictures a forward pass.

        Returns:
            [N, D] float32 on the CPU, unit length.

        Raises:
            ImageError: the first picture that cannot be read; `embed_images` skips those instead.
        """
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
            pixels: [B, S, S, 3] uint8, stacked from `preprocess.pixels`.

        Returns:
            [B, D] float32 on the CPU, unit length.
        """
        with _encoding(self.model) as device:
            batch = self.preprocess.normalise(torch.from_numpy(pixels).to(device))
            features = self.model.encode_image(batch).float().cpu()
        return features.clone()  # outside of inference mode: a tensor that autograd takes

    def encode_pixels_and_trunk(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Encode one batch of pictures for zero-shot and linear probe in one pass.

        Args:
            pixels: [B, S, S, 3] uint8, stacked from `preprocess.pixels`.

        Returns:
            What `encode_pixels` gives, [B, D], and the features before the projection [B, W]: float32 on the CPU.
        """
        with _encoding(self.model) as device:
            batch = self.preprocess.normalise(torch.from_numpy(pixels).to(device))
            features, trunk = (part.float().cpu() for part in self.model.encode_image_and_trunk(batch))
        return features.clone(), trunk.clone()  # as in `encode_pixels`

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256, truncate: bool = False) -> Tensor:
        """Encode texts.

        Args:
            texts: N texts.
            batch_size: texts a forward pass.
            truncate: cut what is too long instead of refusing it.

        Returns:
            [N, D] float32 on the CPU, unit length.

        Raises:
            TextError: a text is too long, or is no valid string.
        """
        tokens = self.tokenizer.encode(texts, truncate=truncate)  # [N, L]
        features = torch.empty(len(tokens), self.model.config.embed_dim)
        for rows in _batches(len(tokens), batch_size):
            batch = tokens[rows]
            if not isinstance(self.model.config.text, SigLIPTextTowerConfig):
                # What comes after the last end token of the batch costs time and changes nothing.
                batch = batch[:, : 1 + max(self._ends(batch))]
            with _encoding(self.model) as device:
                features[rows] = self.model.encode_text(batch.to(device)).float().cpu()
        return features

    def with_image_size(self, image_size: int) -> "Bundle":
        """The same model for pictures of another size; see `diptych.model.resize.with_image_size`.

        Raises:
            ConfigError: the image tower cannot take this size.
        """
        model = with_image_size(self.model, image_size)
        return dataclasses.replace(
            self, model=model, preprocess=dataclasses.replace(self.preprocess, image_size=image_size)
        )

    def fingerprint(self) -> str:
        """SHA-256 of sizes, weights, preprocess and tokenizer; the same again after `save` in float32 and `load`."""
        parts = [self._config_file(), self.preprocess.to_hf(), self.tokenizer.fingerprint()]
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
        if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in _CONFIGS):
            raise DataError(f"{folder} must be a model's folder, be empty or absent: what is in it would be replaced.")
        weights = stored_weights(self.model, dtype)
        # Golden features are of the weights as stored, so that a check on load need not allow for their rounding.
        model = CLIP(self.model.config)
        fill(model, from_eight_bits(weights))
        golden = Bundle(model=model, preprocess=self.preprocess, tokenizer=self.tokenizer)._golden()
        naming, weights_name, configs = self._files(layout, dtype)
        with atomic_folder(folder) as aside:
            # Through bytes: the file writer of safetensors does not say that a disk is full.
            (aside / weights_name).write_bytes(
                safetensors.torch.save(naming.from_ours(weights), metadata={"format": "pt"})
            )
            self.tokenizer.save(aside)
            write_json(aside / PREPROCESS, self.preprocess.to_hf())
            for name, config in configs.items():
                write_json(aside / name, config)
            digest = digests(aside, (weights_name, TOKENIZER, PREPROCESS, *configs))
            first = next(iter(configs))
            write_config(aside / first, configs[first], Block(about=self.about, sha256=digest, golden=golden))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        verify: bool = True,
        weights: str = "",
        activation: Activation | None = None,
        heads: int | None = None,
        tokenizer: str | Path | None = None,
    ) -> "Bundle":
        """Read a model from disk, whoever wrote it. No code of a file is run, and float32 weights are mapped, not read.

        Args:
            path: a bundle, a CLIP or SigLIP folder of `transformers`, an `open_clip` folder, a file of its tensors
                (`.safetensors`, `.pt`, `.bin`), or one of OpenAI's archives.
            verify: check the SHA-256 of weights and tokenizer, and golden inputs' features, where diptych wrote them.
            weights: the name of the file of weights, where a folder may hold several.
            activation: of a bare state dict, which does not tell it.
            heads: of the image tower of a bare state dict, where they are not 64 channels wide.
            tokenizer: a folder with one, or a file of CLIP's merges, instead of what lies beside the weights.

        Returns:
            A bundle with its model on the CPU, float32 whatever it is stored as, in eval mode.

        Raises:
            WeightsError: a file is missing or damaged, the files do not fit together, or the golden features come out
                otherwise than they were saved.
        """
        path = Path(path)
        place = None if tokenizer is None else Path(tokenizer)
        source = open_source(path, weights=weights, activation=activation, heads=heads, tokenizer=place)
        try:
            model, block = source.build(), source.block
            about = block.about if block else About()
            bundle = cls(model=model, preprocess=source.preprocess, tokenizer=source.read_tokenizer(), about=about)
        except ConfigError as error:
            raise WeightsError(f"{path}: {error}") from error
        if verify and block:
            bundle._check(path, block)
        return bundle

    def _files(self, layout: Layout, dtype: torch.dtype) -> tuple[Naming, str, dict[str, dict[str, Any]]]:
        """The names of the tensors, that of their file, and the config files; our block goes into the first."""
        config = self.model.config
        if layout == "open_clip":
            if dtype == torch.int8:
                raise ConfigError("open_clip opens no weights in 8 bits. Save them in bfloat16, or as a bundle.")
            foreign = config_to_open_clip(config, self.preprocess)
            return naming_of(config), OPEN_CLIP_WEIGHTS, {OPEN_CLIP_CONFIG: foreign}
        if dtype == torch.int8:
            return OWN, WEIGHTS, {CONFIG: self._own_config_file() | {"dtype": "int8"}}
        own = {CONFIG: self._config_file() | {"dtype": str(dtype).removeprefix("torch.")}}
        if naming := self.hugging_face_naming():
            return naming, WEIGHTS, own
        match config.image, config.text, config.head:
            case ResNetTowerConfig(), TextTowerConfig(), "softmax":
                foreign = config_to_open_clip(config, self.preprocess)
                return naming_of(config), WEIGHTS, own | {OPEN_CLIP_CONFIG: foreign}
            case _:
                return OWN, WEIGHTS, own

    def hugging_face_naming(self) -> Naming | None:
        """The names with which `transformers` opens this model; None when it cannot."""
        config, tokenizer = self.model.config, self.tokenizer
        # A SigLIP text tower reads the padding, and CLIP's tokenizer there pads with the end token alone.
        reads_padding = isinstance(config.text, SigLIPTextTowerConfig) and tokenizer.start_token_id is not None
        if reads_padding and tokenizer.pad_token_id != tokenizer.end_token_id:
            return None
        return hugging_face_naming(config)

    def _config_file(self) -> dict[str, Any]:
        config, tokenizer = self.model.config, self.tokenizer
        if self.hugging_face_naming() is None:
            return self._own_config_file()
        return config_to_hf(
            config,
            start_token_id=tokenizer.start_token_id,
            end_token_id=tokenizer.end_token_id,
            vocab_size=tokenizer.vocab_size,
        )

    def _own_config_file(self) -> dict[str, Any]:
        return {"model_type": "diptych-clip", "model": config_to_own(self.model.config)}

    def _golden(self) -> Golden:
        is_siglip = isinstance(self.model.config.text, SigLIPTextTowerConfig)
        texts = SIGLIP_GOLDEN_TEXTS if is_siglip else GOLDEN_TEXTS
        tokens = self.tokenizer.encode(texts, truncate=True)
        image_features = self.encode_images([golden_picture()])
        text_features = self.encode_texts(texts, truncate=True)
        if not (image_features.isfinite().all() and text_features.isfinite().all()):
            raise WeightsError("a model must give finite features to be saved. Got NaN: has its training diverged?")
        return Golden(
            tokens=tuple(tuple(row[: end + 1]) for row, end in zip(tokens.tolist(), self._ends(tokens), strict=True)),
            image_features=_rounded(image_features),
            text_features=_rounded(text_features),
        )

    def _ends(self, tokens: Tensor) -> list[int]:
        return (tokens == self.tokenizer.end_token_id).int().argmax(dim=1).tolist()  # [B], the first end token of each

    def _check(self, folder: Path, block: Block) -> None:
        now_there = digests(folder, block.sha256)
        changed = [name for name, digest in now_there.items() if digest != block.sha256[name]]
        for name in (WEIGHTS, OPEN_CLIP_WEIGHTS, TOKENIZER):  # the golden inputs reach but a part of these
            if name in changed:
                raise WeightsError(
                    f"{folder / name} must be the file that was saved with the bundle, and its SHA-256 differs. Copy "
                    "or download it again; if it was changed on purpose, remove the diptych block from the config."
                )
        then, now = block.golden, self._golden()
        faults = [] if now.tokens == then.tokens else ["tokens differ"]
        for name in ("image_features", "text_features"):
            distance = _distance(getattr(then, name), getattr(now, name))
            if distance > GOLDEN_TOLERANCE:
                faults.append(f"{name} are {distance:.2g} off")
        if faults:
            cause = (
                f"{' and '.join(changed)} was changed since. Restore it."
                if changed
                else "No file was changed since: another version of diptych, torch or tokenizers computes otherwise."
            )
            raise WeightsError(f"{folder} must encode as it did when it was saved, and {', '.join(faults)}. {cause}")


def stored_weights(model: CLIP, dtype: torch.dtype) -> dict[str, Tensor]:
    """A model's state dict as it is stored; batch norm's statistics and the logit scale stay float32.

    Raises:
        ConfigError: dtype is none of float32, float16, bfloat16, int8.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"weights are stored as {', '.join(map(str, _DTYPES))}. Got {dtype}.")

    def stored(name: str, tensor: Tensor) -> Tensor:
        # Half a per cent of the logit scale is lost in bfloat16, and a variance may be beyond float16.
        whole = name.endswith(STATISTICS) or tensor.ndim == 0
        tensor = tensor.detach().cpu()
        whole = whole or dtype == torch.int8
        return tensor if not tensor.is_floating_point() else tensor.to(torch.float32 if whole else dtype)

    weights = {name: stored(name, tensor) for name, tensor in model.state_dict().items()}
    return to_eight_bits(weights) if dtype == torch.int8 else weights


def golden_picture() -> Image.Image:
    """A picture by formula, 120 x 80: red grows to the right, green downwards, blue is a chessboard."""
    y, x = np.mgrid[:80, :120]
    return Image.fromarray(np.stack([x * 2, y * 3, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8))


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


def _rounded(features: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(value, 5) for value in row) for row in features.tolist())


def _distance(then: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> float:
    if np.shape(then) != np.shape(now):
        return math.inf
    return float(np.linalg.norm(np.subtract(then, now), axis=1).max())
