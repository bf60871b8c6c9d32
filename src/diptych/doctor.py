"""What this machine has, which engine is soonest for a model on it, and what is missing."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from diptych.runtime import hardware, installed_memory, instruction_sets
from diptych.weights.engines import PACKAGES, Engine, engines_here, find_fastest
from diptych.weights.places import find_model

_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_NOT_FOR_USERS = ("dev", "docs", "pictograms")


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """One engine on this machine."""

    name: Engine
    version: str  # empty where it is not installed
    devices: tuple[str, ...]  # that it computes on
    opens_model: bool
    pictures_per_second: float | None  # as a library is encoded; None where there was no choice to measure


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `diagnose` found."""

    machine: dict[str, str | int]
    instructions: tuple[str, ...]  # that change how fast this processor multiplies
    memory: int  # bytes
    model: str
    engines: tuple[EngineState, ...]
    taken: str  # the engine that `load` takes for the model; empty where none opens it
    missing: dict[str, tuple[str, ...]]  # extras that are not installed whole, with the packages that they want for


def diagnose(model: str | Path | None = None, *, on_note: Callable[[str], None] = lambda _: None) -> Diagnosis:
    """Look at this machine and measure the engines of one model; `load` goes by that from then on.

    Args:
        model: as `load` takes it.
        on_note: gets a sentence about what was measured.

    Raises:
        DiptychError: as `load` does.
    """
    place = find_model(model)
    here = engines_here(place.path)
    seconds = find_fastest(model, on_note=on_note, again=True)
    states = [
        EngineState(
            name=name,
            version=_version(PACKAGES[name]),
            devices=_devices(name),
            opens_model=name in here,
            pictures_per_second=1 / seconds[name] if name in seconds else None,
        )
        for name in get_args(Engine)
    ]
    return Diagnosis(
        machine=hardware(),
        instructions=tuple(instruction_sets()),
        memory=installed_memory(),
        model=place.name,
        engines=tuple(states),
        taken=min(seconds, key=lambda name: seconds[name]) if seconds else (here[0] if here else ""),
        missing=missing_extras(),
    )


def missing_extras() -> dict[str, tuple[str, ...]]:
    """Extras of which a package is not installed, with these packages."""
    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("diptych") or ():
        extra = _EXTRA.search(requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and extra[1] not in _NOT_FOR_USERS and not _version(name[0]):
            missing.setdefault(extra[1], []).append(name[0])
    return {extra: tuple(packages) for extra, packages in sorted(missing.items())}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _devices(engine: Engine) -> tuple[str, ...]:
    """Where an engine computes here; none where it is not installed."""
    if importlib.util.find_spec(PACKAGES[engine]) is None:
        return ()
    if engine == "torch":
        from diptych.torch_runtime import devices_here

        return ("cpu", *devices_here())
    if engine == "onnx":
        from diptych.weights.onnx_towers import devices_here

        return devices_here()
    return ("cpu",)
