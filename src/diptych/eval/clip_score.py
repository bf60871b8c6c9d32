"""How well a picture and a text fit: CLIPScore."""

from collections.abc import Sequence

import numpy as np

from diptych.data.images import ImageSource
from diptych.data.inputs import as_pictures, as_texts
from diptych.errors import DataError
from diptych.weights.dual_encoder import DualEncoder

PREFIX = "A photo depicts "
WEIGHT = 2.5


def score(
    bundle: DualEncoder, pictures: Sequence[ImageSource], texts: Sequence[str], *, prefix: str = PREFIX
) -> np.ndarray:
    """CLIPScore of each picture with its text: 2.5 times their cosine, and 0 where that is negative.

    Values of different models cannot be compared; those of the paper are of OpenAI's ViT-B/32.
    Source: Hessel et al., arXiv:2104.08718, section 3.

    Args:
        bundle: the model.
        pictures: N pictures.
        texts: N texts, row by row.
        prefix: put before each text, as the paper does.

    Returns:
        [N] float32, 0 to 2.5.

    Raises:
        DataError: there are not as many texts as pictures, or it is no list, but one picture.
        ImageError: a picture cannot be read.
        TextError: a text is too long for the model.
    """
    pictures, texts = as_pictures(pictures), as_texts(texts)
    if len(pictures) != len(texts):
        raise DataError(f"each picture must have one text. Got {len(pictures)} pictures and {len(texts)} texts.")
    image_features = bundle.encode_images(pictures)  # [N, D]
    text_features = bundle.encode_texts([prefix + text for text in texts])  # [N, D]
    return WEIGHT * np.maximum((image_features * text_features).sum(axis=1), 0)
