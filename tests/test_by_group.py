from pathlib import Path

import pytest
from scipy.stats import fisher_exact

from diptych.audit.by_group import by_group
from diptych.cli.main import main
from diptych.errors import DataError
from diptych.eval.chapter import Chapter
from diptych.sets.grouped import read_grouped
from diptych.weights.bundle import Bundle
from oracles import Oracle, paint

CLASSES = ["boat", "cup", "door"]
# Region, class, what the model says, how often.
ROWS = [
    ("Asia", "boat", "boat", 9),
    ("Asia", "cup", "door", 1),
    ("Africa", "boat", "boat", 4),
    ("Africa", "cup", "door", 6),
    ("Europe", "door", "door", 1),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "places"
    for region, name, answer, count in ROWS:
        for number in range(count):
            paint(data / region / name / f"{number}.png", CLASSES.index(answer))
    return data


@pytest.fixture
def chapter(folder: Path) -> Chapter:
    return by_group(Oracle(CLASSES), read_grouped(folder))  # type: ignore[arg-type]


def test_accuracy_by_group_and_the_gap_are_those_counted_by_hand(chapter: Chapter):
    found = {one.case["group"]: (one.value, one.n) for one in chapter.results}
    assert found == {"all": (14 / 21, 21), "Africa": (0.4, 10), "Asia": (0.9, 10), "Europe": (1.0, 1)}
    numbers = next(one.numbers for one in chapter.results if one.case["group"] == "all")
    assert numbers["worst group"] == 0.4
    assert numbers["mean of groups"] == pytest.approx(0.65)
    assert numbers["gap"] == pytest.approx(0.5)  # of ten pictures each; Europe's one is neither best nor worst
    assert numbers["gap low"] <= 0.5 <= numbers["gap high"]
    # A shuffle is as uneven where the ten of Africa get 9 or more of the 13 right ones, or 4 or fewer: hypergeometric.
    assert numbers["as far apart by chance"] == pytest.approx(fisher_exact([[4, 6], [9, 1]])[1], abs=0.03)


def test_a_group_of_one_is_said_and_kept(chapter: Chapter):
    assert "group Europe has one picture: its interval says nearly nothing." in chapter.not_measured
    assert "best Asia" in chapter.sentences[0]
    assert "worst Africa" in chapter.sentences[0]


def test_each_group_is_compared_with_the_rest(chapter: Chapter):
    one = next(one for one in chapter.contrasts if "Africa" in one.name)
    assert (one.comparison.a, one.comparison.b) == (10 / 11, 0.4)
    assert one.comparison.p_value == pytest.approx(fisher_exact([[4, 6], [10, 1]])[1])
    assert len(chapter.contrasts) == 3


def test_six_classes_and_more_have_top_5_and_templates_a_twin_without(folder: Path):
    for name in ("fence", "hat", "jug"):
        paint(folder / "Asia" / name / "0.png", 0)
    oracle = Oracle([*CLASSES, "fence", "hat", "jug"])
    chapter = by_group(oracle, read_grouped(folder), templates=["a photo of {}"])  # type: ignore[arg-type]
    assert {(one.case["prompts"], one.case["answers"]) for one in chapter.results} == {
        ("usual", "top-1"), ("usual", "top-5"), ("bare", "top-1"), ("bare", "top-5")
    }  # fmt: skip
    assert oracle.asked == [("a photo of {}",), ("{}",)]


def test_failures_are_shown_with_their_group_and_both_names(chapter: Chapter):
    assert len(chapter.examples) == 7
    assert chapter.examples[0].caption == "Africa: cup, answered door"
    assert chapter.examples[0].picture is not None


def test_classes_must_be_told(tmp_path: Path):
    paint(tmp_path / "a.png", 0)
    (tmp_path / "groups.csv").write_text("key,region\na.png,Asia\n")
    with pytest.raises(DataError, match=r"give a column 'class'"):
        by_group(Oracle(CLASSES), read_grouped(tmp_path))  # type: ignore[arg-type]


def test_the_command_takes_folders_of_groups(
    folder: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    assert (
        main(["audit", "by-group", str(tmp_path / "tiny"), "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    )
    assert "The gap is" in capsys.readouterr().out
    assert (tmp_path / "out" / "by-group.json").is_file()
