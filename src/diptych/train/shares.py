"""Tensors of a checkpoint that all processes write and read together, each its own share, by torch's distributed
checkpoints (DCP): no process holds the whole of them, and training goes on while they are written.
"""

import contextlib
import io
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor

from diptych.errors import WeightsError
from diptych.files import sha256
from diptych.train.distributed import Ranks

_INDEX = ".metadata"  # DCP's name for the list of what lies where
# All that a list of tensors is made of.
_HARMLESS = {
    "torch.distributed.checkpoint.metadata": r"Metadata|TensorStorageMetadata|TensorProperties|_MEM_FORMAT_ENCODING"
    r"|ChunkStorageMetadata|MetadataIndex|StorageMeta",
    "torch.distributed.checkpoint.filesystem": r"_StorageInfo",
    "torch.serialization": r"_get_layout",
    "torch": r"Size|b?float\d+|u?int\d+|bool",
    "pathlib": r"(Posix|Windows)Path",
    "pathlib._local": r"(Posix|Windows)Path",
}


class SharesWriter(FileSystemWriter):
    """DCP's writer, which notes the SHA-256 of the files that this process wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, overwrite=False)
        self._folder = folder
        self.digests: dict[str, str] = {}  # by name

    def write_data(self, plan: Any, planner: Any) -> Any:
        """Called by DCP, beside the training."""
        written = super().write_data(plan, planner)
        names = {result.storage_data.relative_path for result in written.wait()}
        self.digests |= {name: sha256(self._folder / name) for name in sorted(names)}
        return written

    def finish(self, metadata: Metadata, results: Any) -> None:
        """Called by DCP in the first process, when all have written."""
        super().finish(metadata, results)
        self.digests[_INDEX] = sha256(self._folder / _INDEX)


def start_writing(
    tensors: Mapping[str, Tensor], writer: SharesWriter, ranks: Ranks, group: dist.ProcessGroup
) -> Future[Any]:
    """Copy what this process is to write, and write it beside what comes next. To be called by all.

    Args:
        tensors: by name, the same names in all processes; shares of one tensor, or the same whole one in all.
        writer: for one folder, the same in all.
        ranks: the processes, several.
        group: in which nothing else talks meanwhile.

    Returns:
        Done when all processes have written.
    """
    part = own_part(tensors, ranks)
    return cast("Future[Any]", async_save(part, storage_writer=writer, process_group=group))


def own_part(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """What one process writes: its share of what is shared, and of whole tensors about as many bytes as the others."""
    bytes_of = [0] * ranks.count
    own = {}
    for name, value in sorted(tensors.items(), key=lambda item: (-item[1].nbytes, item[0])):
        if isinstance(value, DTensor):
            own[name] = value
            continue
        writer = bytes_of.index(min(bytes_of))
        bytes_of[writer] += value.nbytes
        if writer == ranks.rank:
            own[name] = value
    return own


def read_shares(folder: Path, into: Mapping[str, Tensor], *, optional: tuple[str, ...] = ()) -> None:
    """Fill tensors with what any number of processes wrote; each process reads what it holds. To be called by all.

    Args:
        folder: that `start_writing` filled.
        into: by name, whole or shared among the processes that read.
        optional: endings of names that may be missing, and then stay as they are.

    Raises:
        WeightsError: a tensor is missing or has another shape, or a file cannot be read.
    """
    there = stored_tensors(folder)
    into = {name: value for name, value in into.items() if name in there or not name.endswith(optional)}
    for name, value in into.items():
        if name not in there or there[name][0] != value.shape:
            raise WeightsError(f"{folder} must hold {name} {list(value.shape)}. Is it of another model?")
    with _sentence_for_damage(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one process
        load(dict(into), storage_reader=_SafeReader(folder))


def stored_tensors(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor that processes wrote together.

    Raises:
        WeightsError: see `read_shares`.
    """
    with _sentence_for_damage(folder):
        facts = cast("Mapping[str, Any]", _SafeReader(folder).read_metadata().state_dict_metadata)
        return {name: (one.size, one.properties.dtype) for name, one in facts.items()}


@contextlib.contextmanager
def _sentence_for_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, AttributeError, EOFError, CheckpointException, pickle.UnpicklingError) as error:
        raise WeightsError(f"{folder} must be a whole checkpoint's shares, and cannot be read: {error}") from error


class _SafeReader(FileSystemReader):
    """DCP's reader, but its list of tensors, a pickle, may name nothing that could do harm."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        metadata = _Unpickler(io.BytesIO((Path(self.path) / _INDEX).read_bytes())).load()
        metadata.storage_meta = StorageMeta()
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(_HARMLESS.get(module, ""), name):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no list of tensors needs")
