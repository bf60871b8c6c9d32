import shutil
from pathlib import Path

import pytest
from PIL import Image

from diptych.errors import DataError
from diptych.eval.deny_list import LabelledExamples, filter_pictures


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
