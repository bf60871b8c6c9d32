"""Both towers of a model as ONNX graphs: of any batch, of any length of text that the tower takes.

A graph holds its parameters under our names, untouched: nothing that was computed from a weight is stored, so that the
values may lie elsewhere (`diptych.export.one_file`) and may be others. Engines fold what is constant when they open it.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.data.images import Preprocess
from diptych.errors import ConfigError, MissingExtraError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.version import __version__

if TYPE_CHECKING:
    import onnx_ir

OPSET = 20  # the first with Gelu; of September 2023
_IR_VERSION = 10  # of onnx 1.16: engines since onnxruntime 1.18 read it
_EXAMPLES = 2  # of a batch that is traced; 1 would be taken for a constant


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What goes into a graph and comes out of it.

    Both towers of a form give features [B, D] float32. `text_input` takes tokens [B, L] int64.
    """

    image_input: str
    image_output: str
    text_input: str
    text_output: str
    takes_bytes: bool  # pictures are [B, S, S, 3] uint8 as `Preprocess.pixels` gives them; else [B, 3, S, S] normalised
    unit_length: bool


NATIVE = Ports(
    image_input="pixels",
    image_output="image_features",
    text_input="tokens",
    text_output="text_features",
    takes_bytes=True,
    unit_length=True,
)


def image_graph(model: CLIP, preprocess: Preprocess, ports: Ports) -> "onnx_ir.Model":
    """The image tower as a graph.

    Args:
        model: in eval mode, on the CPU; one in float16 gives a graph that computes in it, and takes and gives float32.
        preprocess: of the same model.
        ports: see `Ports`. Pictures of a NaFlex tower are rows, [B, N, 2 + 3 p^2], N of any number.

    Raises:
        ConfigError: the tower comes from outside the package.
        MissingExtraError: the extra for export is not installed.
    """
    config = model.config.image
    shape: tuple[int, ...] = (_EXAMPLES, *preprocess.shape)
    if not ports.takes_bytes and not config.row_width:
        shape = (_EXAMPLES, 3, *preprocess.shape[:2])
    pixels = torch.zeros(shape, dtype=torch.uint8 if ports.takes_bytes else torch.float32)
    free = {0: "batch", 1: "patches"} if config.row_width else {0: "batch"}
    normalise = _Normalise(preprocess) if ports.takes_bytes else nn.Identity()
    tower = _Tower(normalise, model.image, unit_length=ports.unit_length)
    return _graph(tower, pixels, free, "image", model.config, (ports.image_input, ports.image_output))


def text_graph(model: CLIP, ports: Ports) -> "onnx_ir.Model":
    """The text tower as a graph; see `image_graph`. The length is free unless the tower reads the padding."""
    config = model.config.text
    length = config.context_length
    is_free = not config.reads_padding and length > _EXAMPLES
    tokens = torch.ones(_EXAMPLES, length - 1 if is_free else length, dtype=torch.int64)
    free = {0: "batch", 1: "length"} if is_free else {0: "batch"}
    tower = _Tower(nn.Identity(), model.text, unit_length=ports.unit_length)
    return _graph(tower, tokens, free, "text", model.config, (ports.text_input, ports.text_output))


def to_bytes(model: "onnx_ir.Model") -> bytes:
    """A graph as the content of a file; what lies in another one stays there."""
    import onnx_ir

    return onnx_ir.to_proto(model).SerializeToString(deterministic=True)


