"""Pictures of any evaluation set become rows of features, and those that cannot be read are counted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.data.ahead import decoded_ahead, or_error
from diptych.errors import DataError, ImageError
from diptych.sets.pictures import Pictures

_PIXELS_AT_ONCE = 100_000_000  # in one batch; large photos go in smaller batches, or they would fill the memory


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """Features of the pictures that could be read: what a cache holds of a model and a split."""

    image_features: Tensor  # [N, D], of unit length where the encoder makes them so
    kept: tuple[int, ...]  # N positions in the set
    skipped: Mapping[str, int]  # pictures left out, by cause


def encode_pictures(
    encode: Callable[[Sequence[Image.Image]], np.ndarray], pictures: Pictures, *, batch_size: int = 256
) -> PictureFeatures:
    """Pictures to features. A picture that cannot be read is counted by its cause and left out.

    Args:
        encode: B pictures to [B, D], e.g. a bundle's `encode_images`.
        pictures: decoded in threads while the model works.
        batch_size: pictures a call.

    Raises:
        DataError: no picture can be read.
    """
    kept: list[int] = []
    skipped: Counter[str] = Counter()
    features: list[Tensor] = []
    batch: list[Image.Image] = []
    pixels = 0
    with decoded_ahead(or_error(pictures.open), range(len(pictures)), batch_size) as opened:
        for index, picture in enumerate(opened):
            if isinstance(picture, ImageError):
                skipped[picture.cause] += 1
                continue
            kept.append(index)
            batch.append(picture)
            pixels += picture.width * picture.height
            if len(batch) == batch_size or pixels >= _PIXELS_AT_ONCE:
                features.append(torch.as_tensor(encode(batch)))
                batch, pixels = [], 0
    if batch:
        features.append(torch.as_tensor(encode(batch)))
    if not features:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in skipped.items())
        raise DataError(
            f"{pictures.name} must have a picture that can be read. It has none of {len(pictures):,} ({causes})."
        )
    return PictureFeatures(torch.cat(features), tuple(kept), dict(skipped))
