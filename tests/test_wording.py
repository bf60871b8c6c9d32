from pathlib import Path

import pytest

from diptych.audit.wording import Wording, read_wordings, worded, wording
from diptych.errors import DataError
from probes import ColourReader, colour_set


@pytest.mark.parametrize(
    ("name", "change", "becomes"),
    [
        ("dog", "as it is", "dog"),
        ("dog", "capitals", "DOG"),
        ("hot dog", "title", "Hot Dog"),
        ("dog", "plural", "dogs"),
        ("fox", "plural", "foxes"),
        ("city", "plural", "cities"),
        ("key", "plural", "keys"),
        ("knife", "plural", "knives"),
        ("bird", "lost letter", {"brd", "bid", "bir"}),
        ("bird", "doubled letter", {"biird", "birrd", "birdd"}),
        ("bird", "swapped letters", {"brid", "bidr"}),
        ("7", "lost letter", "7"),
        ("a b", "swapped letters", "a b"),
    ],
)
def test_names_become_what_a_wording_asks_for(name, change, becomes):
    found = {worded(name, change, seed=seed) for seed in range(30)}
    assert found == becomes if isinstance(becomes, set) else found == {becomes}


def test_the_wordings_that_ship_differ_and_begin_with_the_base():
    shipped = read_wordings()
    assert shipped[0].title == "a photo of a {}."
    assert len({one.title for one in shipped}) == len(shipped) >= 20
    assert {"template", "synonym", "article", "plural", "capitals", "full stop", "typo", "language"} == {
        one.kind for one in shipped
    }


def test_a_wrong_file_of_wordings_is_named(tmp_path: Path):
    path = tmp_path / "own.toml"
    path.write_text('[[wording]]\nkind = "template"\ntemplate = "a {}"\n')
    with pytest.raises(DataError, match="two wordings or more"):
        read_wordings(path)
    path.write_text('[[wording]]\nkind = "x"\ntemplate = "a"\n[[wording]]\nkind = "x"\ntemplate = "b {}"\n')
    with pytest.raises(DataError, match=r"must hold one {}"):
        read_wordings(path)


def test_spread_worst_and_changed_answers_are_those_of_a_model_that_reads_small_letters_alone(tmp_path: Path):
    asked = (
        Wording(kind="template", template="a {}"),
        Wording(kind="template", template="the {}."),
        Wording(kind="typo", template="a {}", name="capitals"),
    )
    chapter = wording(ColourReader(), colour_set(tmp_path / "set"), wordings=asked)  # pyright: ignore[reportArgumentType]
    found = {(one.case["wording"], one.case["varies"]): one for one in chapter.results}
    assert found["a {}", "template"].value == found["the {}.", "template"].value == 1
    assert found["a {} (capitals)", "typo"].value == 0
    assert found["mean", "all"].value == pytest.approx(2 / 3)
    assert found["mean", "all"].numbers == {"best": 1, "worst": 0, "spread": 1}
    assert found["right in each", "all"].value == 0
    assert found["answer changes", "all"].value == pytest.approx(8 / 12)  # blue, the first class, stays
    plain = found["mean", "plain English"]
    assert (plain.value, plain.numbers["spread"]) == (1, 0)
    assert found["answer changes", "plain English"].value == 0
    same, other = chapter.contrasts
    assert same.comparison.p_value == 1
    assert other.comparison.difference == -1
    assert other.comparison.only_a == 12
    assert other.is_significant
    assert chapter.examples
    assert "red; in other wordings blue" in {one.caption for one in chapter.examples}


def test_an_article_follows_the_name(tmp_path: Path):
    for name in ("owl", "dog"):
        (tmp_path / name).mkdir()
    data = colour_set(tmp_path / "set")
    asked = (Wording(kind="article", template="a {}."), Wording(kind="article", template="a {}.", article=True))
    chapter = wording(ColourReader(), data, wordings=asked)  # pyright: ignore[reportArgumentType]
    assert chapter.results[-1].prompts.templates == ("{}.",)
    assert chapter.results[-1].prompts.names == ("a blue", "a green", "a red")
