"""Stand-ins of files that JAX programs write, and what those programs made of them; see benchmarks/parity_files.py."""

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("foreign_files")


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(0.2 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape), np.float32)


def pixels() -> np.ndarray:
    return 5 * drawn("pixels", (2, 3, 32, 32))


def tokens() -> np.ndarray:
    words = np.random.default_rng(zlib.crc32(b"tokens")).integers(0, 598, (2, 16))
    words[:, 0], words[0, 9:], words[1, 4:] = 598, 599, 599
    return words


def packed(value: Any) -> bytes:
    """MessagePack as flax writes it, by hand."""
    match value:
        case Mapping():
            items = b"".join(packed(key) + packed(one) for key, one in value.items())
            return struct.pack(">BH", 0xDE, len(value)) + items
        case str():
            return struct.pack(">BB", 0xD9, len(value.encode())) + value.encode()
        case int():
            return struct.pack(">BI", 0xCE, value)
        case np.ndarray():
            data = value.tobytes()
            content = struct.pack(">BH", 0xDC, 3) + struct.pack(">BH", 0xDC, value.ndim)
            content += b"".join(map(packed, value.shape)) + packed(value.dtype.name)
            content += struct.pack(">BI", 0xC6, len(data)) + data
            return struct.pack(">BIb", 0xC9, len(content), 1) + content
    raise AssertionError(value)


def nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree
