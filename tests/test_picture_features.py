import pytest
import torch

from diptych.errors import DataError
from diptych.eval.picture_features import encode_pictures
from diptych.sets.pictures import Pictures


class Colours:
    """A picture's file is one byte, its shade."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content


def ppm(shade: int) -> Colours:
    return Colours(b"P6 2 2 255\n" + bytes([shade] * 12))


def pictures(*sources: Colours) -> Pictures:
    return Pictures(name="set", split="test", keys=tuple(map(str, range(len(sources)))), _sources=sources)


def shades(images):
    return torch.tensor([[float(image.getpixel((0, 0))[0])] for image in images])


def test_rows_say_which_pictures_they_come_from_and_what_was_left_out():
    many = pictures(*map(ppm, range(40)), Colours(b""), ppm(99))
    encoded = encode_pictures(shades, many, batch_size=7)
    assert encoded.image_features[:, 0].tolist() == [*range(40), 99]
    assert encoded.kept == (*range(40), 41)
    assert encoded.skipped == {"empty": 1}


def test_a_set_without_a_good_picture_is_named():
    with pytest.raises(DataError, match=r"set must have a picture that can be read. It has none of 2 \(empty 2\)"):
        encode_pictures(shades, pictures(Colours(b""), Colours(b"")))
