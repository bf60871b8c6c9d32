import numpy as np
import pytest
import torch
from PIL import Image

import diptych
from diptych.errors import DataError


class Towers:
    """A stand-in for a bundle with features one can work out by hand."""

    texts = None

    def encode_images(self, pictures):
        return np.array([[1.0, 0.0]] * len(pictures), np.float32)

    def encode_texts(self, texts):
        self.texts = texts
        return np.array([[0.6, 0.8], [-0.6, 0.8], [1.0, 0.0]], np.float32)


def test_score_is_two_and_a_half_times_the_cosine_and_never_negative():
    towers = Towers()
    scores = diptych.score(towers, [0, 1, 2], ["a", "b", "c"])
    torch.testing.assert_close(scores, np.array([1.5, 0.0, 2.5], np.float32))
    assert towers.texts == ["A photo depicts a", "A photo depicts b", "A photo depicts c"]


def test_score_goes_row_by_row_through_a_model(tiny_bundle):
    pictures, texts = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")], ["a kite", "a boat"]
    together = diptych.score(tiny_bundle, pictures, texts, prefix="")
    alone = np.concatenate(
        [diptych.score(tiny_bundle, [p], [t], prefix="") for p, t in zip(pictures, texts, strict=True)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_each_picture_has_one_text(tiny_bundle):
    with pytest.raises(DataError, match="Got 1 pictures and 2 texts"):
        diptych.score(tiny_bundle, [Image.new("RGB", (4, 4))], ["a", "b"])
