import ctypes
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from diptych.runtime import hardware, installed_memory, stop_request


def test_the_memory_of_the_machine_is_known_on_windows_too(monkeypatch):
    def fill(status: object) -> int:
        ctypes.cast(status, ctypes.POINTER(ctypes.c_uint64))[1] = 7 << 30
        return 1

    assert installed_memory() > 1 << 28
    monkeypatch.delattr(os, "sysconf")
    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert installed_memory() == 7 << 30


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


def test_hardware_without_torch_says_nothing_of_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert hardware().keys() == {"cpu", "cores", "python"}
