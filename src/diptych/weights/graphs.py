"""The graphs of a model: what they are called in a bundle's folder, and what a reader must know before it opens one."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from diptych.config import from_dict
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256

GRAPHS, IMAGE_GRAPH, TEXT_GRAPH = "graphs.json", "image.onnx", "text.onnx"
FORMAT_VERSION = 1
_SLICES, _SLICE = 64, 1024  # of a file of weights: how many are looked at, bytes each


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The file that graphs point into."""

    name: str  # beside them
    size: int  # bytes
    sha256: str
    sample: str  # see `sampled`


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The content of `graphs.json`: facts of a model, and of the files that compute it.

    Raises:
        ConfigError: the file of weights is not beside the graphs.
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
        raise WeightsError(f"{path} must tell of a model's graphs: {error}. Export the model again.") from error


def check_graph(folder: Path, graphs: Graphs, name: str) -> Path:
    """The path of a graph, or what is wrong with it or with the weights that it points into.

    The weights are looked at in part, which tells another model's and a file that was cut off, and costs a millisecond;
    the golden features tell the rest.

    Raises:
        WeightsError: a file is missing, or not the one that was written.
    """
    path, weights = folder / name, folder / graphs.weights.name if graphs.weights else None
    for file in (path, weights):
        if file and not file.is_file():
            raise WeightsError(f"{folder} must hold {file.name}, and has none. Copy or export the model again.")
    if sha256(path) != graphs.sha256.get(name):
        raise WeightsError(f"{path} must be the graph that was exported, and its SHA-256 differs. Export it again.")
    asked = graphs.weights
    if weights and asked and (weights.stat().st_size, sampled(weights)) != (asked.size, asked.sample):
        raise WeightsError(
            f"{weights} must be the file that the graphs of {folder} were exported for, and is another. "
            "Export the model again."
        )
    return path


def sampled(path: Path) -> str:
    """SHA-256 of parts of a file: 64 pieces of 1,024 bytes, evenly spread, its beginning and its end among them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        last = max(_size(file) - _SLICE, 0)
        for number in range(_SLICES):
            file.seek(last * number // (_SLICES - 1))
            digest.update(file.read(_SLICE))
    return digest.hexdigest()


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)
