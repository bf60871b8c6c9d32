import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from diptych.errors import ConfigError, DataError
from diptych.eval.deny_list import LabelledExamples, deny_scores, deny_threshold, filter_pictures

DENIED = torch.tensor([0.9, 0.6, 0.5, 0.2])
KEPT = torch.tensor([0.7, 0.5, 0.4, 0.3, 0.1])


def test_a_score_is_that_of_the_nearest_concept():
    scores, which = deny_scores(torch.tensor([[1.0, 0], [0.6, 0.8]]), torch.eye(2))
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.8]))
    assert which.tolist() == [0, 1]


@pytest.mark.parametrize(("max_false", "caught", "false"), [(0.0, 0.25, 0.0), (0.2, 0.5, 0.2), (0.4, 0.75, 0.4)])
def test_the_threshold_is_the_lowest_that_denies_few_enough(max_false, caught, false):
    chosen = deny_threshold(DENIED, KEPT, max_false=max_false)
    assert (chosen.caught, chosen.false) == (pytest.approx(caught), pytest.approx(false))
    lower = chosen.value - 1e-4
    assert (lower <= KEPT).float().mean() > max_false + 1e-6
    assert (chosen.denied, chosen.kept) == (4, 5)


def test_a_tie_is_kept():
    chosen = deny_threshold(torch.tensor([0.5]), torch.tensor([0.5, 0.5]), max_false=0.5)
    assert (chosen.caught, chosen.false) == (0, 0)


def test_too_few_examples_are_named():
    with pytest.raises(DataError, match=r"needs at least 100 examples to keep\. Got 5"):
        deny_threshold(DENIED, KEPT)
    with pytest.raises(DataError, match="Got 0 to deny and 5 to keep"):
        deny_threshold(torch.empty(0), KEPT)
    with pytest.raises(ConfigError, match="max_false must be at least 0"):
        deny_threshold(DENIED, KEPT, max_false=1)


@pytest.fixture
def squares(tmp_path) -> Path:
    for name, colour in (("a.png", "red"), ("b.png", "lime"), ("deny/d.png", "red"), ("keep/k.png", "lime")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"bad")
    return tmp_path


def test_a_filter_names_what_reaches_the_threshold_with_its_nearest_concept(squares, tiny_bundle):
    paths, concepts = [squares / name for name in ("a.png", "bad.png", "b.png")], ["a red kite", "a blue boat"]
    found = filter_pictures(tiny_bundle, paths, concepts, -1.0)
    cosines = tiny_bundle.encode_images([paths[0], paths[2]]) @ tiny_bundle.encode_texts(concepts).T
    by_hand = {str(path): row for path, row in zip((paths[0], paths[2]), cosines, strict=True)}
    assert [row.score for row in found.denied] == sorted((row.score for row in found.denied), reverse=True)
    for row in found.denied:
        assert row.score == pytest.approx(by_hand[row.path].max().item(), abs=1e-6)
        assert row.concept == concepts[int(by_hand[row.path].argmax())]
    assert (len(found.denied), found.pictures, found.chosen, found.threshold) == (2, 2, None, -1.0)
    assert list(found.skipped) == [str(paths[1])]
    highest = found.denied[0]
    between = (highest.score + found.denied[1].score) / 2
    assert filter_pictures(tiny_bundle, paths, concepts, between).denied == (highest,)


def test_a_threshold_chosen_on_examples_keeps_what_they_say(squares, tiny_bundle):
    shutil.copy(squares / "bad.png", squares / "keep" / "bad.png")
    examples = LabelledExamples(folder=squares, max_false=0)
    found = filter_pictures(tiny_bundle, [squares / "a.png", squares / "b.png"], ["a red kite"], examples)
    assert found.chosen is not None
    assert (found.chosen.denied, found.chosen.kept, found.chosen.false) == (1, 1, 0)
    assert found.threshold == found.chosen.value
    assert str(squares / "b.png") not in [row.path for row in found.denied]
    assert list(found.skipped) == [str(squares / "keep" / "bad.png")]


def test_an_empty_list_is_told(squares, tiny_bundle):
    with pytest.raises(DataError, match="must name a concept at least"):
        filter_pictures(tiny_bundle, [squares / "a.png"], [], 0.5)
