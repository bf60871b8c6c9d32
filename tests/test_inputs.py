import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.classify import ZeroShotClassifier
from diptych.data.images import open_image
from diptych.data.inputs import as_pictures, as_texts, plain_source
from diptych.embed import embed_images
from diptych.errors import ConfigError, DataError, ImageError, TextError
from diptych.eval.clip_score import score
from diptych.search.query import Query
from diptych.weights.bundle import Bundle

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


class PathOfOthers:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def test_a_picture_is_the_same_in_every_form(tmp_path: Path):
    picture, file = Image.fromarray(PIXELS), io.BytesIO()
    picture.save(file, "PNG")
    path, content = tmp_path / "a.png", file.getvalue()
    path.write_bytes(content)
    several = [
        *(path, str(path), PathOfOthers(path), content, bytearray(content), memoryview(content), io.BytesIO(content)),
        *(picture, PIXELS, torch.from_numpy(PIXELS).permute(2, 0, 1), np.asfortranarray(PIXELS)),
    ]
    assert all((np.asarray(open_image(one)) == PIXELS).all() for one in several)  # pyright: ignore[reportArgumentType]


def test_pixels_may_be_grey_or_have_alpha():
    grey = PIXELS[..., 0]
    for one in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert plain_source(one).getpixel((3, 2)) == grey[2, 3]  # pyright: ignore[reportAttributeAccessIssue]
    clear = np.dstack([PIXELS, np.zeros_like(grey)])
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (PIXELS / 255, "array [40, 50, 3] of float64"),
        (PIXELS.transpose(2, 0, 1), "array [3, 40, 50] of uint8"),
        (torch.zeros(3, 8, 8), "tensor [3, 8, 8] of float32"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "tensor [8, 8, 3] of uint8"),
        (np.zeros((0, 5, 3), np.uint8), "array [0, 5, 3] of uint8"),
        (7, "Got int"),
        (None, "Got NoneType"),
        (["a.jpg"], "Got list"),
    ],
)
def test_what_is_no_picture_is_named(source, got: str):
    with pytest.raises(ImageError, match=re.escape(got)):
        open_image(source)


def test_several_come_as_any_sequence_and_are_not_read_before_their_time():
    class Lazy:
        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> bytes:
            raise AssertionError

    lazy = Lazy()
    assert as_pictures(lazy) is lazy  # pyright: ignore[reportArgumentType]
    assert as_pictures(name for name in "ab") == ["a", "b"]
    assert len(as_pictures(np.stack([PIXELS, PIXELS]))) == 2
    assert as_texts(np.array(["a", "b"])) == as_texts(name for name in "ab") == ["a", "b"]
    assert type(as_texts(np.array(["a"]))[0]) is str


ONE_PICTURE = ["a.jpg", Path("a.jpg"), b"\xff", io.BytesIO(b""), Image.new("RGB", (2, 2)), PIXELS, torch.zeros(3, 2, 2)]


@pytest.mark.parametrize("one", ONE_PICTURE, ids=lambda one: type(one).__name__)
def test_one_picture_where_several_are_asked_for_is_said_by_every_door(tiny_bundle: Bundle, one):
    labels = ZeroShotClassifier(tiny_bundle, ["a", "b"])
    doors = (tiny_bundle.encode_images, labels, lambda images: embed_images(tiny_bundle, images))
    for door in (*doors, lambda images: score(tiny_bundle, images, ["a"])):
        with pytest.raises(DataError, match=r"images must be a list of pictures\. Got one .*: put it in a list"):
            door(one)


@pytest.mark.parametrize("no_list", [7, None, {"a.jpg": 1}, {"a.jpg"}], ids=lambda one: type(one).__name__)
def test_what_has_no_order_is_no_list(tiny_bundle: Bundle, no_list):
    with pytest.raises(DataError, match=r"images must be a list of pictures\. Got "):
        tiny_bundle.encode_images(no_list)
    with pytest.raises(TextError, match=r"texts must be a list of strings\. Got "):
        tiny_bundle.encode_texts(no_list)


@pytest.mark.parametrize("one", ["a dog", b"a dog"])
def test_one_text_where_several_are_asked_for_is_said(tiny_bundle: Bundle, one):
    for door in (tiny_bundle.encode_texts, lambda texts: score(tiny_bundle, [PIXELS], texts)):
        with pytest.raises(TextError, match=r"texts must be a list of strings\. Got one, .*a dog'?: put it in a list"):
            door(one)


def test_pixels_and_what_is_gone_through_once_give_the_usual_features(tiny_bundle: Bundle):
    usual = tiny_bundle.encode_images([Image.fromarray(PIXELS)])
    assert np.array_equal(tiny_bundle.encode_images(one for one in [PIXELS]), usual)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(tiny_bundle.encode_images(PIXELS[None]), usual)  # pyright: ignore[reportArgumentType]
    words = ["a dog", "a cat"]
    texts = tiny_bundle.encode_texts(words)
    assert np.array_equal(tiny_bundle.encode_texts(word for word in words), texts)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(tiny_bundle.encode_texts(np.array(words)), texts)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(tiny_bundle.tokenizer(words), tiny_bundle.tokenizer.encode(words))
    once = ZeroShotClassifier(tiny_bundle, (word for word in words))  # pyright: ignore[reportArgumentType]
    assert once.labels == ("a dog", "a cat")
    with pytest.raises(DataError, match=r"labels must be a list"):
        ZeroShotClassifier(tiny_bundle, {"a dog": 0})  # pyright: ignore[reportArgumentType]


def test_a_query_is_words_or_a_picture_in_any_form(tiny_bundle: Bundle):
    asked = Query.of(Image.fromarray(PIXELS)).features(tiny_bundle)
    torch.testing.assert_close(asked, tiny_bundle.encode_images([PIXELS])[0])
    assert Query.of(PIXELS).terms[0].weight == 1
    assert Query.of("dog - 0.5*cat") == Query.parse("dog - 0.5*cat")
    assert Query.of(Query.parse("dog")) == Query.parse("dog")
    with pytest.raises(ConfigError, match=r"a query must be words, a picture or a Query"):
        Query.of(["dog", "cat"])  # pyright: ignore[reportArgumentType]
