"""What any engine makes of pictures and texts: two towers into one space, as numpy arrays. Nothing here needs torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from diptych.data.ahead import batched, decoded_ahead
from diptych.data.images import ImageSource, Preprocess
from diptych.data.inputs import as_pictures, as_texts
from diptych.data.tokenizer import Tokenizer, Unread
from diptych.errors import ConfigError
from diptych.measures.unit_length import unit_length
from diptych.model.vocabulary import text_lengths
from diptych.weights.folder import About

# A batch of texts ends before one that is so much longer than its shortest, if it has some: padding costs as words do,
# and the first few texts of a batch cost more each than those that follow.
_FILLED_UP, _FEW = 1.125, 16


@dataclass(frozen=True, kw_only=True)
class LogitHead:
    """How cosines become logits, and logits probabilities."""

    kind: Literal["softmax", "sigmoid"] = "softmax"
    logit_scale: float  # the factor on cosines, 1 / temperature; for softmax at most 100
    logit_bias: float | None = None  # of a sigmoid head


@dataclass(frozen=True, kw_only=True)
class DualEncoder(ABC):
    """A model and all it needs to take pictures and texts, whatever computes it.

    Args:
        preprocess: pictures to what the image tower takes.
        tokenizer: texts to what the text tower takes.
        about: where the weights come from.
    """

    preprocess: Preprocess
    tokenizer: Tokenizer
    about: About = field(default_factory=About)

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """D."""

    @property
    @abstractmethod
    def head(self) -> LogitHead:
        """What is made of cosines."""

    @property
    @abstractmethod
    def reads_padding(self) -> bool:
        """Whether the text tower reads what comes after the end of a text, so that none may be left out."""

    @property
    @abstractmethod
    def golden_texts(self) -> tuple[str, ...]:
        """What a saved model is checked with."""

    @abstractmethod
    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Encode one batch of pictures that are already of the tower's size.

        Args:
            pixels: uint8, stacked from `preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            [B, D] float32, unit length.

        Raises:
            WeightsError: the features are not finite.
        """

    @abstractmethod
    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Encode one batch of texts as tokens.

        Args:
            tokens: [B, L] int64, as the tokenizer gives them; L may be less than its context length.

        Returns:
            [B, D] float32, unit length.

        Raises:
            WeightsError: the features are not finite.
        """

    def encode_each(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """`encode_pixels` of each batch, in order; an engine may copy the next one while it computes."""
        return map(self.encode_pixels, batches)

    def encode_fast(self, pixels: np.ndarray) -> np.ndarray:
        """`encode_pixels`, in a type of numbers that may be less exact where that is faster here: for libraries."""
        return self.encode_pixels(pixels)

    def prepare_to_share(self) -> None:  # noqa: B027, most engines have no state to settle
        """Called once before several threads encode at the same time."""

    @abstractmethod
    def in_torch(self) -> Any:
        """The same model in torch, a `Bundle`, for what only that does: maps, other picture sizes, training.

        Its type is not named here, as its file imports this one.

        Raises:
            MissingExtraError: torch is not installed.
            WeightsError: its files are gone or damaged.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of all that features hang on; equal for engines that give equal features."""

    @property
    def logit_scale(self) -> float:
        """The factor on cosines, 1 / temperature; for softmax at most 100."""
        return self.head.logit_scale

    @property
    def text_weight(self) -> float:
        """By how much a text counts more in a sum of texts and pictures than its length says; 1 but where two models
        are one, see `diptych.weights.joint`.
        """
        return 1.0

    def pooled_texts(self, sums: np.ndarray) -> np.ndarray:
        """What several texts of each class mean together.

        Args:
            sums: [C, D], of their features.

        Returns:
            [C, D] float32, unit length.
        """
        return unit_length(sums)

    def part_for(self, image: ImageSource) -> "DualEncoder":  # noqa: ARG002, of two models behind one name it tells
        """The model that answers for a picture: this one, but where two models are one.

        Raises:
            ImageError: the picture cannot be read.
        """
        return self

    def encode_images(self, images: Sequence[ImageSource], *, batch_size: int = 64) -> np.ndarray:
        """Encode pictures.

        Args:
            images: N pictures, each in a form that `open_image` takes.
            batch_size: pictures a forward pass.

        Returns:
            [N, D] float32, unit length.

        Raises:
            DataError: it is no list, but one picture.
            ImageError: the first picture that cannot be read; `embed_images` skips those instead.
            WeightsError: the features are not finite.
        """
        images = as_pictures(images)
        features = np.empty((len(images), self.embed_dim), np.float32)
        done = 0
        with decoded_ahead(self.preprocess.pixels, images, batch_size) as pictures:
            for some in self.encode_each(np.stack(batch) for batch in batched(pictures, batch_size)):
                features[done : done + len(some)] = some
                done += len(some)
        return features

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256, truncate: bool = False) -> np.ndarray:
        """Encode texts.

        Args:
            texts: N texts.
            batch_size: texts a forward pass.
            truncate: cut what is too long instead of refusing it.

        Returns:
            [N, D] float32, unit length.

        Raises:
            TextError: a text is too long, or is no valid string; or it is no list, but one text.
            WeightsError: the features are not finite.
        """
        tokenizer = self.tokenizer
        tokens = tokenizer.encode(as_texts(texts), truncate=truncate)  # [N, L]
        lengths = np.full(len(tokens), tokens.shape[1])
        # What comes after the last end token of a batch costs time and changes nothing, unless the tower reads it: one
        # that is read at the highest id of a text does where that is the padding's.
        if not self.reads_padding and tokenizer.pad_token_id <= tokenizer.end_token_id:
            lengths = text_lengths(tokens, tokenizer.end_token_id, tokenizer.pad_token_id)
        features = np.empty((len(tokens), self.embed_dim), np.float32)
        for rows in _of_like_length(lengths, batch_size):
            features[rows] = self.encode_tokens(tokens[rows, : lengths[rows].max()])
        return features

    def logits_per_image(self, image_features: np.ndarray, text_features: np.ndarray) -> np.ndarray:
        """The factor times the cosine, plus the bias of a sigmoid head.

        Args:
            image_features: [N, D], unit length.
            text_features: [C, D], unit length.

        Returns:
            [N, C] float32.
        """
        logits = np.float32(self.head.logit_scale) * image_features @ text_features.T
        return logits if self.head.logit_bias is None else logits + np.float32(self.head.logit_bias)

    def probabilities(self, logits_per_image: np.ndarray) -> np.ndarray:
        """What logits say of each picture's labels.

        Args:
            logits_per_image: [N, C].

        Returns:
            [N, C]. Softmax: a row adds up to 1. Sigmoid: the probability of each label by itself.
        """
        if self.head.kind == "sigmoid":
            powers = np.exp(-np.abs(logits_per_image))  # of what is not above 0: SigLIP's logits go down to -133
            return np.where(logits_per_image >= 0, 1, powers) / (1 + powers)
        powers = np.exp(logits_per_image - logits_per_image.max(axis=1, keepdims=True, initial=-np.inf))
        return powers / powers.sum(axis=1, keepdims=True)

    def unread(self, texts: Sequence[str]) -> list[Unread]:
        """Those of the texts of which the tokenizer does not know all words; see `Tokenizer.unread`."""
        return self.tokenizer.unread(texts)


def _of_like_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Rows of batches, from the shortest text to the longest: the shortest of a batch is filled up by little."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Got {batch_size}.")
    order = np.argsort(lengths, kind="stable")
    ordered, start = lengths[order], 0
    while start < len(order):
        alike = int(np.searchsorted(ordered, _FILLED_UP * ordered[start], side="right")) - start
        end = start + min(batch_size, max(alike, _FEW))
        yield order[start:end]
        start = end
