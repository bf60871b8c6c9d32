"""What a result file says beside its numbers: model, data, seed, versions, machine."""

from typing import Any

import PIL

from diptych.eval.features import ModelFeatures
from diptych.runtime import hardware
from diptych.version import __version__

_MOVES_NO_RESULT = ("hardware",)  # beyond the last digits


def conditions(
    task: str, features: ModelFeatures, *, model: str, data: str, split: str, sha256: str, seed: int
) -> dict[str, Any]:
    """What every result file says beside its numbers.

    Args:
        task: what was measured.
        features: of the model, and
        model: what it was called.
        data: name of the set.
        split: its subfolder.
        sha256: of the split, from `digest`.
        seed: of whatever was drawn.
    """
    machine = hardware()
    versions = {"diptych": __version__, "pillow": PIL.__version__}
    return {
        "task": task,
        "model": {"name": model, "fingerprint": features.fingerprint},
        "data": {"name": data, "split": split, "sha256": sha256},
        "seed": seed,
        "precision": features.precision,
        "versions": versions | {name: machine.pop(name) for name in ("torch", "python")},
        "hardware": machine,
    }


def same_conditions(found: object, wanted: dict[str, Any]) -> bool:
    """Whether a result file was measured as it would be now, on whatever machine.

    Args:
        found: the content of the file.
        wanted: `conditions`, with what else the result hangs on.
    """
    return isinstance(found, dict) and all(
        found.get(name) == value for name, value in wanted.items() if name not in _MOVES_NO_RESULT
    )
