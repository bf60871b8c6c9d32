import importlib.util
import shutil
from typing import get_args

import numpy as np
import pytest

from bundles import make, new_tokenizer, some_pictures
from diptych.cli import options
from diptych.errors import ConfigError, MissingExtraError, WeightsError
from diptych.weights import engine_speed, engines
from diptych.weights.bundle import Bundle
from diptych.weights.engines import find_fastest, load
from diptych.weights.graph_bundle import GraphBundle

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from diptych.export.one_file import write_graphs

    folder = tmp_path_factory.mktemp("models") / "model"
    make("tiny-resnet", new_tokenizer()).save(folder)
    write_graphs(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_measured_and_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "_has_gpu", lambda: False)
    installed_here(monkeypatch, "torch", "onnxruntime")


def installed_here(monkeypatch, *packages):
    real = importlib.util.find_spec
    known = ("torch", "onnxruntime", "openvino")

    def find_spec(name, *more):
        return real("json") if name in packages else None if name in known else real(name, *more)

    monkeypatch.setattr(engines.importlib.util, "find_spec", find_spec)


@pytest.fixture
def plain(exported, tmp_path):
    """The same model without graphs."""
    return shutil.copytree(exported, tmp_path / "plain", ignore=shutil.ignore_patterns("*.onnx", "graphs.json"))


def test_for_little_work_what_starts_soonest_is_taken(exported, plain):
    assert isinstance(load(exported), GraphBundle)
    assert isinstance(load(plain), Bundle)
    engine_speed.keep(exported, {"torch": 0.1, "onnx": 0.2})
    assert isinstance(load(exported), GraphBundle)


def test_for_much_work_what_was_measured_to_be_soonest_is_taken(exported, plain):
    engine_speed.keep(exported, {"torch": 0.1, "onnx": 0.2})
    assert isinstance(load(exported, many=True), Bundle)
    engine_speed.keep(exported, {"torch": 0.1, "onnx": 0.02, "openvino": 0.01})
    assert isinstance(load(exported, many=True), GraphBundle)  # of those that are still installed
    assert isinstance(load(plain, many=True), Bundle)


def test_for_much_work_engines_are_measured_where_they_were_not(exported, caplog):
    made = load(exported, many=True)
    seconds = engine_speed.kept(exported)
    assert seconds.keys() == {"torch", "onnx"}
    assert isinstance(made, Bundle) == (seconds["torch"] < seconds["onnx"])
    assert "engines measured once for model on this machine, pictures/s" in caplog.text


def test_the_engine_that_is_asked_for_is_taken_or_the_reason_is_told(exported, plain, monkeypatch):
    assert isinstance(load(exported, engine="torch"), Bundle)
    assert isinstance(load(exported, engine="onnx"), GraphBundle)
    with pytest.raises(ConfigError, match=r"has no graphs\.json\. Write them: diptych export"):
        load(plain, engine="onnx")
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[openvino\]'"):
        load(exported, engine="openvino")
    with pytest.raises(ConfigError, match="Did you mean onnx"):
        load(exported, engine="onx")  # pyright: ignore[reportArgumentType]
    installed_here(monkeypatch, "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[torch\]'"):
        load(plain)


def test_graphs_that_are_damaged_are_told_by_who_needs_them(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    (folder / "graphs.json").write_text("{")
    assert isinstance(load(folder, engine="torch"), Bundle)
    with pytest.raises(WeightsError, match="must tell of a model's graphs"):
        load(folder)


def test_what_only_torch_does_chooses_torch(exported, monkeypatch):
    assert load(exported, image_size=64).preprocess.image_size == 64
    assert next(load(exported, dtype="bfloat16").in_torch().model.parameters()).element_size() == 2
    assert isinstance(load(exported, activation=None), GraphBundle)  # nothing was told
    with pytest.raises(ConfigError, match="image_size and dtype can be chosen with engine torch alone"):
        load(exported, engine="onnx", image_size=64, dtype="float16")
    with pytest.raises(ConfigError, match="int8 is not a dtype"):
        load(exported, dtype="int8")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(engines, "_has_gpu", lambda: True)
    assert isinstance(load(exported), Bundle)
    assert isinstance(load(exported, device="cpu"), GraphBundle)


def test_a_device_that_is_not_there_is_told_by_each_engine(exported):
    with pytest.raises(ConfigError, match=r"device must be auto or one that torch has here \(cpu.*Got 'cuda:7'"):
        load(exported, engine="torch", device="cuda:7")
    with pytest.raises(ConfigError, match="device coreml needs another build of onnxruntime"):
        load(exported, engine="onnx", device="coreml")


def test_engines_are_compared_once(exported, plain, monkeypatch):
    asked, speeds = [], {"torch": 0.5, "onnx": 0.25}
    monkeypatch.setattr(engines, "measure", lambda opened, **_: asked.append(sorted(opened)) or speeds)
    notes: list[str] = []
    assert find_fastest(exported, on_note=notes.append) == speeds
    assert find_fastest(exported, on_note=notes.append) == speeds
    assert asked == [["onnx", "torch"]]
    assert len(notes) == 1
    assert "onnx 4.0, torch 2.0" in notes[0]
    find_fastest(exported, again=True)
    assert len(asked) == 2
    assert find_fastest(plain) == {}  # there is no choice
    assert len(asked) == 2


def test_engines_give_the_same_features(exported):
    pictures = some_pictures()
    found = [load(exported, engine=name).encode_images(pictures) for name in ("torch", "onnx")]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_options_of_commands_are_those_of_the_library():
    assert get_args(options._Engine) == get_args(engines.EngineChoice)
    assert get_args(options._Dtype) == get_args(engines.Dtype)
