import json

import numpy as np
import pytest

from diptych.errors import WeightsError
from diptych.weights import engine_speed
from diptych.weights.engine_speed import keep, kept, measure


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/diptych/engines.json"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


class Clock:
    """Time that passes as engines say."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Engine:
    def __init__(self, clock: Clock, seconds: list[float]) -> None:
        self.clock, self.seconds, self.asked = clock, iter(seconds), 0
        self.preprocess = type("Recipe", (), {"shape": (2, 2, 3)})()

    def encode_images(self, pictures) -> np.ndarray:
        return np.zeros((len(pictures), 4), np.float32)

    def encode_fast(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8
        self.clock.now += next(self.seconds)
        self.asked += len(pixels)
        return np.zeros((len(pixels), 4), np.float32)


def test_the_median_of_a_picture_counts_and_not_the_first_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engine_speed.time, "perf_counter", clock)
    slow_to_start = Engine(clock, [160.0, 1.6, 1.6, 16.0, 1.6, 1.6])
    steady = Engine(clock, [3.2] * 6)
    found = measure({"torch": lambda: steady, "onnx": lambda: slow_to_start})
    assert found == pytest.approx({"torch": 0.2, "onnx": 0.1})


def test_an_engine_that_gives_other_features_is_left_out_and_told():
    class Wrong(Engine):
        def encode_images(self, pictures):
            raise WeightsError("image features are 0.1 off")

    notes: list[str] = []
    clock = Clock()
    found = measure(
        {"torch": lambda: Engine(clock, [1.0] * 6), "openvino": lambda: Wrong(clock, [])}, on_note=notes.append
    )
    assert list(found) == ["torch"]
    assert notes == ["engine openvino is left out: image features are 0.1 off"]


def test_what_was_measured_is_kept_until_machine_model_or_versions_change(model, monkeypatch):
    assert kept(model) == {}
    keep(model, {"torch": 0.2, "onnx": 0.1})
    assert kept(model) == {"torch": 0.2, "onnx": 0.1}
    with monkeypatch.context() as other:
        other.setattr(engine_speed, "instruction_sets", lambda: ["avx2"])
        assert kept(model) == {}
    (model / "config.json").write_text('{"other": 1}')
    assert kept(model) == {}


def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_obstacle(model, cache):
    cache.parent.mkdir(parents=True)
    for damaged in ("no JSON", "[]", "[1, 2]"):
        cache.write_text(damaged)
        assert kept(model) == {}
    keep(model, {"onnx": 0.1})
    assert kept(model) == {"onnx": 0.1}
    assert len(json.loads(cache.read_text())) == 1
    cache.unlink()
    cache.parent.rmdir()
    cache.parent.write_text("in the way")
    keep(model, {"onnx": 0.1})
    assert kept(model) == {}
