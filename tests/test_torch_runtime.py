import pytest
import torch

from diptych import torch_runtime
from diptych.torch_runtime import default_device, fast_dtype, generator


def draw(*position: int) -> float:
    return torch.rand((), generator=generator(*position)).item()


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
    monkeypatch.setattr(torch_runtime, "_matmul_seconds", seconds.__getitem__)
    fast_dtype.cache_clear()
    assert fast_dtype(torch.device("cpu")) == expected
    fast_dtype.cache_clear()


def test_the_device_without_a_gpu_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
