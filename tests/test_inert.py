"""Objects beside tensors: harmless ones give way to the tensors, code is refused, and nothing is run."""

import argparse
import collections
import dataclasses
import datetime
import io
import os
import pathlib
import pickle
import subprocess
import sys
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diptych.weights.inert import CodeError, load_inert


@dataclasses.dataclass
class Options:
    """Of a training run; as of a module that is not there where the file is read."""

    name: str
    rates: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("x",)
    x: int


class Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def touch(path: str) -> None:
    Path(path).touch()


BESIDE = {
    "a NumPy scalar": np.float64(0.5),
    "another": np.int64(3),
    "an array": np.arange(3),
    "a namespace": argparse.Namespace(lr=1e-3, model="ViT-B-32", place=Path("/data")),
    "a path": pathlib.PurePosixPath("/data/x"),
    "a Windows path": pathlib.PureWindowsPath("C:/x"),
    "a data class": Options("x", {"a": 1.0}),
    "in slots": Slotted(3),
    "a time": datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC),
    "a default": collections.defaultdict(list, {"a": [1]}),
    "an id": uuid.UUID(int=3),
    "names": types.SimpleNamespace(a=1),
    "in each other": [argparse.Namespace(a=Options("y", {"b": np.float32(2)}))],
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_objects_beside_tensors_are_passed_over(tmp_path, name, zipped):
    tensor = torch.arange(6.0).reshape(2, 3)
    data = {"args": BESIDE[name], "state_dict": {"x": tensor}, "epoch": 3}
    torch.save(data, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = load_inert(tmp_path / "x.pt")
    assert found["state_dict"]["x"].equal(tensor)
    assert found["epoch"] == 3
    assert not isinstance(found["args"], type(BESIDE[name])) or name in ("a default", "in each other")


def test_an_object_of_another_library_is_not_imported(tmp_path):
    """OmegaConf's, as training code keeps it; neither the library nor its code is asked for."""
    script = (
        "import sys, types, torch\n"
        "class DictConfig:\n    pass\n"
        "for name in ('omegaconf', 'omegaconf.dictconfig', 'training', 'training.params'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "DictConfig.__module__ = 'omegaconf.dictconfig'; sys.modules['omegaconf.dictconfig'].DictConfig = DictConfig\n"
        "class Params:\n    pass\n"
        "Params.__module__ = 'training.params'; sys.modules['training.params'].Params = Params\n"
        "config = DictConfig(); config._content = {'lr': 1}; params = Params(); params.lr = 1\n"
        "torch.save({'cfg': config, 'params': params, 'model': {'x': torch.ones(2)}}, sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.pt")], check=True, timeout=300)
    assert load_inert(tmp_path / "x.pt")["model"]["x"].equal(torch.ones(2))
    assert "omegaconf" not in sys.modules


HOSTILE: dict[str, Callable[[Path], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "posix.system": lambda marker: (os.system, (f"touch {marker}",)),
    "builtins.eval": lambda marker: (eval, (f"open({str(marker)!r}, 'w')",)),
    "builtins.exec": lambda marker: (exec, (f"open({str(marker)!r}, 'w')",)),
    "builtins.getattr": lambda marker: (getattr, (marker, "touch")),
    "subprocess.Popen": lambda marker: (subprocess.Popen, (["touch", str(marker)],)),
    "io.open": lambda marker: (io.open, (str(marker), "w")),
    "torch.load": lambda marker: (torch.load, (str(marker),)),
    "numpy.save": lambda marker: (np.save, (str(marker), 1)),
    "test_inert.touch": lambda marker: (touch, (str(marker),)),
    "test_inert.Options": lambda _: (Options, ("x", {})),
}


ALSO = {  # as protocol 2 names them, for the sake of Python 2; or where they live
    "builtins.eval": "__builtin__.eval", "builtins.exec": "__builtin__.exec", "builtins.getattr": "__builtin__.getattr",
    "subprocess.Popen": "commands.Popen", "io.open": "_io.open", "torch.load": "torch.serialization.load",
    "numpy.save": "numpy.lib._npyio_impl.save",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_pickle_calls_is_refused_by_its_name_and_not_run(tmp_path, name, zipped):
    function, arguments = HOSTILE[name](tmp_path / "marker")
    data = {"state_dict": {"x": torch.ones(2)}, "args": argparse.Namespace(a=Calls(function, *arguments))}
    torch.save(data, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CodeError) as refused:
        load_inert(tmp_path / "x.pt")
    assert str(refused.value).removeprefix("tests.") in (name, ALSO.get(name))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("opcodes", [b"cos\nsystem\n(Vtouch MARKER\ntR.", b"(cos\nsystem\nVtouch MARKER\no.",
                                     b"(ios\nsystem\nVtouch MARKER\n.", b"c__builtin__\neval\n(V1\ntR."])  # fmt: skip
def test_older_ways_to_call_are_refused_too(tmp_path, opcodes):
    (tmp_path / "x.pt").write_bytes(b"\x80\x02" + opcodes.replace(b"MARKER", str(tmp_path / "marker").encode()))
    with pytest.raises((CodeError, pickle.UnpicklingError)):
        load_inert(tmp_path / "x.pt")
    assert not (tmp_path / "marker").exists()


def test_a_pickle_that_asks_for_ever_new_names_comes_to_an_end(tmp_path):
    names = b"".join(b"c%s\nx\n0" % f"m{i}".encode() for i in range(300))
    (tmp_path / "x.pt").write_bytes(b"\x80\x02" + names + b"N.")
    with pytest.raises((CodeError, pickle.UnpicklingError)):
        load_inert(tmp_path / "x.pt")
