import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from diptych.errors import WeightsError
from diptych.train.distributed import Ranks, launched_ranks, whole
from diptych.train.shares import SharesWriter, own_part, read_shares, start_writing, stored_tensors
from processes import run_ranks
from test_files import names

WHOLE = {
    "matrix": torch.arange(10.0).view(5, 2),
    "count": torch.tensor(7),
    "half": torch.arange(3).bfloat16(),
    "picture": torch.arange(96.0).view(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
}


def write(folder: Path) -> dict[str, Any]:
    with launched_ranks() as ranks:
        mesh = init_device_mesh("cpu", (ranks.count,))
        tensors: dict[str, Tensor] = {name: value.clone() for name, value in WHOLE.items()}
        tensors["matrix"] = distribute_tensor(tensors["matrix"], mesh, [Shard(0)])
        line = ranks.second_line()
        assert line is not None
        writer = SharesWriter(folder)
        written = start_writing(tensors, writer, ranks, line)
        for value in tensors.values():
            value.zero_()  # training goes on
        ranks.sum(torch.ones(()))
        written.result()
        return {"digests": writer.digests, "holds": list(own_part(tensors, ranks))}


def read(folder: Path) -> dict[str, Any]:
    with launched_ranks() as ranks:
        mesh = init_device_mesh("cpu", (ranks.count,))
        into: dict[str, Tensor] = {name: torch.empty_like(value) for name, value in WHOLE.items()}
        into["matrix"] = distribute_tensor(into["matrix"], mesh, [Shard(0)])
        read_shares(folder, into)
        return {name: whole(value).tolist() for name, value in into.items()}


def test_what_two_write_is_the_copy_of_then_and_any_number_reads_it(tmp_path):
    folder = tmp_path / "shares"
    first, second = run_ranks(write, 2, folder)
    assert names(folder) == sorted({**first["digests"], **second["digests"]})
    assert set(first["holds"]) & set(second["holds"]) == {"matrix"}  # all others are written once
    assert stored_tensors(folder)["half"] == (torch.Size([3]), torch.bfloat16)
    alone = {name: torch.empty_like(value) for name, value in WHOLE.items()}
    read_shares(folder, alone)
    assert all(torch.equal(alone[name], value) for name, value in WHOLE.items())
    lists = {name: value.tolist() for name, value in WHOLE.items()}
    assert run_ranks(read, 4, folder) == [lists] * 4
    wrong = {"matrix": torch.empty(5, 3)}
    with pytest.raises(WeightsError, match=r"must hold matrix \[5, 3\]\. Is it of another model\?"):
        read_shares(folder, wrong)
    (folder / "__1_0.distcp").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"must be a whole checkpoint's shares, and cannot be read: "):
        read_shares(folder, alone)
    (folder / ".metadata").unlink()
    with pytest.raises(WeightsError, match=r"cannot be read: .*No such file"):
        stored_tensors(folder)


def test_whole_tensors_are_divided_evenly():
    tensors = {f"t{n}": torch.zeros(n) for n in range(1, 21)}
    parts = [own_part(tensors, Ranks(rank, 4, torch.device("cpu"))) for rank in range(4)]
    assert sorted(name for part in parts for name in part) == sorted(tensors)
    sizes = [sum(value.nbytes for value in part.values()) for part in parts]
    assert max(sizes) - min(sizes) <= 4 * 5


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


@pytest.mark.parametrize(
    "pickled", [pickle.dumps(Harm()), b"ctorch.distributed.checkpoint.filesystem\nos.getcwd\n(tR."]
)
def test_a_list_of_tensors_runs_no_code(tmp_path, pickled):
    (tmp_path / ".metadata").write_bytes(pickled)
    with pytest.raises(WeightsError, match=r"it names .*getcwd, which no list of tensors needs"):
        stored_tensors(tmp_path)
    assert not dist.is_initialized()
