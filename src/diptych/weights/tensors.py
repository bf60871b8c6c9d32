"""Named tensors from the files that weights are published in; no code of a file is ever run.

Values are mapped from the file, not read, wherever its layout allows: what nobody looks at costs no memory.
"""

import collections
import io
import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diptych.errors import WeightsError
from diptych.weights.inert import CodeError, load_inert
from diptych.weights.state_dict import find_state_dict

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = ".index.json"
_AGAIN = "Copy or download it again."


class TensorFile(NamedTuple):
    """What a file of tensors holds."""

    tensors: dict[str, Tensor]
    is_archive: bool  # a TorchScript archive, which is how OpenAI published CLIP
    beside: tuple[str, ...] = ()  # names of tensors beside the model's, which those of a larger one are


def read_tensors(path: Path, *, state_dict: str | None = None) -> TensorFile:
    """All tensors of a `.safetensors` file, a PyTorch pickle, a TorchScript archive, or a file split in parts.

    Args:
        path: the file; of a split one, its `*.index.json`.
        state_dict: which of several models in it is meant; see `find_state_dict`.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or holds code; or it holds no state dict, or
            several and none of them is chosen.
    """
    data, is_archive = _read(path)
    tensors = find_state_dict(data, path, chosen=state_dict)
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(f"{path} must hold all values of {name}, and repeats a few. It is not to be trusted.")
    taken = set(map(id, tensors.values()))
    beside = (name for name, value in data.items() if isinstance(value, Tensor) and id(value) not in taken)
    return TensorFile(tensors, is_archive, tuple(beside))


def _read(path: Path) -> tuple[Any, bool]:
    if not path.is_file():
        raise WeightsError(f"{path} must be a file of weights, and there is none.")
    if path.name.endswith(_INDEX):
        return _read_parts(path), False
    if path.suffix == ".safetensors":
        return _read_safetensors(path), False
    if path.suffix not in PICKLES:
        endings = ", ".join((".safetensors", *PICKLES))
        raise WeightsError(f"weights must be in a file with one of the endings {endings}. Got {path}.")
    if _is_archive(path):
        return _read_archive(path), True
    return _read_pickle(path), False


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. {_AGAIN}") from error


def _read_parts(index: Path) -> dict[str, Tensor]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        parts = sorted(set(places.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} must tell which file each tensor is in ({error!r}). {_AGAIN}") from error
    tensors: dict[str, Tensor] = {}
    for part in parts:
        if not isinstance(part, str) or Path(part).name != part or part.endswith(_INDEX):
            raise WeightsError(f"{index} must name files beside it. Got {part!r}: it is not to be trusted.")
        data, _ = _read(index.with_name(part))
        tensors |= data
    return tensors


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols that torch itself does not write; they load, or raise
            return load_inert(path)
    except CodeError as error:
        raise WeightsError(
            f"{path} must hold tensors alone, and holds {error}, which is code. Nothing of it was run. "
            "Ask for .safetensors."
        ) from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} must hold tensors alone, and holds no pickle of PyTorch's. Nothing of it was run. "
            "Ask for .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle makes torch raise anything
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path} cannot be read: {why}. {_AGAIN}") from error


def _is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive.

    Raises:
        WeightsError: it is a zip file whose records are larger than itself.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            read = [info.file_size for info in file.infolist() if not re.match(r"[^/]+/code/", info.filename)]
            if sum(read) > (size := path.stat().st_size):
                raise WeightsError(
                    f"{path} must hold its tensors as they are, and unpacks {size:,} bytes to {sum(read):,}. It is not "
                    "to be trusted."
                )
            return any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in file.namelist())
    except WeightsError:
        raise
    except Exception as error:  # so does a damaged table of contents make zipfile
        raise WeightsError(f"{path} cannot be read: {error}. {_AGAIN}") from error


class _Inert:
    """Stands for an object of an archive's own classes: it keeps attributes and does nothing."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArchiveReader(pickle.Unpickler):
    """Reads the object tree of a TorchScript archive; all that it may call is in `_known`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self._folder, self._archive = folder, archive
        nbytes = path.stat().st_size
        self._whole = torch.empty(0, dtype=torch.uint8)
        self._whole.set_(torch.UntypedStorage.from_file(str(path), shared=False, nbytes=nbytes))  # pyright: ignore[reportArgumentType]
        self.file = path.open("rb")
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): lambda values: values
                for kind in ("int", "double", "bool", "tensor")
            },
            **{("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Inert
        if (module, name) in self._known:
            return self._known[module, name]
        raise CodeError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """[numel], the values of one storage, mapped."""
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"a reference of an unknown kind, {kind!r}")
        info = self._archive.getinfo(f"{self._folder}/data/{key}")
        self.file.seek(info.header_offset + 26)  # of the local header: where the lengths of name and extra field are
        lengths = self.file.read(4)
        start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        end = start + numel * dtype.itemsize
        if (
            info.compress_type != zipfile.ZIP_STORED
            or numel * dtype.itemsize > info.file_size
            or end > len(self._whole)
        ):
            raise ValueError(f"record {key} is compressed or cut short")
        values = self._whole[start:end]
        return (values if start % dtype.itemsize == 0 else values.clone()).view(dtype)


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Bool": torch.bool,
    "Byte": torch.uint8,
}


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if offset < 0 or min((*size, *stride), default=0) < 0 or (math.prod(size) and last >= len(storage)):
        raise ValueError("a tensor reaches beyond its storage")
    return storage[offset:].as_strided(size, stride)


def _read_archive(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            (entry,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
            reader = _ArchiveReader(path, archive, entry.split("/")[0])
            with reader.file:
                tensors = dict(_named(reader.load(), ""))
    except CodeError as error:
        raise WeightsError(
            f"{path} must hold tensors alone, and asks for {error}, which is code. Nothing of it was run."
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise WeightsError(f"{path} is no TorchScript archive that can be read: {error!r}. {_AGAIN}") from error
    if not tensors:
        raise WeightsError(f"{path} must hold a model's tensors, and holds none.")
    return tensors


def _named(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, _Inert) and isinstance(node.state, dict):
        for attribute, value in node.state.items():
            yield from _named(value, f"{name}.{attribute}" if name else str(attribute))
