"""What a device can do at best: a table of accelerators, and a probe of this machine's CPU."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.runtime import hardware, installed_memory

MatrixType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peak rates of one accelerator, and of the wires to the next."""

    name: str
    flops: dict[MatrixType, float]  # of dense matrix products, a second; a multiply-add is 2
    memory: int  # bytes
    bandwidth: float  # of its memory, bytes a second
    node: int = 1  # devices in one machine
    link: float = 0.0  # to a device of the same machine, bytes a second, one way
    network: float = 0.0  # to other machines, one device's share, bytes a second, one way
    source: str

    @property
    def fastest_precision(self) -> MatrixType:
        """The one with the most FLOPs a second; of equals the first named, bfloat16 before float16."""
        return max(self.flops, key=lambda precision: self.flops[precision])


def find_device(name: str) -> Device:
    """A device by its name; "here" is this machine's CPU, measured by a probe of a second or two.

    Raises:
        ConfigError: there is no such device; the nearest one is named.
    """
    if name == "here":
        return _this_cpu()
    if name not in DEVICES:
        raise ConfigError(unknown_name(name, "", (*DEVICES, "here"), "a device"))
    return DEVICES[name]


def _v100(gib: int) -> Device:
    return Device(
        name=f"v100-{gib}gb",
        flops={"float16": 125e12, "float32": 15.7e12},
        memory=gib * 2**30,
        bandwidth=900e9,
        node=8,
        link=150e9,
        network=6.25e9,
        source="NVIDIA V100 SXM2 data sheet; network as in a DGX-1, 4 x 100 Gb/s for 8",
    )


def _a100(gib: int, bandwidth: float) -> Device:
    return Device(
        name=f"a100-{gib}gb",
        flops={"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
        memory=gib * 2**30,
        bandwidth=bandwidth,
        node=8,
        link=300e9,
        network=25e9,
        source="NVIDIA A100 SXM4 data sheet, float32 without TF32; network as in a DGX A100, 8 x 200 Gb/s for 8",
    )


_H100 = Device(
    name="h100-80gb",
    flops={"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 66.9e12},
    memory=80 * 2**30,
    bandwidth=3350e9,
    node=8,
    link=450e9,
    network=50e9,
    source="NVIDIA H100 SXM5 data sheet, float32 without TF32; network as in a DGX H100, 8 x 400 Gb/s for 8",
)

# NVLink's published figure adds both ways; `link` is half of it.
DEVICES: dict[str, Device] = {
    device.name: device for device in (_v100(16), _v100(32), _a100(40, 1555e9), _a100(80, 2039e9), _H100)
}


def _this_cpu() -> Device:
    return Device(
        name="here",
        flops={"bfloat16": _matmul_rate(torch.bfloat16), "float32": _matmul_rate(torch.float32)},
        memory=installed_memory(),
        bandwidth=_copy_rate(),
        source=f"measured on {hardware()['cpu']}, {torch.get_num_threads()} threads",
    )


def _matmul_rate(dtype: torch.dtype) -> float:
    """FLOPs a second."""
    side = 1024
    a = torch.ones(side, side, dtype=dtype)
    return 2 * side**3 / _best_seconds(lambda: torch.mm(a, a))


def _copy_rate() -> float:
    """Bytes a second, read and written."""
    a = torch.ones(2**25)  # 128 MiB: no cache holds it
    b = torch.empty_like(a)
    return 2 * a.nbytes / _best_seconds(lambda: b.copy_(a))


def _best_seconds(work: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(8):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
