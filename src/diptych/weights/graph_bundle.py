"""A model that is computed from its graphs, without torch."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diptych.data.images import MAX_PIXELS
from diptych.data.tokenizer import Tokenizer
from diptych.errors import WeightsError, missing_extra
from diptych.model.vocabulary import text_lengths
from diptych.weights.dual_encoder import DualEncoder, LogitHead
from diptych.weights.folder import CONFIG, TOKENIZER, Seal, changed_files, read_json, read_preprocess, read_seal
from diptych.weights.golden import GOLDEN_TOLERANCE, distance, golden_picture, golden_tokens
from diptych.weights.graphs import GRAPHS, Graphs, read_graphs
from diptych.weights.onnx_towers import OnnxTowers

if TYPE_CHECKING:
    from diptych.weights.bundle import Bundle

# Products of integers are exact, but a float that lies between two of them is rounded to either by another processor.
_INT8_TOLERANCE = 2e-2
Tower = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class GraphBundle(DualEncoder):
    """A bundle's folder that carries its graphs, in onnxruntime or OpenVINO.

    Each tower is opened with its first batch, and then asked for the golden inputs: features that differ from those
    that stand in the folder are refused before any is given.
    """

    folder: Path
    graphs: Graphs
    towers: OnnxTowers
    seal: Seal
    verify: bool = True

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        engine: Literal["onnx", "openvino"] = "onnx",
        device: str = "auto",
        for_few: bool = False,
        verify: bool = True,
    ) -> "GraphBundle":
        """Read what `diptych export` wrote; the graphs themselves are opened later.

        Args:
            folder: with config.json, tokenizer, picture recipe, graphs and weights.
            engine: who computes.
            device: see `diptych.load`.
            for_few: see `OnnxTowers`.
            verify: ask each tower for the golden inputs first.

        Raises:
            ConfigError: the device is none that the engine has here.
            WeightsError: a file is missing or damaged.
        """
        preprocess, seal = read_preprocess(folder), read_seal(folder / CONFIG, read_json(folder / CONFIG))
        if preprocess is None or seal is None:
            raise WeightsError(f"{folder} must be a bundle that diptych wrote, and is none. Export it again.")
        if TOKENIZER in changed_files(folder, {TOKENIZER: seal.sha256.get(TOKENIZER, "")}):
            raise WeightsError(f"{folder / TOKENIZER} must be the file that was saved with the bundle. Copy it again.")
        return cls(
            preprocess=preprocess,
            tokenizer=Tokenizer.load(folder),
            about=seal.about,
            folder=folder,
            graphs=read_graphs(folder / GRAPHS),
            towers=OnnxTowers(folder, engine=engine, device=device, for_few=for_few),
            seal=seal,
            verify=verify,
        )

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.graphs.embed_dim

    @property
    def head(self) -> LogitHead:
        """What is made of cosines."""
        return LogitHead(kind=self.graphs.head, logit_scale=self.graphs.logit_scale, logit_bias=self.graphs.logit_bias)

    @property
    def reads_padding(self) -> bool:
        """Whether the text tower reads what comes after the end of a text, so that none may be left out."""
        return self.graphs.reads_padding

    @property
    def golden_texts(self) -> tuple[str, ...]:
        """What a saved model is checked with."""
        return self.graphs.golden_texts

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_pixels`."""
        return self._image_tower(pixels)

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_tokens`."""
        return self._text_tower(tokens)

    def in_torch(self) -> "Bundle":
        """See `DualEncoder.in_torch`."""
        return self._in_torch

    def __getattr__(self, name: str) -> Any:  # of what is not here, as `model` and `save` of a `Bundle`
        raise AttributeError(
            f"a model in onnxruntime or OpenVINO has no {name!r}. In torch: diptych.load(..., engine='torch'), or "
            ".in_torch() of this one."
        )

    @functools.cached_property
    def _in_torch(self) -> "Bundle":
        try:
            from diptych.weights.bundle import Bundle
        except ImportError:
            raise missing_extra("what only torch does (maps, other picture sizes, training)", "torch") from None
        return replace(Bundle.load(self.folder), preprocess=self.preprocess, about=self.about)

    def fingerprint(self) -> str:
        """See `DualEncoder.fingerprint`: that of the bundle, whose features these are."""
        return self.graphs.fingerprint

    @functools.cached_property
    def _image_tower(self) -> Tower:
        golden = replace(self.preprocess, max_pixels=MAX_PIXELS).pixels(golden_picture())[None]
        self._check("image", self.seal.golden.image_features, self._encode_pixels(golden))
        return self._encode_pixels

    @functools.cached_property
    def _text_tower(self) -> Tower:
        tokens = self.tokenizer.encode(self.golden_texts, truncate=True)
        if self.verify and self.seal.golden.tokens != golden_tokens(tokens, self.tokenizer):
            raise WeightsError(f"{self.folder} must give the tokens that it gave when it was saved. Copy it again.")
        if not self.reads_padding:
            tokens = tokens[:, : self._lengths(tokens).max()]
        self._check("text", self.seal.golden.text_features, self._encode_tokens(tokens))
        return self._encode_tokens

    def _check(self, of: str, then: Sequence[Sequence[float]], now: np.ndarray) -> None:
        tolerance = _INT8_TOLERANCE if self.graphs.computes == "int8" else GOLDEN_TOLERANCE
        if self.verify and (apart := distance(then, now)) > tolerance:
            raise WeightsError(
                f"{self.folder} must encode as it did when it was saved, and {of} features are {apart:.2g} off. "
                "Copy or export it again, or choose engine torch."
            )

    def _encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        parts = np.split(pixels, len(pixels)) if "image" in self.graphs.one_at_a_time and len(pixels) else [pixels]
        return self._finite(np.concatenate([self.towers.encode_pixels(part) for part in parts]), "image")

    def _encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        parts = [tokens]
        if "text" in self.graphs.one_at_a_time and len(tokens):  # whatever else is asked
            lengths = [tokens.shape[1]] * len(tokens) if self.reads_padding else self._lengths(tokens)
            parts = [row[None, :length] for row, length in zip(tokens, lengths, strict=True)]
        return self._finite(np.concatenate([self.towers.encode_tokens(part) for part in parts]), "text")

    def _lengths(self, tokens: np.ndarray) -> np.ndarray:
        return text_lengths(tokens, self.tokenizer.end_token_id, self.tokenizer.pad_token_id)

    def _finite(self, features: np.ndarray, of: str) -> np.ndarray:
        if features.shape[1:] != (self.embed_dim,):
            raise WeightsError(
                f"the {of} graph of {self.folder} must give features of {self.embed_dim} numbers, as graphs.json says. "
                f"Got {list(features.shape)}. Export the model again."
            )
        if not np.isfinite(features).all():
            count = int((~np.isfinite(features).all(axis=1)).sum())
            raise WeightsError(
                f"{of} features must be finite numbers, and {count:,} of {len(features):,} are not. Copy the model "
                "again, or choose engine torch, which says where it comes from."
            )
        return features
