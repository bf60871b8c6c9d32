"""The graphs of a model: what they are called in a bundle's folder, and what a reader must know before it opens one."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.config import from_dict
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256

GRAPHS, IMAGE_GRAPH, TEXT_GRAPH = "graphs.json", "image.onnx", "text.onnx"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The file that graphs point into."""

    name: str  # beside them
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The content of `graphs.json`: facts of a model, and of the files that compute it.

    Raises:
        ConfigError: the file of weights is not beside the graphs, or a number cannot be.
    """

    version: int = FORMAT_VERSION
    embed_dim: int  # D
    head: Literal["softmax", "sigmoid"]
    logit_scale: float  # the factor on cosines
    logit_bias: float | None = None  # of a sigmoid head
    image_size: int  # S, pixels of one side
    row_width: int  # numbers of a patch's row, where pictures come as such; else 0
    context_length: int  # L, tokens
    reads_padding: bool  # whether texts must be padded to all of it
    golden_texts: tuple[str, ...]
    fingerprint: str  # of the bundle
    dtype: str  # what the weights are stored as
    computes: Literal["float32", "int8"] = "float32"  # in int8 the products are, see `diptych.export.quantise`
    opset: int
    producer: str
    one_at_a_time: tuple[Literal["image", "text"], ...] = ()  # towers whose scales are found for each batch anew
    sha256: dict[str, str]  # of the graphs, by file name
    weights: WeightsFile | None = None  # None where the graphs hold their weights themselves

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.image_size, self.context_length) < 1 or self.row_width < 0:
            sizes = (self.embed_dim, self.image_size, self.context_length, self.row_width)
            raise ConfigError(f"embed_dim, image_size and context_length must be at least 1, row_width 0. Got {sizes}.")
        if not (math.isfinite(self.logit_scale) and math.isfinite(self.logit_bias or 0.0)):
            raise ConfigError(f"logits need finite numbers. Got {self.logit_scale} and {self.logit_bias}.")
        if self.weights and Path(self.weights.name).name != self.weights.name:
            raise ConfigError(f"weights.name must be that of a file beside the graphs. Got {self.weights.name!r}.")


def read_graphs(path: Path) -> Graphs:
    """The content of a `graphs.json`.

    Raises:
        WeightsError: it is missing, damaged or of a later format.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain["version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise WeightsError(
                f"{path} has format {version}; this diptych reads up to {FORMAT_VERSION}. Update diptych."
            )
        return from_dict(Graphs, plain)
    except FileNotFoundError:
        raise WeightsError(
            f"{path.parent} must hold {path.name}, and has none. diptych export writes a model with its graphs."
        ) from None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, ConfigError) as error:
        reason = str(error).rstrip(".")
        raise WeightsError(f"{path} must tell of a model's graphs: {reason}. Export the model again.") from error


def check_graph(folder: Path, graphs: Graphs, name: str) -> Path:
    """The path of a graph that is the one which was written.

    Raises:
        WeightsError: it is missing, or another.
    """
    path = folder / name
    _check_there(path)
    if sha256(path) != graphs.sha256.get(name):
        raise WeightsError(f"{path} must be the graph that was exported, and its SHA-256 differs. Export it again.")
    return path


def check_weights(folder: Path, graphs: Graphs) -> None:
    """Refuse a file of weights that is not the one which graphs point into, down to the bit.

    Raises:
        WeightsError: it is missing, or another.
    """
    if graphs.weights is None:
        return
    weights = folder / graphs.weights.name
    _check_there(weights)
    if (weights.stat().st_size, sha256(weights)) != (graphs.weights.size, graphs.weights.sha256):
        raise WeightsError(
            f"{weights} must be the file that the graphs of {folder} were exported for, and is another. "
            "Export the model again."
        )


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise WeightsError(f"{file.parent} must hold {file.name}, and has none. Copy or export the model again.")
