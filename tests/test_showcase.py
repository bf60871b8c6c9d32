"""What a report shows of a result, on four hand-made classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diptych.eval.zero_shot import LabelledFeatures
from diptych.pages.showcase import Showcase, free_labels, showcase
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

NAMES = ("blue", "green", "grey", "red")


@pytest.fixture
def data(tmp_path: Path) -> LabelledImages:
    """One picture of each class, in its colour."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), name).save(tmp_path / name / "0.png")
    return read_labelled(tmp_path)


@pytest.fixture
def encoded() -> LabelledFeatures:
    # Blue and green are told right; grey is taken for red, and red, less surely, for grey.
    features = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0.8, 0.6]])
    return LabelledFeatures(features, torch.tensor([0, 1, 2, 3]), (0, 1, 2, 3), {})


def shown(
    data: LabelledImages, encoded: LabelledFeatures, *, cards: int = 12, words: str = "green", why: Any = None
) -> Showcase:
    query = torch.tensor([[0.0, 0.9, 0.3, 0.2]])
    probabilities = (10 * encoded.image_features).softmax(dim=1)
    return showcase(data, encoded, probabilities, queries=[words], query_features=query, why=why, cards=cards, hits=2)


def colour(picture: object) -> tuple[int, int, int]:
    assert isinstance(picture, Image.Image)
    pixel = picture.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def test_right_and_wrong_predictions_are_told_apart_and_carry_their_own_picture(data, encoded):
    parts = shown(data, encoded)
    assert {p.truth for p in parts.right} == {"blue", "green"}
    assert {(p.truth, p.guesses[0][0]) for p in parts.wrong} == {("grey", "red"), ("red", "grey")}
    blue = next(p for p in parts.right if p.truth == "blue")
    assert colour(blue.picture) == (0, 0, 255)
    assert blue.guesses[0] == ("blue", pytest.approx(torch.tensor([10.0, 0, 0, 0]).softmax(0)[0].item()))


def test_cards_bound_the_examples_and_the_draw_is_a_function_of_the_seed(data, encoded):
    one, again = shown(data, encoded, cards=1), shown(data, encoded, cards=1)
    assert len(one.right) == len(one.wrong) == len(one.confusions) == 1
    assert [p.truth for p in one.right + one.wrong] == [p.truth for p in again.right + again.wrong]


def test_confusions_show_truth_then_guess_and_the_surest_first(data, encoded):
    first, second = shown(data, encoded).confusions
    assert (first[0], first[2]) == ("grey", "red")
    assert colour(first[1]) == (128, 128, 128)
    assert colour(first[3]) == (255, 0, 0)
    assert (second[0], second[2]) == ("red", "grey")


def test_a_query_finds_its_nearest_pictures_best_first_and_knows_its_match(data, encoded):
    ((query, hits),) = shown(data, encoded).retrievals
    assert query == "green"
    assert [(colour(hit.picture), hit.is_match) for hit in hits] == [((0, 128, 0), True), ((255, 0, 0), False)]
    assert [hit.score for hit in hits] == pytest.approx([0.9, 0.8 * 0.3 + 0.6 * 0.2])


def test_nobody_knows_what_matches_words_that_are_no_class(data, encoded):
    ((_, hits),) = shown(data, encoded, words="grass").retrievals
    assert [(colour(hit.picture), hit.is_match) for hit in hits] == [((0, 128, 0), None), ((255, 0, 0), None)]
    assert [hit.why for hit in hits] == [None, None]


def test_each_picture_that_was_found_carries_the_map_of_its_own_query(data, encoded):
    def why(query: str, picture: Image.Image) -> Image.Image:
        assert query == "green"
        return Image.new("RGB", (2, 2), (1, 2, 3) if colour(picture) == (0, 128, 0) else (4, 5, 6))

    ((_, hits),) = shown(data, encoded, why=why).retrievals
    assert [colour(hit.why) for hit in hits] == [(1, 2, 3), (4, 5, 6)]


def test_a_picture_that_could_not_be_read_does_not_shift_the_others(data, encoded):
    kept = LabelledFeatures(encoded.image_features[1:], encoded.targets[1:], (1, 2, 3), {"truncated": 1})
    green = next(p for p in shown(data, kept).right if p.truth == "green")
    assert colour(green.picture) == (0, 128, 0)


def test_free_labels_need_not_be_class_names(data, encoded):
    probabilities = torch.tensor([[0.9, 0.3], [0.2, 0.6], [0, 0], [0, 0]])  # sigmoid: they need not add up to 1
    sky, grass = free_labels(data, encoded, probabilities, ["the sky", "grass"], rows=[0, 1])
    assert sky.truth == "blue"
    assert sky.guesses == (("the sky", pytest.approx(0.9)), ("grass", pytest.approx(0.3)))
    assert (grass.truth, grass.guesses[0][0]) == ("green", "grass")
