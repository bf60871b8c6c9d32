"""What torch computes on, in which numbers, and where its randomness comes from."""

import hashlib
import time
from functools import cache

import torch

from diptych.errors import ConfigError


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_named(name: str) -> torch.device:
    """A device by its name; "auto" is `default_device`.

    Raises:
        ConfigError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return default_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ", ".join(["cpu", *devices_here()])
        first = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"device must be auto or one that torch has here ({there}). Got {name!r}: {first}") from None
    return device


def devices_here() -> list[str]:
    """Those beside the CPU that torch computes on, by name."""
    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


@cache
def fast_dtype(device: torch.device) -> torch.dtype:
    """The type for autocast: bfloat16 where it is faster than float32, else float32.

    On a CPU it is measured, not looked up by name: a processor may know bfloat16 and still emulate most of it. The
    measurement is made once a process; two processes on a busy machine may differ.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and _matmul_seconds(torch.bfloat16) < 0.8 * _matmul_seconds(torch.float32):
        return torch.bfloat16
    return torch.float32


def _matmul_seconds(dtype: torch.dtype) -> float:
    a = torch.ones(512, 512, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return best


def generator(seed: int, *position: int) -> torch.Generator:
    """A generator that is a pure function of the seed and a position, e.g. (seed, epoch, index)."""
    digest = hashlib.blake2b(repr((seed, *position)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
