"""From a picture as it came to the pixels that a model takes. Runs on threads; what can be seen without decoding is
looked at first.
"""

import io
import math

import numpy as np

from diptych.data.decoding import decode
from diptych.data.facts import Facts
from diptych.data.images import FAST_MARGIN, Preprocess
from diptych.errors import ImageError
from diptych.serve.data_urls import picture_bytes

# Each scan of a progressive JPEG is a pass over all of its pixels, and takes a dozen bytes. Cameras write about ten.
_MOST_SCANS = 100
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
# A JPEG that is decoded at an eighth of its size still has all of its bytes unpacked, by a stranger's wish.
_SCALED = 4


def decode_picture(source: str | bytes, where: str, preprocess: Preprocess) -> np.ndarray:
    """Pixels of one picture. A large JPEG is decoded at a part of its size, as when a folder is indexed.

    Args:
        source: a data URL, base64, or the bytes of a file.
        where: what messages call it.
        preprocess: the model's; its `max_pixels` is the limit of what is decoded. A picture that is decoded at a part
            of its size may have four times as many by its header, no more.

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
    most = _SCALED * preprocess.max_pixels

    def check(facts: Facts) -> None:
        if facts.width * facts.height > most:
            raise ImageError(
                f"{where} must have at most {preprocess.max_pixels:,} pixels, or {most:,} where it is decoded at a "
                f"part of its size. It has {facts.width:,} x {facts.height:,}: send it smaller.",
                "too large",
            )

    at_least = math.ceil(FAST_MARGIN * preprocess.image_size)
    return preprocess.pixels(decode(io.BytesIO(data), where, preprocess.max_pixels, at_least=at_least, on_facts=check))
