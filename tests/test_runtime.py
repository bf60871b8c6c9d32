import ctypes
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from diptych import runtime
from diptych.runtime import hardware, installed_memory, stop_request
from diptych.torch_runtime import default_device, fast_dtype, generator


def draw(*position: int) -> float:
    return torch.rand((), generator=generator(*position)).item()


def test_the_memory_of_the_machine_is_known_on_windows_too(monkeypatch):
    def fill(status: object) -> int:
        ctypes.cast(status, ctypes.POINTER(ctypes.c_uint64))[1] = 7 << 30
        return 1

    assert installed_memory() > 1 << 28
    monkeypatch.delattr(os, "sysconf")
    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert installed_memory() == 7 << 30


def test_a_generator_is_a_function_of_seed_and_position():
    assert draw(1, 2, 3) == draw(1, 2, 3)
    positions = [(1,), (1, 2), (1, 2, 3), (12, 3), (1, 23), (2, 1, 3), (-1, 2, 3)]
    assert len({draw(*position) for position in positions}) == len(positions)


def test_a_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    draw(1, 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("bfloat16_seconds", "expected"), [(0.5, torch.bfloat16), (0.9, torch.float32)])
def test_bfloat16_must_be_clearly_faster_to_be_chosen(monkeypatch, bfloat16_seconds, expected):
    seconds = {torch.bfloat16: bfloat16_seconds, torch.float32: 1.0}
    monkeypatch.setattr(runtime, "_matmul_seconds", seconds.__getitem__)
    fast_dtype.cache_clear()
    assert fast_dtype(torch.device("cpu")) == expected
    fast_dtype.cache_clear()


def test_the_device_without_a_gpu_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_asks_and_the_handlers_are_put_back(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with stop_request() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
        assert {n: signal.getsignal(n) for n in before} == before  # the next one acts at once
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_second_signal_of_the_other_kind_takes_effect_at_once():
    def stop_twice() -> None:
        with stop_request() as stop_requested:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop_requested()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stop_twice()


def test_a_thread_leaves_signals_to_the_main_one():
    seen = []

    def work() -> None:
        with stop_request() as stop_requested:
            seen.append((stop_requested(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_hardware_is_plain_data_with_the_cores_that_we_may_use():
    facts = hardware()
    assert {"cpu", "cores", "threads", "torch", "python"} <= facts.keys()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["threads"] == torch.get_num_threads()
