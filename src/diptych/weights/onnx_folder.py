"""A model from the graphs that optimum and transformers.js write, in onnxruntime; nothing here needs torch.

Such a folder has the files of transformers (config, tokenizer, picture recipe) and graphs, beside them or in `onnx/`:
one of each tower (`vision_model.onnx`, `text_model.onnx`), or one of both (`model.onnx`). Their inputs are
`pixel_values` [B, 3, S, S], `input_ids` and, of CLIP, `attention_mask` [B, L]; their outputs `image_embeds` and
`text_embeds`, of SigLIP's towers `pooler_output`. Nobody has sealed them: that they compute what the model does is the
word of who made them.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.data.tokenizer import Tokenizer
from diptych.errors import ShapeError, WeightsError, missing_extra
from diptych.files import sha256
from diptych.measures.unit_length import unit_length
from diptych.model.vocabulary import GOLDEN_TEXTS, text_lengths
from diptych.weights.dual_encoder import DualEncoder, LogitHead
from diptych.weights.folder import CONFIG, read_json, read_preprocess
from diptych.weights.onnx_towers import open_session

if TYPE_CHECKING:
    from diptych.weights.bundle import Bundle

_TOKENS = {"clip": 77, "metaclip_2": 77, "siglip": 64}  # where config.json is silent, by model_type
_IMAGE, _TEXT, _BOTH = "vision_model", "text_model", "model"
_HALF = "_fp16"
_FAR = 1e-2  # logits are as far from a line of the cosines as this, or the graph computes something else


@dataclass(frozen=True, kw_only=True)
class OnnxFolder(DualEncoder):
    """A folder of optimum or transformers.js. Graphs are opened with their first batch."""

    folder: Path
    model_type: str
    graphs: dict[str, Path]  # by what they are of: vision_model, text_model, model
    device: str

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "OnnxFolder":
        """Read the files beside the graphs; the graphs themselves are opened later.

        Args:
            folder: with config.json, tokenizer and picture recipe.
            device: see `diptych.load`.

        Raises:
            WeightsError: a file is missing or damaged, or the model is of another kind.
        """
        config = read_json(folder / CONFIG)
        kind = str(config.get("model_type"))
        if kind not in _TOKENS:
            raise WeightsError(
                f"{folder} must hold graphs of a model of the type {', '.join(_TOKENS)}. Got {kind!r}. Take the model "
                "with its weights."
            )
        graphs = graphs_in(folder)
        if _BOTH not in graphs and not {_IMAGE, _TEXT} <= graphs.keys():
            found = ", ".join(path.name for path in graphs.values()) or "none in float32 or float16"
            raise WeightsError(f"{folder} must hold {_IMAGE}.onnx and {_TEXT}.onnx, or {_BOTH}.onnx. Got {found}.")
        preprocess = read_preprocess(folder)
        if preprocess is None:
            raise WeightsError(f"{folder} must hold preprocessor_config.json, the picture recipe. Copy it too.")
        text = config.get("text_config") or {}
        length = text.get("max_position_embeddings", _TOKENS[kind]) if isinstance(text, dict) else _TOKENS[kind]
        cleaning = "siglip" if kind == "siglip" else "file"
        return cls(
            preprocess=preprocess,
            tokenizer=Tokenizer.load(folder, context_length=length, cleaning=cleaning),
            folder=folder,
            model_type=kind,
            graphs=graphs,
            device=device,
        )

    @property
    def embed_dim(self) -> int:
        """D."""
        return self._embed_dim

    @functools.cached_property
    def _embed_dim(self) -> int:
        return self._text(self.tokenizer.encode([""])).shape[1]

    @property
    def head(self) -> LogitHead:
        """What is made of cosines; the graph of both towers tells it, by what it makes of a picture and texts.

        Raises:
            WeightsError: there is no such graph, or it makes something else of them.
        """
        return self._head

    @functools.cached_property
    def _head(self) -> LogitHead:
        if _BOTH not in self.graphs:
            raise WeightsError(
                f"{self.folder} must hold {_BOTH}.onnx to tell the factor that makes logits of cosines; graphs of the "
                "towers alone do not. Features and search need none: add the file, or take the model's weights."
            )
        tokens = self.tokenizer.encode(GOLDEN_TEXTS, truncate=True)
        side = self.preprocess.image_size
        found = self._run(_BOTH, {**self._words(tokens), "pixel_values": self._numbers(_chessboard(side))})
        images, texts = (unit_length(found[name]) for name in ("image_embeds", "text_embeds"))
        cosines, logits = (images @ texts.T).ravel(), found["logits_per_image"].astype(np.float64).ravel()
        scale, bias = np.polyfit(cosines.astype(np.float64), logits, 1)
        is_sigmoid = self.model_type == "siglip"
        if not is_sigmoid:
            scale, bias = logits @ cosines / (cosines @ cosines), 0.0
        if np.abs(scale * cosines + bias - logits).max() > _FAR:
            raise WeightsError(f"{self.graphs[_BOTH]} must make logits of cosines, and makes something else of them.")
        if is_sigmoid:
            return LogitHead(kind="sigmoid", logit_scale=float(scale), logit_bias=float(bias))
        return LogitHead(kind="softmax", logit_scale=float(scale))

    @property
    def reads_padding(self) -> bool:
        """Whether texts must be padded: SigLIP reads it, and a graph may have been traced with one length alone."""
        if self.model_type == "siglip":
            return True
        length = next((port.shape[1] for port in self._ports(self._text_graph) if port.name == "input_ids"), None)
        return isinstance(length, int)

    @property
    def golden_texts(self) -> tuple[str, ...]:
        """What a saved model is checked with."""
        return GOLDEN_TEXTS

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_pixels`."""
        side = self.preprocess.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ShapeError(f"pixels must be [B, {side}, {side}, 3] uint8. Got {list(pixels.shape)} {pixels.dtype}.")
        if not len(pixels):
            return np.empty((0, self.embed_dim), np.float32)
        name = _IMAGE if _IMAGE in self.graphs else _BOTH
        also = self._words(self.tokenizer.encode([""])) if name == _BOTH else {}
        return self._features(self._run(name, {"pixel_values": self._numbers(pixels), **also}), "image")

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_tokens`."""
        return self._text(tokens) if len(tokens) else np.empty((0, self.embed_dim), np.float32)

    def in_torch(self) -> "Bundle":
        """See `DualEncoder.in_torch`: from weights, where the folder has some."""
        try:
            from diptych.weights.bundle import Bundle
        except ImportError:
            raise missing_extra("what only torch does (maps, other picture sizes, training)", "torch") from None
        return replace(Bundle.load(self.folder), about=self.about)

    def fingerprint(self) -> str:
        """See `DualEncoder.fingerprint`."""
        graphs = [sha256(path) for _, path in sorted(self.graphs.items())]
        parts = [*graphs, repr(sorted(self.preprocess.to_hf().items())), self.tokenizer.fingerprint()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def _text_graph(self) -> str:
        return _TEXT if _TEXT in self.graphs else _BOTH

    def _text(self, tokens: np.ndarray) -> np.ndarray:
        side = self.preprocess.image_size
        also = {"pixel_values": self._numbers(_chessboard(side))} if self._text_graph == _BOTH else {}
        return self._features(self._run(self._text_graph, {**self._words(tokens), **also}), "text")

    def _words(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """[B, L] int64, and which of them are up to the end."""
        lengths = text_lengths(tokens, self.tokenizer.end_token_id, self.tokenizer.pad_token_id)
        mask = (np.arange(tokens.shape[1])[None] < lengths[:, None]).astype(np.int64)
        return {"input_ids": tokens, "attention_mask": mask}

    def _numbers(self, pixels: np.ndarray) -> np.ndarray:
        """[B, S, S, 3] uint8 to [B, 3, S, S] float32, as the tower takes them."""
        scale, shift = self.preprocess.scale_and_shift
        return (pixels.astype(np.float32) * scale - shift).transpose(0, 3, 1, 2)

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a graph by name, from those of the inputs that it takes."""
        session = self._sessions.get(name) or self._opened(name)
        ports = session.get_inputs()
        if unknown := [port.name for port in ports if port.name not in inputs]:
            raise WeightsError(
                f"{self.graphs[name]} must take {', '.join(inputs)} alone. Got {', '.join(unknown)} too: it is another "
                "model's."
            )
        halves = {"tensor(float16)": np.float16}
        given = {
            port.name: np.ascontiguousarray(inputs[port.name].astype(halves[port.type]))
            if port.type in halves
            else np.ascontiguousarray(inputs[port.name])
            for port in ports
        }
        outputs = [port.name for port in session.get_outputs()]
        return dict(zip(outputs, session.run(None, given), strict=True))

    @functools.cached_property
    def _sessions(self) -> dict[str, Any]:
        return {}

    def _opened(self, name: str) -> Any:
        self._sessions[name] = open_session(self.graphs[name], device=self.device)
        return self._sessions[name]

    def _ports(self, name: str) -> Sequence[Any]:
        return (self._sessions.get(name) or self._opened(name)).get_inputs()

    def _features(self, found: dict[str, np.ndarray], of: str) -> np.ndarray:
        # A tower of SigLIP has no projection, and its graph gives what it pools.
        names = (f"{of}_embeds", *(("pooler_output",) if self.model_type == "siglip" else ()))
        name = next((name for name in names if name in found), None)
        if name is None:
            raise WeightsError(
                f"the {of} graph of {self.folder} must give {names[0]}, which are in the space of both towers. Got "
                f"{', '.join(found)}. Export the model with its projection."
            )
        features = unit_length(found[name])
        if not np.isfinite(features).all():
            raise WeightsError(f"{of} features must be finite numbers, and some are not. Export the model again.")
        return features


def graphs_in(folder: Path) -> dict[str, Path]:
    """The graphs of a folder by what they are of; of each the one in float32, else that in float16."""
    found: dict[str, Path] = {}
    for place in (folder / "onnx", folder):
        for name in (_IMAGE, _TEXT, _BOTH):
            for ending in ("", _HALF):
                path = place / f"{name}{ending}.onnx"
                if name not in found and path.is_file():
                    found[name] = path
    return found


def _chessboard(side: int) -> np.ndarray:
    """[1, S, S, 3] uint8: a picture for a graph that wants one."""
    y, x = np.mgrid[:side, :side]
    return np.repeat(((x // 4 + y // 4) % 2 * 255).astype(np.uint8)[None, :, :, None], 3, axis=3)
