"""Pictures are looked at once: what later stages judge them by becomes columns, and the bytes are not opened again.

| column | type | what |
|---|---|---|
| `width`, `height` | int32 | pixels of the picture as it is, upright |
| `format` | string | what its bytes are, in small letters: `jpeg`, `png`, `webp`, ... |
| `bytes` | int64 | size of the file |
| `look`, `look_mirrored` | uint64 | its perceptual hash, and that of it mirrored: `measures/perceptual_hash.py` |
| `detail` | float32 | how much the hash has to go by, in grey levels; a plain picture has 0 |
| `features` | fixed_size_list of float16 | where a model is named: its features, unit length |

A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves both sides what the hash and the model
need; benchmarks/curate_duplicates.py says how many bits of a hash differ from those of the whole picture.
"""

import dataclasses
import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from diptych.curate.seen_pictures import model_of
from diptych.data.ahead import batched, decoded_ahead, or_error
from diptych.data.decoding import decode
from diptych.data.facts import Facts
from diptych.data.images import FAST_MARGIN, MAX_PIXELS
from diptych.embed import encode_fast
from diptych.errors import ConfigError, ImageError
from diptych.measures.perceptual_hash import SIDE, perceptual_hash
from diptych.rows.columns import PICTURE
from diptych.rows.stage import DROPPED, Judged, Whole
from diptych.weights.dual_encoder import DualEncoder

_BATCH = 64  # pictures a forward pass, and that are decoded ahead


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Decode each picture, and add the columns of this page; one that cannot be read is dropped with its cause."""

    model: str | None = None  # a name as `diptych.load` takes it; without one there are no `features`
    max_pixels: int = MAX_PIXELS  # most that are decoded of a picture; a larger one is dropped as "too large"

    name: ClassVar[str] = "describe"
    reads_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ConfigError(f"describe.max_pixels must be at least 1. Got {self.max_pixels}.")

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002  # as all stages take it
        bundle = model_of(self.model) if self.model else None
        rest, pictures = rows.drop_columns([PICTURE]), rows[PICTURE]
        good: list[tuple[int, _Seen]] = []
        bad: list[tuple[int, ImageError]] = []
        features: list[np.ndarray] = []
        look = or_error(functools.partial(_look, bundle=bundle, max_pixels=self.max_pixels))
        with decoded_ahead(look, (picture.as_buffer() for picture in pictures), _BATCH, pixels=_pixels) as looks:
            for batch in batched(enumerate(looks), _BATCH):
                bad += [(row, one) for row, one in batch if isinstance(one, ImageError)]
                seen = [(row, one) for row, one in batch if isinstance(one, _Seen)]
                good += [(row, dataclasses.replace(one, pixels=None)) for row, one in seen]
                if bundle:
                    features.append(encode_fast(bundle, [one.pixels for _, one in seen if one.pixels is not None]))
        kept = rest.take(pa.array([row for row, _ in good], pa.int64()))
        kept = _with_columns(kept, _columns([one for _, one in good]))
        if bundle:
            none = np.empty((0, bundle.embed_dim), np.float32)
            kept = _with_columns(kept, {"features": _half(np.concatenate([none, *features]))})
        return Judged(kept=kept, dropped=_unreadable(rest["key"], bad))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What is taken from one picture."""

    facts: Facts
    size: int  # bytes
    grey: np.ndarray  # [32, 32] uint8
    pixels: np.ndarray | None  # [S, S, 3] uint8, until the model has seen them


def grey_of(picture: Image.Image) -> np.ndarray:
    """A picture as the hash takes it, whatever its aspect: [32, 32] uint8."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def side_needed(bundle: DualEncoder | None) -> int:
    """Px that both sides of a JPEG keep when it is decoded at a part of its size."""
    return max(2 * SIDE, math.ceil(FAST_MARGIN * bundle.preprocess.image_size) if bundle else 0)


def _look(data: pa.Buffer | None, *, bundle: DualEncoder | None, max_pixels: int) -> _Seen:
    facts: list[Facts] = []
    file = io.BytesIO(data if data is not None else b"")
    picture = decode(file, "the picture", max_pixels, at_least=side_needed(bundle), on_facts=facts.append)
    return _Seen(
        facts=facts[0],
        size=data.size if data is not None else 0,
        grey=grey_of(picture),
        pixels=bundle.preprocess.pixels(picture) if bundle else None,
    )


def _pixels(one: _Seen | ImageError) -> int:
    return one.pixels.shape[0] * one.pixels.shape[1] if isinstance(one, _Seen) and one.pixels is not None else 0


def _columns(seen: Sequence[_Seen]) -> dict[str, pa.Array]:
    grey = np.stack([one.grey for one in seen]) if seen else np.empty((0, SIDE, SIDE), np.uint8)
    looks, mirrored, detail = perceptual_hash(grey)
    return {
        "width": pa.array([one.facts.width for one in seen], pa.int32()),
        "height": pa.array([one.facts.height for one in seen], pa.int32()),
        "format": pa.array([one.facts.format.lower() for one in seen], pa.string()),
        "bytes": pa.array([one.size for one in seen], pa.int64()),
        "look": pa.array(looks),
        "look_mirrored": pa.array(mirrored),
        "detail": pa.array(detail),
    }


def _half(features: np.ndarray) -> pa.Array:
    values = pa.array(np.ascontiguousarray(features, np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, features.shape[1])


def _with_columns(rows: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.append_column(name, column) if at < 0 else rows.set_column(at, name, column)
    return rows


def _unreadable(keys: pa.ChunkedArray, bad: Sequence[tuple[int, ImageError]]) -> pa.Table:
    gone = keys.take(pa.array([row for row, _ in bad], pa.int64()))
    causes = pa.array([error.cause for _, error in bad], pa.string())
    sentences = pa.array([str(error) for _, error in bad], pa.string())
    return pa.table([gone, causes, sentences, pa.nulls(len(bad), pa.string())], schema=DROPPED)
