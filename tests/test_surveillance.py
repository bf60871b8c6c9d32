from pathlib import Path

import pytest

from diptych.audit.probes import PromptSet
from diptych.audit.surveillance import surveillance
from diptych.cli.main import main
from diptych.errors import DataError
from diptych.eval.chapter import Chapter
from diptych.sets.near_misses import NearMissImages, read_near_misses
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from oracles import Oracle, paint

CAPTIONS = ["a street", "a busy street", "a room", "a park", "a dog", "no animal"]
WORDS = (PromptSet(name="bare", templates=("{}",)),)
# What the model says of the frame, right, near miss, others, kind.
ROWS = [
    ("a street", "a street", "a busy street", "a room|a park", ""),
    ("a busy street", "a street", "a busy street", "a room|a park", ""),  # right among the others by its second guess
    ("a room", "a street", "a busy street", "a room|a park", "coarse"),
    ("a park", "a park", "", "a room|a street", "coarse"),
    ("no animal", "a dog", "", "no animal", "fine"),
]


@pytest.fixture
def scenes(tmp_path: Path) -> NearMissImages:
    lines = ["picture,right,near_miss,others,kind"]
    for number, (answer, right, near, others, kind) in enumerate(ROWS):
        paint(tmp_path / "frames" / f"{number}.png", CAPTIONS.index(answer))
        lines.append(f"{number}.png,{right},{near},{others},{kind}")
    (tmp_path / "frames" / "captions.csv").write_text("\n".join(lines))
    return read_near_misses(tmp_path / "frames")


def values(chapter: Chapter) -> dict[str, tuple[float, int, float]]:
    return {one.case["measured"]: (one.value, one.n, one.numbers["chance"]) for one in chapter.results}


def test_scenes_are_scored_without_and_with_the_near_miss(scenes: NearMissImages):
    oracle = Oracle(CAPTIONS, second={"a busy street": "a street"})
    chapter = surveillance(oracle, scenes, prompts=WORDS)  # type: ignore[arg-type]
    assert values(chapter) == {
        "captions, coarse": (3 / 4, 4, pytest.approx(1 / 3)),
        "captions, fine": (0.0, 1, 0.5),
        "captions, coarse, with a near miss": (1 / 3, 3, 0.25),
        "captions, coarse, the near miss is chosen": (1 / 3, 3, 0.25),
    }
    comparison = chapter.contrasts[0].comparison
    assert (comparison.n, comparison.only_a, comparison.only_b) == (3, 1, 0)
    assert "Names: no pictures of people by name were given." in chapter.not_measured


def test_a_tie_counts_as_not_chosen(scenes: NearMissImages):
    class Blind(Oracle):
        def texts(self, texts):
            return super().texts(texts) * 0

    chapter = surveillance(Blind(CAPTIONS), scenes, prompts=WORDS)  # type: ignore[arg-type]
    assert {value for value, _, _ in values(chapter).values()} == {0.0}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Twelve names, two pictures each; of the last four every picture shows the first."""
    for number in range(12):
        for picture in range(2):
            paint(tmp_path / "people" / f"Name_{number:02d}" / f"{picture}.png", number if number < 8 else 0)
    return tmp_path / "people"


def test_names_are_told_among_fewer_names_that_are_part_of_more(people: Path):
    names = [f"Name {number:02d}" for number in range(12)]
    oracle, data = Oracle(names), read_labelled(people)
    chapter = surveillance(oracle, None, data, prompts=WORDS, sizes=(6, 12, 100), seed=1)  # type: ignore[arg-type]
    few, all_ = chapter.results
    assert (all_.value, all_.n, all_.numbers["chance"]) == (16 / 24, 24, 1 / 12)
    assert (few.n, few.numbers["chance"]) == (12, 1 / 6)
    assert set(few.rows.keys) < set(all_.rows.keys)
    assert "100 names: the set has 12." in chapter.not_measured
    again = surveillance(oracle, None, data, prompts=WORDS, sizes=(6, 12, 100), seed=1)  # type: ignore[arg-type]
    assert again.results[0].rows.keys == few.rows.keys
    assert "warning" in chapter.notes[0]


def test_all_names_are_taken_where_there_are_fewer_than_asked(people: Path):
    oracle = Oracle([f"Name {number:02d}" for number in range(12)])
    chapter = surveillance(oracle, None, read_labelled(people), prompts=WORDS)  # type: ignore[arg-type]
    assert [one.case["measured"] for one in chapter.results] == ["named right among 12"]


def test_something_must_be_given():
    with pytest.raises(DataError, match=r"Got neither"):
        surveillance(Oracle(CAPTIONS))  # type: ignore[arg-type]


def test_the_command_takes_scenes_and_names(
    scenes: NearMissImages, people: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", "surveillance", str(tmp_path / "tiny")]
    given = ["--data", str(tmp_path / "frames"), "--names", str(people), "--out", str(tmp_path / "out")]
    assert main([*command, *given]) == 0
    said = capsys.readouterr().out
    assert "named right among 12" in said
    assert "the near miss is chosen" in said
    assert (tmp_path / "out" / "surveillance.json").is_file()
    assert main(command) == 2
    assert len(scenes) == 5