class _Normalise(nn.Module):
    """`Preprocess.normalise` as a part of a graph."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        std = np.array(preprocess.std)
        scale = (1 / (255 * std)).astype(np.float32)
        shift = (np.array(preprocess.mean) / std).astype(np.float32)
        self.patch_size = preprocess.patch_size
        if self.patch_size:  # the place of a patch stays as it is
            place = preprocess.row_width - 3 * self.patch_size**2
            scale = np.concatenate([np.ones(place, np.float32), np.tile(scale, self.patch_size**2)])
            shift = np.concatenate([np.zeros(place, np.float32), np.tile(shift, self.patch_size**2)])
        else:
            scale, shift = scale[:, None, None], shift[:, None, None]
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("shift", torch.from_numpy(shift))
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, batch: Tensor) -> Tensor:
        """[B, S, S, 3] uint8 to [B, 3, S, S] float32; or rows to rows."""
        batch = batch if self.patch_size else batch.permute(0, 3, 1, 2)
        return batch.float() * self.scale - self.shift


class _Tower(nn.Module):
    """A tower with what comes before and behind it."""

    def __init__(self, normalise: nn.Module, tower: nn.Module, *, unit_length: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.tower = tower
        self.unit_length = unit_length

    def forward(self, batch: Tensor) -> Tensor:
        batch = self.normalise(batch)
        if batch.is_floating_point():
            batch = batch.to(next(self.tower.parameters()).dtype)
        features = self.tower(batch).float()
        return F.normalize(features, dim=-1) if self.unit_length else features


def _graph(
    tower: nn.Module, example: Tensor, free: Mapping[int, str], name: str, config: CLIPConfig, ports: tuple[str, str]
) -> "onnx_ir.Model":
    kind = getattr(config, name).kind
    if ":" in kind:
        raise ConfigError(
            f"only the package's own towers can be exported, and the {name} tower {kind} comes from outside of it. "
            "Export it with torch.onnx.export."
        )
    with _quiet(), torch.no_grad():
        program = _exported(tower.eval(), example, free)
    model = program.model
    for parameter in list(model.graph.initializers.values()):
        assert parameter.name is not None
        parameter.name = parameter.name.replace("tower.", f"{name}.", 1)
    _simplify(model)
    _name(model, name, free, ports)
    return model


def _exported(tower: nn.Module, example: Tensor, free: Mapping[int, str]) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("export needs an extra: pip install 'diptych[export]'.") from error
    return torch.onnx.export(
        tower,
        (example,),
        dynamo=True,
        optimize=False,  # it would fold weights into others
        opset_version=OPSET,
        dynamic_shapes=(dict.fromkeys(free, torch.export.Dim.DYNAMIC),),  # one that is not free raises
        verbose=False,
    )


def _simplify(model: "onnx_ir.Model") -> None:
    """Compute what depends on no weight, and leave out what nobody reads."""
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer._constant_folding import FoldConstantsPass

    weights = set(model.graph.initializers)

    def may_fold(node: "onnx_ir.Node") -> bool | None:
        return False if any(value is not None and value.name in weights for value in node.inputs) else None

    passes.InlinePass()(model)
    fold = FoldConstantsPass(
        shape_inference=True, input_size_limit=100_000, output_size_limit=100_000, should_fold=may_fold
    )
    for _ in range(2):
        fold(model)
        passes.RemoveUnusedNodesPass()(model)
        passes.CommonSubexpressionEliminationPass()(model)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)


def _name(model: "onnx_ir.Model", name: str, free: Mapping[int, str], ports: tuple[str, str]) -> None:
    """Short names within, plain ones at the doors; no shapes of what lies between."""
    import onnx_ir

    graph = model.graph
    entry, features = graph.inputs[0], graph.outputs[0]
    values = [value for node in graph for value in node.outputs]
    for node in graph:
        node.name = ""
    for number, value in enumerate(values):
        value.name = f"v{number}"
        if value is not features:
            value.shape = value.type = None
    entry.name, features.name = ports
    assert entry.shape is not None
    assert features.shape is not None
    entry.shape = onnx_ir.Shape([free.get(place, size) for place, size in enumerate(entry.shape)])
    features.shape = onnx_ir.Shape(["batch", features.shape[1]])
    graph.name = name
    model.producer_name, model.producer_version = "diptych", __version__
    model.ir_version = _IR_VERSION


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch says of its own insides and of what is not installed is of no use here."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
