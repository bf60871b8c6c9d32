"""Which engine is soonest for a model on this machine: measured, and kept with what the measurement hangs on."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import DataError, WeightsError
from diptych.files import write_json
from diptych.runtime import instruction_sets, usable_cores
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.golden import golden_picture

_PICTURES, _ROUNDS = 16, 5
_PACKAGES = ("torch", "onnxruntime", "openvino")


def measure(
    open_engine: Mapping[str, Callable[[], DualEncoder]], *, on_note: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """How long a picture takes in each engine, as a library is encoded; they take turns, and the median counts.

    Args:
        open_engine: what opens each of them, by its name.
        on_note: gets a sentence for an engine that is left out, as it does not give the model's features here.

    Returns:
        Seconds a picture, by name.
    """
    engines: dict[str, DualEncoder] = {}
    for name, opened in open_engine.items():
        try:
            engine = opened()
            engine.encode_images([golden_picture()])
        except WeightsError as error:
            on_note(f"engine {name} is left out: {error}")
            continue
        engines[name] = engine
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(_ROUNDS + 1):
        for name, engine in engines.items():
            pixels = rng.integers(0, 256, (_PICTURES, *engine.preprocess.shape), dtype=np.uint8)
            start = time.perf_counter()
            engine.encode_fast(pixels)
            if number:  # the first one sets up
                seconds[name].append((time.perf_counter() - start) / _PICTURES)
    return {name: statistics.median(some) for name, some in seconds.items()}


def keep(path: Path, seconds: Mapping[str, float]) -> None:
    """Remember a measurement of the model that lies there; where it cannot be written it is made again."""
    with contextlib.suppress(DataError):
        write_json(_file(), _read() | {_key(path): {"model": path.name, "seconds": dict(seconds)}})


def kept(path: Path) -> dict[str, float]:
    """What was measured of a model on this machine with these versions, seconds a picture by engine; else nothing."""
    whole = _read()
    return whole[key]["seconds"] if whole and (key := _key(path)) in whole else {}


def _file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "diptych" / "engines.json"


def _read() -> dict[str, Any]:
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _key(path: Path) -> str:
    """All that speed hangs on: the machine, the versions, and the model by its files' sizes and dates."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = {
        "machine": [platform.machine(), platform.processor(), usable_cores(), *instruction_sets()],
        "versions": versions,
        "files": [[file.name, file.stat().st_size] for file in files if file.is_file()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
