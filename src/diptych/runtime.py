"""The machine that a computation runs on, and how it is asked to stop."""

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

# That change how fast a processor multiplies, as Linux names them.
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "sve",
    "bf16",
    "i8mm",
)


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
    facts: dict[str, str | int] = {"cpu": model, "cores": usable_cores(), "python": platform.python_version()}
    if torch := sys.modules.get("torch"):  # where it computed
        facts |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
    return facts


def instruction_sets() -> list[str]:
    """Those of this processor that change how fast it multiplies, as Linux names them; empty where it tells none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    there = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for name in _INSTRUCTIONS if name in there]
