"""Devices: figures of data sheets, and a probe of this machine."""

import pytest
import torch

from diptych.errors import ConfigError
from diptych.train import devices
from diptych.train.devices import DEVICES, find_device


def test_figures_are_those_of_the_data_sheets():
    a100 = find_device("a100-40gb")
    assert (a100.flops["bfloat16"], a100.memory, a100.bandwidth) == (312e12, 42_949_672_960, 1555e9)
    assert find_device("v100-32gb").flops == {"float16": 125e12, "float32": 15.7e12}  # it has no unit for bfloat16
    assert {name for name, device in DEVICES.items() if name != device.name} == set()


def test_the_fastest_precision_is_bfloat16_where_it_ties_with_float16():
    assert find_device("h100-80gb").fastest_precision == "bfloat16"
    assert find_device("v100-16gb").fastest_precision == "float16"


def test_the_probe_gives_rates_that_follow_from_its_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_best_seconds", lambda _work: 0.5)
    here = find_device("here")
    assert here.flops == {"bfloat16": 2 * 1024**3 / 0.5, "float32": 2 * 1024**3 / 0.5}
    assert here.bandwidth == 2 * 2**27 / 0.5  # 128 MiB read, as many written
    assert here.memory > 2**28
    assert f"{torch.get_num_threads()} threads" in here.source


def test_the_best_of_several_times_is_taken(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0, 9, *(x for start in range(10, 24, 2) for x in (start, start + 1))])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(ticks))
    assert devices._best_seconds(lambda: None) == 1


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"a100 is not a device\. Did you mean a100-"):
        find_device("a100")
