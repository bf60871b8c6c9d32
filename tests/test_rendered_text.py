import numpy as np
import pytest

from diptych.errors import DataError
from diptych.sets.rendered_text import SIDE, render_text, rendered, sentences


def ink(text: str) -> np.ndarray:
    return np.asarray(render_text(text).convert("L")) < 128


def test_a_text_is_black_on_white_within_its_margins():
    picture = render_text("a charming and often affecting journey .")
    assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGB")
    dark = ink("a charming and often affecting journey .")
    assert 0.005 < dark.mean() < 0.2
    assert not dark[:16].any()
    assert not dark[:, -15:].any()


def test_a_longer_text_is_set_smaller_and_all_of_it_is_drawn():
    height = [np.flatnonzero(ink(f"{'word ' * n}end").any(axis=1)).max() for n in (1, 40, 200)]
    assert height[0] < 80
    assert height[1] > 150
    assert height[2] < SIDE - 15
    assert not np.array_equal(ink("word " * 200 + "end"), ink("word " * 200))


def test_a_text_that_cannot_fit_is_refused():
    with pytest.raises(DataError, match=r"must fit into 448 x 448 px"):
        render_text("m" * 200)


def test_sentences_come_from_glue_or_from_lines(tmp_path):
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\nit "s fine \t1\nit is dull\t0\n')
    (tmp_path / "train.txt").write_text("0 dull again\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\thidden\n")
    (tmp_path / "notes.md").write_text("x")
    found = sentences(tmp_path)
    assert found == {"validation": [('it "s fine', 1), ("it is dull", 0)], "train": [("dull again", 0)]}
    assert [(key, label) for key, _, label in rendered(found["validation"])] == [("000000", 1), ("000001", 0)]
    assert sentences(tmp_path / "train.txt") == {"train": [("dull again", 0)]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dev.tsv", "a\tb\n1\t2\n", r"columns sentence and label. It has \['a', 'b'\]"),
        ("dev.txt", "2 fine", r"sentiment 0 or 1 for each sentence. Got '2'"),
        ("other.txt", "1 fine", r"It holds none"),
        ("test.tsv", "index\tsentence\n0\thidden\n", r"It holds none"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        sentences(tmp_path)
