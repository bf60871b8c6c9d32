"""Named tensors from the files that JAX programs write: flax's `.msgpack` and NumPy's `.npz`. Nothing in them is run.

Layout of flax's files: flax 0.8, `flax/serialization.py`. An array is an extension of MessagePack (type 1; a single
number type 3) that holds shape, dtype and bytes; one of 1 GiB and more is a map of parts.
"""

import math
import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
_ARRAY, _SCALAR = 1, 3
_PARTS = "__msgpack_chunked_array__"
_DEEPEST = 50  # maps in maps
_MOST_GROWTH = 4  # times that arrays may be larger than the file that they are compressed in: floats hardly shrink


def read_msgpack(path: Path) -> dict[str, Tensor]:
    """The arrays of a flax file, mapped, under the names of their maps with dots between.

    Raises:
        ValueError: it is damaged, or no flax file.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError("it is empty")
    whole = torch.empty(0, dtype=torch.uint8)
    whole.set_(torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size))  # pyright: ignore[reportArgumentType]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            reader = _Reader(data, whole)
            tree = reader.value()
            if reader.at != size:
                raise ValueError("something follows its end")
        except (struct.error, IndexError, RecursionError) as error:
            raise ValueError("it is cut short, or no MessagePack") from error
    return dict(_flat(tree, ""))


def as_torch_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of flax's layers as torch's have them: kernels turned round, and all of them called weight."""
    tensors = {name.removeprefix("params."): tensor for name, tensor in tensors.items()}
    return dict(_as_torch(name, tensor) for name, tensor in tensors.items())


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an `.npz` file, in memory.

    Raises:
        ValueError: it is damaged, holds objects, or unpacks to much more than itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > _MOST_GROWTH * path.stat().st_size + 2**20:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, and is not to be trusted")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _as_tensor(arrays[name]) for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, TypeError, SyntaxError, RuntimeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _as_tensor(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # how NumPy keeps a bfloat16, of which it does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _as_torch(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    layer, _, kind = name.rpartition(".")
    if kind not in ("kernel", "scale", "embedding") or not layer:
        return name, tensor
    if kind == "kernel":
        tensor = tensor.permute(tensor.ndim - 1, tensor.ndim - 2, *range(tensor.ndim - 2))  # [..., I, O] -> [O, I, ...]
    return f"{layer}.weight", tensor


class _Part(NamedTuple):
    """Bytes of the file."""

    start: int
    end: int


class _Reader:
    """Reads MessagePack from `at` on; strings and numbers as they are, bytes as places in the file."""

    def __init__(self, data: Any, whole: Tensor, at: int = 0, end: int | None = None) -> None:
        self._data, self._whole, self.at = data, whole, at
        self._end = len(whole) if end is None else end

    def value(self, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError("its maps are too deep")
        (first,) = self._take("B")
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first < 0x90:
            return self._map(first & 0x0F, depth)
        if first < 0xA0:
            return [self.value(depth + 1) for _ in range(first & 0x0F)]
        if first < 0xC0:
            return self._text(first & 0x1F)
        return self._long(first, depth)

    def _long(self, first: int, depth: int) -> Any:
        constants = {0xC0: None, 0xC2: False, 0xC3: True}
        numbers = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
        if first in constants:
            return constants[first]
        if first in numbers:
            return self._take(numbers[first])[0]
        if 0xD4 <= first <= 0xD8:
            return self._extension(2 ** (first - 0xD4))
        lengths = {0xC4: "BHI", 0xC7: "BHI", 0xD9: "BHI", 0xDC: "HI", 0xDE: "HI"}
        base = max((start for start in lengths if start <= first), default=0)
        if not base or first - base >= len(lengths[base]):
            raise ValueError("it is no MessagePack")
        (count,) = self._take(lengths[base][first - base])
        if base == 0xDC:
            return [self.value(depth + 1) for _ in range(count)]
        reads = {0xC4: self._bytes, 0xC7: self._extension, 0xD9: self._text}
        return self._map(count, depth) if base == 0xDE else reads[base](count)

    def _take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(">" + form)
        return struct.unpack(">" + form, self._data[slice(*self._bytes(size))])

    def _bytes(self, count: int) -> _Part:
        part = _Part(self.at, self.at + count)
        if part.end > self._end:
            raise IndexError
        self.at = part.end
        return part

    def _text(self, count: int) -> str:
        return self._data[slice(*self._bytes(count))].decode()

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        return {str(self.value(depth + 1)): self.value(depth + 1) for _ in range(count)}

    def _extension(self, count: int) -> Tensor:
        (kind,) = self._take("b")
        part = self._bytes(count)
        if kind not in (_ARRAY, _SCALAR):
            raise ValueError(f"it holds an extension of the unknown type {kind}")
        match _Reader(self._data, self._whole, part.start, part.end).value():
            case [list() as shape, str() | _Part() as dtype, _Part() as values]:
                name = dtype if isinstance(dtype, str) else self._data[slice(*dtype)].decode()
                return self._array(shape, name, values)
        raise ValueError("it holds an array that flax did not write")

    def _array(self, shape: list[Any], dtype: str, part: _Part) -> Tensor:
        kind = _DTYPES.get(dtype)
        if kind is None:
            raise ValueError(f"it holds an array of the unknown type {dtype[:40]!r}")
        sizes_fit = all(isinstance(size, int) and size >= 0 for size in shape)
        if not sizes_fit or math.prod(shape) * kind.itemsize != part.end - part.start:
            raise ValueError(f"an array of {shape} {dtype} has {part.end - part.start:,} bytes")
        values = self._whole[part.start : part.end]
        return (values if part.start % kind.itemsize == 0 else values.clone()).view(kind).reshape(shape)


def _flat(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, dict) and _PARTS in node:
        parts, sizes = (list((node.get(key) or {}).values()) for key in ("chunks", "shape"))
        yield name, torch.cat([part.flatten() for part in parts]).reshape(sizes)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{name}.{key}" if name else key)
