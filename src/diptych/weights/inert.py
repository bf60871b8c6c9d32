"""Pickles of tensors with other objects beside them: stand-ins for those, which keep nothing and do nothing.

torch's own reader makes tensors and plain values, and stops at any other name. Here a name that is known to be of data,
or that only makes an object and calls nothing, gets a stand-in. All else is code, and the file is refused.
"""

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

_DATA = {  # by module: what these make is data, also where the pickle calls them
    "argparse": ("Namespace",),
    "builtins": ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range", "str", "tuple"),
    "collections": ("defaultdict",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "numpy": ("dtype", "ndarray", "bool_", "float32", "float64", "int64"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "torch.torch_version": ("TorchVersion",),
    "types": ("SimpleNamespace",),
    "typing": ("Any", "Union", "Optional"),
    "uuid": ("UUID",),
}
_DATA_LIBRARIES = ("omegaconf",)
_OLD_NAMES = ("__builtin__", "commands", "copy_reg", "exceptions", "os2", "popen2")  # of Python 2's modules of code
_CODE = {*sys.stdlib_module_names, *_OLD_NAMES, "numpy", "torch", "diptych"}  # beyond what is named above
_MOST_NAMES = 200


class CodeError(Exception):
    """A pickle asks for a name that may be code; the text is the name."""


class _StandInType(type):
    may_be_called: bool

    def __call__(cls, *_: Any, **__: Any) -> Any:
        if not cls.may_be_called:
            raise CodeError(cls.__name__)
        return {} if cls.__name__ == "collections.defaultdict" else object.__new__(cls)


class StandIn(metaclass=_StandInType):
    """Stands for an object of a class that is not looked at."""

    may_be_called = False

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def load_inert(path: Path) -> Any:
    """What `torch.save` wrote, tensors mapped where the file's layout allows; other objects are stand-ins.

    Raises:
        CodeError: it holds code. Nothing of it was run.
        pickle.UnpicklingError: it is no pickle of PyTorch's.
        Exception: it is damaged.
    """
    known: dict[str, type[StandIn]] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in known.items()]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL ([\w.]+)", str(error))
            if asked is None:
                raise
            name = asked[1] if "." in asked[1] else f"builtins.{asked[1]}"
            if name in known or len(known) == _MOST_NAMES:
                raise CodeError(name) from error
            known[name] = _stand_in(name)


def _stand_in(name: str) -> type[StandIn]:
    module, _, attribute = name.rpartition(".")
    library = module.partition(".")[0]
    is_data = attribute in _DATA.get(module, ()) or library in _DATA_LIBRARIES
    if not is_data and library in _CODE:
        raise CodeError(name)
    # Of any other module: an object of some class is made without a call; where the pickle calls, it is refused.
    return _StandInType(name, (StandIn,), {"may_be_called": is_data})
