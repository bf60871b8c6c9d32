"""What Python callers hand over as pictures and texts: taken in the forms that are clear, else refused in a sentence.

A string is iterable, and so is a picture as an array: without a look at them, letters or rows of pixels would be taken
for items of a list. Letters: H, W.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, TypeVar, cast

import numpy as np
from PIL import Image

from diptych.errors import DataError, ImageError, TextError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_CHANNELS = (1, 3, 4)


def is_tensor(value: object) -> "TypeGuard[Tensor]":
    """Whether it is a tensor of torch, which is not imported to tell: who hands one over has done so."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_pictures(images: Iterable[T]) -> Sequence[T]:
    """Several pictures as a sequence: a list, anything with a length and places, or whatever can be gone through once.

    Raises:
        DataError: it is one picture, or has no order.
    """
    if isinstance(images, np.ndarray) or is_tensor(images):
        if images.ndim in (2, 3):
            raise DataError(
                f"images must be a list of pictures. Got one {_named(images)}: put it in a list, or several as "
                "[N, H, W, 3]."
            )
        return cast("list[T]", list(images))
    if isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image) or hasattr(images, "read"):
        raise DataError(f"images must be a list of pictures. Got one {_named(images)}: put it in a list.")
    has_places = hasattr(images, "__len__") and hasattr(images, "__getitem__")  # may read a picture when asked
    if isinstance(images, Mapping | AbstractSet) or not (has_places or isinstance(images, Iterable)):
        raise DataError(f"images must be a list of pictures. Got {_named(images)}.")
    return cast("Sequence[T]", images) if has_places else list(images)


def as_texts(texts: Iterable[str]) -> list[str]:
    """Several texts as a list; what each of them is, the tokenizer checks.

    Raises:
        TextError: it is one text, or has no order.
    """
    if isinstance(texts, str | bytes | bytearray):
        raise TextError(f"texts must be a list of strings. Got one, {_shortened(texts)}: put it in a list.")
    if isinstance(texts, Mapping | AbstractSet) or not isinstance(texts, Iterable):
        raise TextError(f"texts must be a list of strings. Got {_named(texts)}.")
    return [str(text) if isinstance(text, np.str_) else text for text in texts]


def plain_source(source: Any) -> str | Path | bytes | BinaryIO | Image.Image:
    """One picture in any form as a path, the bytes of a file, a binary file or a Pillow image.

    Args:
        source: one of these, or pixels as uint8: an array [H, W, 3], [H, W, 4] or [H, W], or a tensor [3, H, W],
            [4, H, W] or [H, W].

    Raises:
        ImageError: it is none of these.
    """
    if isinstance(source, str | Path | bytes | Image.Image):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return Path(source)
    if is_tensor(source):
        return _from_pixels(source.detach().cpu().numpy(), channels_first=True, named=_named(source))
    if isinstance(source, np.ndarray):
        return _from_pixels(source, channels_first=False, named=_named(source))
    if hasattr(source, "read"):
        return source
    raise ImageError(
        f"a picture must be a path, bytes, a binary file, a Pillow image or pixels. Got {_named(source)}.",
        "unsupported",
    )


def _from_pixels(values: np.ndarray, *, channels_first: bool, named: str) -> Image.Image:
    place = 0 if channels_first else -1
    has_channels = values.ndim == 3 and values.shape[place] in _CHANNELS
    if values.dtype != np.uint8 or not (values.ndim == 2 or has_channels) or not values.size:
        shape = "[3, H, W]" if channels_first else "[H, W, 3]"
        raise ImageError(f"pixels must be {shape}, uint8 from 0 to 255. Got {named}.", "unsupported")
    if has_channels and channels_first:
        values = np.moveaxis(values, 0, -1)
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2:] == (1,) else values))


def _named(value: object) -> str:
    """What it is, in a few words."""
    if isinstance(value, np.ndarray) or is_tensor(value):
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        return f"{kind} {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Image.Image):
        return "Pillow image"
    if isinstance(value, str | os.PathLike):
        return f"path, {_shortened(os.fspath(value))}"
    return type(value).__name__


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:76]} ..."
