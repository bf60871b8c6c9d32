from pathlib import Path

import pytest

from diptych.audit.groups import EXAMPLES, check_columns, keys_of, subjects
from diptych.audit.probes import PromptSet
from diptych.errors import ConfigError
from diptych.eval.features import ModelFeatures
from diptych.sets.grouped import read_grouped
from diptych.weights.bundle import Bundle
from oracles import paint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, of which one cannot be read."""
    for number in range(4):
        paint(tmp_path / f"{number}.png", number)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    ages = ("0.png,3-9,a", "1.png,20-29,a", "2.png,3-9,b", "3.png,,a", "broken.png,70+,a")
    (tmp_path / "groups.csv").write_text("\n".join(["key,age,place", *ages]))
    return tmp_path


def test_groups_follow_the_pictures_that_can_be_read(folder: Path, tiny_bundle: Bundle):
    people = subjects(ModelFeatures(tiny_bundle), read_grouped(folder))
    assert people.keys == ("0.png", "1.png", "2.png", "3.png")
    members = people.members("age")
    assert {group: keys_of(people, rows) for group, rows in members.items()} == {
        "3-9": ["0.png", "2.png"], "20-29": ["1.png"]
    }  # fmt: skip
    assert list(members) == ["3-9", "20-29"]  # as people count
    assert tuple(people.logits(["a", "b"], PromptSet(name="bare", templates=("{}",))).shape) == (4, 2)


def test_empty_single_and_untold_groups_are_said(folder: Path, tiny_bundle: Bundle):
    people = subjects(ModelFeatures(tiny_bundle), read_grouped(folder))
    said = people.not_told(["age", "place"])
    assert any(sentence.startswith("Pictures that cannot be read (") for sentence in said)
    assert said[1:] == [
        "age 70+: none of its pictures can be read.",
        "age is not told of 1 of 4 pictures.",
        "age 20-29 has one picture: its interval says nearly nothing.",
        "place b has one picture: its interval says nearly nothing.",
    ]


def test_examples_are_small_and_few(tmp_path: Path, tiny_bundle: Bundle):
    for number in range(EXAMPLES + 3):
        paint(tmp_path / f"{number:02d}.png", number)
    (tmp_path / "groups.csv").write_text("key,age\n00.png,3-9\n")
    people = subjects(ModelFeatures(tiny_bundle), read_grouped(tmp_path))
    shown = people.examples(range(EXAMPLES + 3), [str(n) for n in range(EXAMPLES + 3)])
    assert [one.key for one in shown] == [f"{number:02d}.png" for number in range(EXAMPLES)]
    assert all(one.picture is not None and max(one.picture.size) <= 160 for one in shown)


def test_a_kind_of_groups_that_is_not_there_is_told_the_nearest(folder: Path, tiny_bundle: Bundle):
    people = subjects(ModelFeatures(tiny_bundle), read_grouped(folder))
    assert check_columns(people, None) == ("age", "place")
    with pytest.raises(ConfigError, match=r"ages is not a kind of groups .* Did you mean age\?"):
        check_columns(people, ["ages"])
