"""What a computation runs on, where its randomness comes from, and how it is asked to stop."""

import contextlib
import hashlib
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


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


@contextlib.contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """Let a loop end in good order: within, SIGINT and SIGTERM only ask for a stop; a second one takes effect at once.

    Gives a function that tells whether a stop was asked for. In a thread other than the main one it never is: there
    signals are the business of whoever started the thread.
    """
    requests: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _frame: object) -> None:
        requests.append(number)
        restore()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield lambda: bool(requests)
    finally:
        restore()


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_memory() -> int:
    """Bytes of memory that this machine has."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import ctypes  # Windows: MEMORYSTATUSEX, 64 bytes of which the first four hold the length, the second eight the sum

    status = (ctypes.c_uint64 * 8)(64)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return status[1]


def hardware() -> dict[str, str | int]:
    """What a measurement ran on, for results files."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    facts: dict[str, str | int] = {
        "cpu": model,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts
