"""Pictures of rows as models and detectors see them: decoded ahead, those that cannot be read told by their cause."""

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
from PIL import Image

from diptych.data.ahead import decoded_ahead, or_error
from diptych.data.decoding import decode
from diptych.data.images import MAX_PIXELS
from diptych.errors import ImageError
from diptych.rows.columns import PICTURE
from diptych.rows.stage import DROPPED
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.engines import load
from diptych.weights.packaged import DEFAULT_TOWERS

R = TypeVar("R")
BATCH = 64  # pictures a forward pass


@functools.cache
def model_of(name: str | None) -> DualEncoder:
    """A model as `diptych.load` takes it, loaded once a process; None is `DEFAULT_TOWERS`, whose cosines are those of
    one model.
    """
    return load(name or DEFAULT_TOWERS)


def seen(rows: pa.Table, look: Callable[[Image.Image], R], *, ahead: int = BATCH) -> Iterator[R | ImageError]:
    """What is made of each picture, in order.

    Args:
        rows: N rows with the column `picture`.
        look: of a picture, upright RGB; on threads, safe to call from several.
        ahead: results that may wait for the caller.
    """

    def looked(data: pa.Buffer | None) -> R:
        file = io.BytesIO(data if data is not None else b"")
        return look(decode(file, "the picture", MAX_PIXELS))

    with decoded_ahead(or_error(looked), (picture.as_buffer() for picture in rows[PICTURE]), ahead) as results:
        yield from results


def unreadable(keys: pa.ChunkedArray, bad: Sequence[tuple[int, ImageError]]) -> pa.Table:
    """Rows of the ledger for pictures that cannot be read: number of the row, and why."""
    gone = keys.take(pa.array([row for row, _ in bad], pa.int64()))
    causes = pa.array([error.cause for _, error in bad], pa.string())
    sentences = pa.array([str(error) for _, error in bad], pa.string())
    return pa.table([gone, causes, sentences, pa.nulls(len(bad), pa.string())], schema=DROPPED)
