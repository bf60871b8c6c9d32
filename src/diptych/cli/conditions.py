"""What a result file says beside its numbers: model, data, seed, versions, machine."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.files import sha256

if TYPE_CHECKING:
    from diptych.weights.bundle import Bundle


def conditions(task: str, bundle: "Bundle", model: str | None, folder: Path, split: str, seed: int) -> dict[str, Any]:
    """What every result file says beside its numbers.

    Args:
        task: what was measured.
        bundle: the model, and
        model: what it was called; None for the default.
        folder: of the data.
        split: its subfolder.
        seed: of whatever was drawn.
    """
    from diptych.weights.registry import DEFAULT_MODEL

    return {
        "task": task,
        "model": {"name": model or DEFAULT_MODEL, "fingerprint": bundle.fingerprint()},
        "data": {"name": folder.resolve().name, "split": split, "sha256": digest(folder, split)},
        "seed": seed,
    } | _surroundings()


def digest(folder: Path, split: str) -> str:
    """SHA-256 of the shards of a split, else of the names and sizes of its files."""
    base = folder / split if (folder / split).is_dir() else folder
    files = {path.relative_to(base).as_posix(): path for path in base.rglob("[!.]*") if path.is_file()}
    shards = {name: path for name, path in files.items() if name.endswith((".tar", ".tar.gz"))}
    facts = [f"{name}\t{sha256(path)}" for name, path in shards.items()] or [
        f"{name}\t{path.stat().st_size}" for name, path in files.items()
    ]
    return hashlib.sha256("\n".join(sorted(facts)).encode(errors="surrogateescape")).hexdigest()


def _surroundings() -> dict[str, Any]:
    import PIL

    import diptych
    from diptych.runtime import hardware

    machine = hardware()
    versions = {"diptych": diptych.__version__, "pillow": PIL.__version__}
    return {"versions": versions | {name: machine.pop(name) for name in ("torch", "python")}, "hardware": machine}
