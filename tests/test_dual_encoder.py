"""What every engine shares, on an engine whose towers one can see through."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from bundles import make, new_tokenizer
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, ImageError, TextError
from diptych.weights.bundle import Bundle
from diptych.weights.dual_encoder import DualEncoder, LogitHead
from diptych.weights.engines import load

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (9, 9, 9)]
TEXTS = ["a red kite", "a", "a blue boat", "a red boat a red boat", ""]


class Plain(DualEncoder):
    """A picture's feature is the place of its strongest colour; a text's is told by how many tokens it has."""

    softmax = LogitHead(logit_scale=4.0)
    padding = False

    @property
    def embed_dim(self) -> int:
        return 3

    @property
    def head(self) -> LogitHead:
        return self.softmax

    @property
    def reads_padding(self) -> bool:
        return self.padding

    @property
    def golden_texts(self) -> tuple[str, ...]:
        return ("a",)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        CALLS.append(pixels.shape)
        return np.eye(3, dtype=np.float32)[pixels.mean(axis=(1, 2)).argmax(axis=1)]

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        CALLS.append(tokens.shape)
        length = (tokens == self.tokenizer.end_token_id).argmax(axis=1)
        return np.eye(3, dtype=np.float32)[length % 3]

    def in_torch(self) -> Bundle:
        raise AssertionError

    def fingerprint(self) -> str:
        return ""


class Sigmoid(Plain):
    softmax = LogitHead(kind="sigmoid", logit_scale=10.0, logit_bias=-2.0)


class ReadsPadding(Plain):
    padding = True


CALLS: list[tuple[int, ...]] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def engine(kind: type[Plain] = Plain, tokenizer: Tokenizer | None = None) -> Plain:
    return kind(preprocess=Preprocess(image_size=8), tokenizer=tokenizer or new_tokenizer())


def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (12, 9), colour) for colour in COLOURS]


def test_pictures_go_in_batches_and_come_back_in_their_order():
    features = engine().encode_images(pictures(), batch_size=2)
    assert features.argmax(axis=1).tolist() == [0, 1, 2, 0, 0]
    assert (features.shape, features.dtype) == ((5, 3), np.float32)
    assert CALLS == [(2, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)]


def lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, its end included."""
    return [row.index(tokenizer.end_token_id) + 1 for row in tokenizer.encode(texts).tolist()]


def test_texts_go_from_the_shortest_to_the_longest_in_batches_cut_after_the_longest_of_each():
    plain = engine()
    features = plain.encode_texts(TEXTS, batch_size=2)
    each = lengths(plain.tokenizer, TEXTS)
    assert features.argmax(axis=1).tolist() == [(length - 1) % 3 for length in each]
    assert (features.shape, features.dtype) == ((5, 3), np.float32)
    inorder = sorted(each)
    assert inorder != each
    assert [(2, inorder[1]), (2, inorder[3]), (1, inorder[4])] == CALLS


def test_a_batch_of_some_texts_ends_before_one_that_it_would_have_to_be_filled_up_for():
    plain = engine()
    short, long = "boat", "a small red kite above a boat"
    plain.encode_texts([long] * 20 + [short] * 17)
    of_short, of_long = lengths(plain.tokenizer, [short, long])
    assert [(17, of_short), (20, of_long)] == CALLS
    CALLS.clear()
    plain.encode_texts([long] * 5 + [short] * 4)  # a batch for each would cost more than the padding
    assert [(9, of_long)] == CALLS


def test_nothing_is_cut_for_a_tower_that_reads_the_padding():
    engine(ReadsPadding).encode_texts(TEXTS, batch_size=4)
    assert CALLS == [(4, 16), (1, 16)]


def test_no_pictures_and_no_texts_give_no_rows_and_ask_no_tower():
    plain = engine()
    for features in (plain.encode_images([]), plain.encode_texts([])):
        assert (features.shape, features.dtype) == ((0, 3), np.float32)
    assert CALLS == []


def test_what_cannot_be_encoded_is_refused(tmp_path):
    plain = engine()
    with pytest.raises(ImageError, match=r"gone\.png must be a picture"):
        plain.encode_images([*pictures(), tmp_path / "gone.png"])
    with pytest.raises(DataError, match="images must be a list of pictures"):
        plain.encode_images(pictures()[0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TextError, match="must fit 16 tokens"):
        plain.encode_texts(["word " * 30])
    assert plain.encode_texts(["word " * 30], truncate=True).shape == (1, 3)
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1\. Got 0"):
        plain.encode_texts(TEXTS, batch_size=0)


X, Y = np.array([[1.0, 0.0]], np.float32), np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)


def test_logits_and_probabilities_of_softmax_are_worked_by_hand():
    plain = engine()
    assert plain.logit_scale == 4
    logits = plain.logits_per_image(X, Y)
    np.testing.assert_allclose(logits, [[2.4, -4.0]], rtol=1e-6)
    expected = [[1 / (1 + math.exp(-6.4)), 1 / (1 + math.exp(6.4))]]
    np.testing.assert_allclose(plain.probabilities(logits), expected, rtol=1e-5)


def test_logits_and_probabilities_of_sigmoid_are_worked_by_hand():
    sigmoid = engine(Sigmoid)
    logits = sigmoid.logits_per_image(X, Y)
    np.testing.assert_allclose(logits, [[4.0, -12.0]], rtol=1e-6)
    expected = [[1 / (1 + math.exp(-4)), 1 / (1 + math.exp(12))]]
    np.testing.assert_allclose(sigmoid.probabilities(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(sigmoid.probabilities(np.log([[3.0, 1 / 9]])), [[0.75, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("kind", [Plain, Sigmoid])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_probabilities_are_those_of_torch_also_of_logits_far_away(kind, scale):
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * np.float32(scale)
    twin = torch.from_numpy(logits)
    expected = (twin.sigmoid() if kind is Sigmoid else twin.softmax(dim=1)).numpy()
    found = engine(kind).probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("kind", [Plain, Sigmoid])
def test_no_pictures_and_no_labels_have_no_probabilities(kind):
    one = engine(kind)
    for n, c in ((0, 2), (3, 0), (0, 0)):
        logits = one.logits_per_image(np.zeros((n, 2), np.float32), np.zeros((c, 2), np.float32))
        assert one.probabilities(logits).shape == (n, c)


def test_a_bundle_has_the_logits_and_probabilities_of_its_model():
    bundle = make("tiny-vit", new_tokenizer())
    of_pictures, of_texts = bundle.encode_images(pictures()), bundle.encode_texts(TEXTS)
    logits = bundle.logits_per_image(of_pictures, of_texts)
    with torch.no_grad():
        expected = bundle.model.logits_per_image(torch.from_numpy(of_pictures), torch.from_numpy(of_texts))
        probabilities = bundle.model.probabilities(expected)
    torch.testing.assert_close(logits, expected.numpy(), rtol=0, atol=1e-5)
    torch.testing.assert_close(bundle.probabilities(logits), probabilities.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text"), [("diptych-photo", "a cat [SEP] dog"), ("diptych-pictogram", "cat </s> dog")]
)
def test_a_text_that_names_an_end_token_is_read_to_its_own_end_whatever_is_asked_with_it(name, text):
    model = load(name)
    [alone] = model.encode_texts([text])
    np.testing.assert_allclose(alone, model.encode_tokens(model.tokenizer.encode([text]))[0], atol=1e-6)
    np.testing.assert_allclose(alone, model.encode_texts([text, "a much longer text of a red boat"])[0], atol=1e-6)
    assert alone @ model.encode_texts([text.split()[0]])[0] < 0.99
