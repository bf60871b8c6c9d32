from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diptych.data.tokenizer import Unread
from diptych.data.video import Frame
from diptych.errors import ConfigError, DataError, TextError
from diptych.search import query
from diptych.search.query import Query, Term, weighted_sum


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "my photo.jpg", "odd.name"):
        (tmp_path / name).touch()
    return Path("photo.jpg")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("two dogs on a beach", [(1, "two dogs on a beach")]),
        ('"red car" - "truck"', [(1, "red car"), (-1, "truck")]),
        ('"red car"-"truck"', [(1, "red car"), (-1, "truck")]),
        ("red car - truck", [(1, "red car"), (-1, "truck")]),
        ("a t-shirt", [(1, "a t-shirt")]),
        ("2 * dog + .5*cat", [(2, "dog"), (0.5, "cat")]),
        ('dog - 0.5 * "a big cat" + bird', [(1, "dog"), (-0.5, "a big cat"), (1, "bird")]),
        ('- "truck" + car', [(-1, "truck"), (1, "car")]),
        ('"a + b"', [(1, "a + b")]),
        ('"a dog" "a cat"', [(1, "a dog"), (1, "a cat")]),
        ('dog 0.5 * "cat"', [(1, "dog"), (0.5, "cat")]),
        ("5 dogs", [(1, "5 dogs")]),
        ('"photo.jpg"', [(1, "photo.jpg")]),
    ],
)
def test_words_are_read_as_typed(text, terms):
    assert Query.parse(text).terms == tuple(Term(*term) for term in terms)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("photo.jpg", (Term(1, image=Path("photo.jpg")),)),
        ('photo.jpg + "at night"', (Term(1, image=Path("photo.jpg")), Term(1, "at night"))),
        (
            '0.5 * photo.jpg - image:"my photo.jpg"',
            (Term(0.5, image=Path("photo.jpg")), Term(-1, image=Path("my photo.jpg"))),
        ),
        ("my photo.jpg", (Term(1, image=Path("my photo.jpg")),)),
        ("image:odd.name", (Term(1, image=Path("odd.name")),)),
    ],
)
def test_pictures_are_told_by_their_ending_or_by_image(photo, text, terms):
    assert Query.parse(text).terms == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "each part of a query must have words"),
        ("dog +", "each part of a query must have words"),
        ("dog + - cat", "each part of a query must have words"),
        ('"dog', "a quote in a query must end"),
        ('- "dog"', "must look for something"),
        ("0 * dog", "must look for something"),
    ],
)
def test_what_is_no_query_is_told(text, message):
    with pytest.raises(ConfigError, match=message):
        Query.parse(text)


def test_a_picture_that_is_not_there_is_told_with_the_way_to_mean_words(tmp_path):
    with pytest.raises(DataError, match=r'no such file exists\. To search for the words, write "gone\.jpg"'):
        Query.parse("gone.jpg")


@given(st.text(max_size=30))
def test_any_text_is_a_query_or_a_sentence(text):
    try:
        query = Query.parse(text)
    except (ConfigError, DataError):
        return
    assert all(term.text.strip() or term.image for term in query.terms)


class Towers:
    """A stand-in for a bundle with unit vectors one can add by hand."""

    embed_dim = 3
    text_weight = 1.0

    def unread(self, texts):
        return [Unread(text=text, words=2, unknown=2 - (text == "x z")) for text in texts if "z" in text]

    def encode_texts(self, texts):
        return np.eye(3, dtype=np.float32)[["xy".index(text) for text in texts]]

    def encode_images(self, images):
        return np.eye(3, dtype=np.float32)[[2] * len(images)]


def test_features_are_the_weighted_sum_of_unit_length(photo):
    features = Query.parse("2 * x - y + 2 * photo.jpg").features(Towers())
    torch.testing.assert_close(features, np.array([2, -1, 2], np.float32) / 3)
    without = Query.parse("x").without("y").features(Towers())
    torch.testing.assert_close(without, np.array([1, -1, 0], np.float32) / 2**0.5)


def test_words_of_which_the_model_reads_none_are_refused():
    with pytest.raises(TextError, match=r"'z' is no text to this model.*take a model that reads any letters"):
        Query.parse("x + z").features(Towers())


def test_a_weighted_sum_is_over_the_terms_of_all_parts_and_a_part_may_be_empty():
    x, y, z = np.eye(3, dtype=np.float32)
    found = weighted_sum([([2.0, -1.0], np.stack([x, y])), ([], np.empty((0, 3), np.float32)), ([2.0], z[None])])
    torch.testing.assert_close(found, np.array([2, -1, 2], np.float32) / 3)
    with pytest.raises(ConfigError, match="cancel out"):
        weighted_sum([([1.0], x[None]), ([-1.0], x[None])])


def test_terms_that_cancel_out_are_told():
    with pytest.raises(ConfigError, match="cancel out"):
        Query.parse("x - x").features(Towers())


def test_a_file_that_is_there_is_no_words_whatever_its_ending(photo):
    for name in ("other.psd", "photo.old", "clip.mts"):
        photo.with_name(name).touch()
        assert Query.parse(name).terms == (Term(1, image=Path(name)),)
    photo.with_name("dog").touch()
    for words in ("dog", "gone.psd", "a photo.old thing", "x" * 300):
        assert Query.parse(words).terms == (Term(1, words),)


def test_a_film_is_the_mean_of_its_frames(photo, monkeypatch):
    photo.with_name("film.mp4").touch()
    frames = [Frame(Image.new("RGB", (4, 4), colour), 0.0) for colour in ("red", "blue")]
    monkeypatch.setattr(query, "sample_frames", lambda path: frames if path == Path("film.mp4") else [])

    class Coloured(Towers):
        def encode_images(self, images):
            return np.eye(3, dtype=np.float32)[[0 if image.getpixel((0, 0))[0] else 1 for image in images]]

    features = Query.parse("film.mp4").features(Coloured())
    torch.testing.assert_close(features, np.array([0.5**0.5, 0.5**0.5, 0], np.float32))
