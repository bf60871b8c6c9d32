"""From a picture as it came to the pixels that a model takes. Runs on threads; what can be seen without decoding is
looked at first.
"""

import io
import math

import numpy as np

from diptych.data.images import FAST_MARGIN, Preprocess, open_image
from diptych.errors import ImageError
from diptych.serve.data_urls import picture_bytes

# Each scan of a progressive JPEG is a pass over all of its pixels, and takes a dozen bytes. Cameras write about ten.
_MOST_SCANS = 100
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"


def decode_picture(source: str | bytes, where: str, preprocess: Preprocess, *, max_pixels: int) -> np.ndarray:
    """Pixels of one picture. A large JPEG is decoded at a part of its size, as when a folder is indexed.

    Args:
        source: a data URL, base64, or the bytes of a file.
        where: what messages call it.
        preprocess: the model's.
        max_pixels: more are refused by the header.

    Returns:
        [S, S, 3] uint8.

    Raises:
        ImageError: it is no picture, damaged, too large, or made to be slow.
    """
    try:
        data = picture_bytes(source) if isinstance(source, str) else source
    except ImageError as error:
        raise ImageError(f"{where}: {error}", error.cause) from error
    if data.startswith(_JPEG) and (scans := data.count(_SCAN)) > _MOST_SCANS:
        cure = "Save it as a baseline JPEG or a PNG."
        raise ImageError(f"{where} must have at most {_MOST_SCANS} scans, and has {scans:,}. {cure}", "too slow")
    file = _NamedFile(data)
    file.name = where
    at_least = math.ceil(FAST_MARGIN * preprocess.image_size)
    return preprocess.pixels(open_image(file, max_pixels=max_pixels, at_least=at_least))


class _NamedFile(io.BytesIO):
    name: str
