"""Pairs that are drawn on the spot: a square of each colour with its name."""

import hashlib
import io

from PIL import Image

from diptych.pairs.samples import Sample

COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple", "gray")


class Squares:
    def __init__(self, path: str) -> None:
        self.path = path  # what the recipe says after `path =`
        self.shard_ends = [len(COLOURS)]  # where runs of samples end that lie together

    def __len__(self) -> int:
        return len(COLOURS)

    def __getitem__(self, index: int) -> Sample:
        file = io.BytesIO()
        Image.new("RGB", (32, 32), COLOURS[index]).save(file, "PNG")
        return Sample(self.key(index), {"png": file.getvalue(), "txt": "\n".join(self.captions(index)).encode()})

    def key(self, index: int) -> str:
        return COLOURS[index]

    def captions(self, index: int) -> list[str]:
        return [f"a {COLOURS[index]} square"]

    def check(self) -> list[str]:
        return []  # sentences on what was assumed

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(COLOURS).encode()).hexdigest()
