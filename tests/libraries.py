"""Folders of drawn pictures and libraries of them, and what must be true of any."""

from pathlib import Path

import numpy as np
from PIL import Image

from diptych.search.library import Library


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path)


def draw_ten(folder: Path) -> None:
    """0.png to 3.png in 2023/, 4.png to 9.png beside it."""
    for i in range(10):
        draw(folder / ("2023/" if i < 4 else "") / f"{i}.png", i)


def stored(library: Library) -> dict[str, np.ndarray]:
    return {path: features for path, _, features in library.rows()}


def assert_true(library: Library) -> None:
    """Every readable picture of the folder has the features that the bundle gives it, and nothing else has any."""
    readable = [path for path in sorted(library.folder.rglob("*.png")) if path.stat().st_size > 100]
    rows = stored(library)
    assert sorted(rows) == [path.relative_to(library.folder).as_posix() for path in readable]
    expected = library.bundle.encode_images(readable)
    found = np.stack([rows[path.relative_to(library.folder).as_posix()] for path in readable])
    assert (expected * found).sum(axis=1).min() > 0.999
    assert library.check() == []
