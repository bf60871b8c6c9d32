import importlib.metadata

import pytest

from diptych import doctor
from diptych.doctor import diagnose, missing_extras
from diptych.weights.packaged import DEFAULT_MODEL


def test_extras_that_lack_a_package_are_named_with_it(monkeypatch):
    asked = ["numpy>=1.26", 'torch>=2.6; extra == "torch"', "a-b>=1; extra == 'eval'", 'numpy; extra == "eval"']
    asked += ['pytest; extra == "dev"', 'c; python_version > "3" and extra == "serve"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    there = {"numpy", "torch"}
    monkeypatch.setattr(doctor, "_version", lambda package: "1" if package in there else "")
    assert missing_extras() == {"eval": ("a-b",), "serve": ("c",)}


def test_engines_are_told_with_their_speed_and_the_one_that_is_taken(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(doctor, "engines_here", lambda _: ("torch", "onnx"))
    monkeypatch.setattr(doctor, "find_fastest", lambda *_, **__: {"torch": 0.05, "onnx": 0.02})
    found = diagnose()
    assert (found.model, found.taken) == (DEFAULT_MODEL, "onnx")
    speeds = {one.name: one.pictures_per_second for one in found.engines}
    assert speeds == pytest.approx({"torch": 20.0, "onnx": 50.0, "openvino": None})
    by_name = {one.name: one for one in found.engines}
    assert (by_name["torch"].devices[0], by_name["onnx"].devices[0]) == ("cpu", "cpu")
    assert by_name["onnx"].version
    assert not by_name["openvino"].opens_model
    assert found.memory > 2**28


def test_where_there_is_no_choice_the_only_engine_is_taken(monkeypatch):
    monkeypatch.setattr(doctor, "engines_here", lambda _: ("torch",))
    monkeypatch.setattr(doctor, "find_fastest", lambda *_, **__: {})
    assert diagnose().taken == "torch"
    monkeypatch.setattr(doctor, "engines_here", lambda _: ())
    assert diagnose().taken == ""
