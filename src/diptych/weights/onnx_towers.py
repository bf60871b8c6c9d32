"""The towers of a model from their graphs, in onnxruntime or OpenVINO. Nothing here needs torch."""

import contextlib
import ctypes
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from diptych.config import unknown_name
from diptych.errors import ConfigError, MissingExtraError, ShapeError, WeightsError
from diptych.weights.graphs import GRAPHS, IMAGE_GRAPH, TEXT_GRAPH, check_graph, check_weights, read_graphs

# What onnxruntime calls those who compute, by our name for the device.
PROVIDERS = {"cuda": "CUDAExecutionProvider", "coreml": "CoreMLExecutionProvider", "directml": "DmlExecutionProvider"}
_PROCESSOR = "CPUExecutionProvider"
_WHEELS = {"cuda": "onnxruntime-gpu", "coreml": "onnxruntime, on a Mac", "directml": "onnxruntime-directml, on Windows"}
_MMAP_THRESHOLD = -3  # of glibc's mallopt
_FATAL = 4  # what onnxruntime says aloud; all else comes as an exception


class OnnxTowers:
    """Both towers of a folder with graphs; each is opened with its first batch, as a search by words needs but one.

    Args:
        folder: with graphs.json, image.onnx, text.onnx, and the weights that they point into.
        engine: who computes.
        device: "auto" is CUDA where the engine has it, else the processor; "cpu"; of onnxruntime also "cuda", "cuda:1",
            "coreml" and "directml"; of OpenVINO "gpu" and "npu".
        threads: of one batch; 0 is a thread for each core.
        for_few: of onnxruntime, the factors of 8-bit weights are multiplied in with each batch, so that the first
            answer comes sooner; else once, so that each later one does.

    Raises:
        ConfigError: the engine does not have the device here.
        MissingExtraError: the engine is not installed.
        WeightsError: graphs.json is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: Literal["onnx", "openvino"] = "onnx",
        device: str = "auto",
        threads: int = 0,
        for_few: bool = False,
    ) -> None:
        self.folder = folder
        self.graphs = read_graphs(folder / GRAPHS)
        self._has_its_weights = False  # which is looked at once, for both towers
        if engine == "openvino":
            self._open = functools.partial(_open_in_openvino, _openvino(), _openvino_device(device), threads)
        else:
            of = (device, _provider(device), threads, for_few or self.graphs.computes == "int8")
            self._open = functools.partial(_open_in_onnxruntime, _onnxruntime(), *of)

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.graphs.embed_dim

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Encode pictures.

        Args:
            pixels: uint8, stacked from `Preprocess.pixels`: [B, S, S, 3], or of a NaFlex tower [B, N, 2 + 3 p^2].

        Returns:
            [B, D] float32, unit length.

        Raises:
            ShapeError: the pixels are of another size or type.
            WeightsError: the graph or the weights are damaged, or not of one model.
        """
        side, row_width = self.graphs.image_size, self.graphs.row_width
        fits = pixels.ndim == 3 and pixels.shape[2] == row_width if row_width else pixels.shape[1:] == (side, side, 3)
        if not fits or pixels.dtype != np.uint8:
            expected = f"[B, N, {row_width}]" if row_width else f"[B, {side}, {side}, 3]"
            raise ShapeError(f"pixels must be {expected} uint8. Got {list(pixels.shape)} {pixels.dtype}.")
        return self._features(self._image, pixels)

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; all of it where the tower reads the padding.

        Returns:
            [B, D] float32, unit length.

        Raises:
            ShapeError: the tokens are of another length or type.
            WeightsError: the graph or the weights are damaged, or not of one model.
        """
        longest = self.graphs.context_length
        shortest = longest if self.graphs.reads_padding else 1
        if tokens.ndim != 2 or not shortest <= tokens.shape[1] <= longest or tokens.dtype != np.int64:
            raise ShapeError(
                f"tokens must be [B, L] int64, L from {shortest} to {longest}. "
                f"Got {list(tokens.shape)} {tokens.dtype}. The model's tokenizer makes them so."
            )
        return self._features(self._text, tokens)

    def _features(self, tower: Callable[[np.ndarray], np.ndarray], batch: np.ndarray) -> np.ndarray:
        if not len(batch):
            return np.empty((0, self.embed_dim), np.float32)
        return tower(batch)

    @functools.cached_property
    def _image(self) -> Callable[[np.ndarray], np.ndarray]:
        return self._tower(IMAGE_GRAPH)

    @functools.cached_property
    def _text(self) -> Callable[[np.ndarray], np.ndarray]:
        return self._tower(TEXT_GRAPH)

    def _tower(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        path = check_graph(self.folder, self.graphs, name)
        if not self._has_its_weights:
            check_weights(self.folder, self.graphs)
            self._has_its_weights = True
        return self._open(path)


def devices_here() -> tuple[str, ...]:
    """What onnxruntime computes on here, by our names."""
    available = _onnxruntime().get_available_providers()
    return ("cpu", *(name for name, provider in PROVIDERS.items() if provider in available))


def open_session(path: Path, *, device: str) -> Any:
    """A graph of anyone's in onnxruntime, an `InferenceSession`.

    Args:
        path: to it.
        device: as `OnnxTowers` takes it.

    Raises:
        ConfigError: onnxruntime does not have the device here.
        MissingExtraError: it is not installed.
        WeightsError: the graph is damaged, or the file that its weights are in is missing.
    """
    return _session(_onnxruntime(), device, _provider(device), 0, False, path)


def _open_in_onnxruntime(
    onnxruntime: ModuleType, device: str, provider: str, threads: int, keeps_integers: bool, path: Path
) -> Callable[[np.ndarray], np.ndarray]:
    session = _session(onnxruntime, device, provider, threads, keeps_integers, path)
    (port,) = session.get_inputs()
    return lambda batch: session.run(None, {port.name: batch})[0]


def _session(
    onnxruntime: ModuleType, device: str, provider: str, threads: int, keeps_integers: bool, path: Path
) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL
    if not keeps_integers:  # factors of 8-bit weights are multiplied in once, not with each batch
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    chosen: list[Any] = [_PROCESSOR]
    if provider != _PROCESSOR:
        number = device.partition(":")[2]
        chosen = [(provider, {"device_id": number} if number else {}), _PROCESSOR]
    # Threads that wait for work by looking for it take the processor from decoding, and from whoever else is there.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with _room_given_back():
            session = onnxruntime.InferenceSession(path, options, providers=chosen)
    except Exception as error:  # it has a class for each kind, below Exception
        raise _not_opened(path, error) from error
    if device != "auto" and session.get_providers()[0] != provider:
        raise ConfigError(f"device {device} must be there, and onnxruntime found none. Choose device cpu.")
    return session


@contextlib.contextmanager
def _room_given_back() -> Iterator[None]:
    """While a graph is opened its weights are laid out anew several times, and glibc would keep the room of each copy.

    Blocks of 256 KB and more go back to the system as they are let go of, and afterwards those of 32 MB, glibc's most.
    """
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_limit is None:
        yield
        return
    set_limit(_MMAP_THRESHOLD, 2**18)
    try:
        yield
    finally:
        set_limit(_MMAP_THRESHOLD, 2**25)


def _open_in_openvino(
    openvino: ModuleType, device: str, threads: int, path: Path
) -> Callable[[np.ndarray], np.ndarray]:
    # It would take bfloat16 where the processor has it, and round what it multiplies with 8-bit weights to 8 bits.
    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = openvino.Core().compile_model(path, device, hints)
    except RuntimeError as error:
        raise _not_opened(path, error) from error
    # A request of its own for each batch: several threads may ask at once.
    return lambda batch: compiled.create_infer_request().infer([batch])[0]


def _not_opened(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return WeightsError(f"{path} cannot be opened: {reason}. Export the model again, or choose engine torch.")


def _provider(device: str) -> str:
    available = _onnxruntime().get_available_providers()
    if device == "cpu":
        return _PROCESSOR
    if device == "auto":
        return PROVIDERS["cuda"] if PROVIDERS["cuda"] in available else _PROCESSOR
    name, _, number = device.partition(":")
    if name not in PROVIDERS or (number and not number.isdecimal()):
        raise ConfigError(unknown_name(device, "", ("auto", "cpu", *PROVIDERS), "a device of onnxruntime"))
    if PROVIDERS[name] not in available:
        raise ConfigError(
            f"device {device} needs another build of onnxruntime: pip install {_WHEELS[name]}. "
            f"This one has {', '.join(sorted(available))}."
        )
    return PROVIDERS[name]


def _openvino_device(device: str) -> str:
    if device not in ("auto", "cpu", "gpu", "npu"):
        raise ConfigError(unknown_name(device, "", ("auto", "cpu", "gpu", "npu"), "a device of OpenVINO"))
    name = "CPU" if device == "auto" else device.upper()
    available = _openvino().Core().available_devices
    if not any(each.partition(".")[0] == name for each in available):
        raise ConfigError(f"device {device} must be there, and OpenVINO found {', '.join(available)}. Choose cpu.")
    return name


def _onnxruntime() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("engine onnx needs onnxruntime: pip install onnxruntime.") from error


def _openvino() -> ModuleType:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError("engine openvino needs an extra: pip install 'diptych[openvino]'.") from error
