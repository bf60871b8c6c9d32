from pathlib import Path

import pytest
from scipy.stats import fisher_exact

from diptych.audit.gendered_labels import gendered_labels
from diptych.audit.probes import PromptSet
from diptych.cli.main import main
from diptych.errors import ConfigError
from diptych.eval.chapter import Chapter
from diptych.sets.grouped import GroupedImages, read_grouped
from diptych.weights.bundle import Bundle
from oracles import Oracle, paint

LABELS = ["baker", "judge", "nurse"]
COUNTS = {("Male", "judge"): 9, ("Male", "nurse"): 1, ("Female", "judge"): 1, ("Female", "nurse"): 8, ("", "baker"): 3}
WORDS = (PromptSet(name="bare", templates=("{}",)),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["key,gender"]
    for (gender, label), count in COUNTS.items():
        for number in range(count):
            name = f"{gender or 'untold'}-{label}-{number}.png"
            paint(tmp_path / name, LABELS.index(label))
            lines.append(f"{name},{gender}")
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    return tmp_path


def asked(pictures: GroupedImages, **more) -> Chapter:
    # Whoever is a judge is a nurse by a third of that.
    oracle = Oracle(LABELS, second={"judge": "nurse"})
    return gendered_labels(oracle, pictures, labels=LABELS, prompts=WORDS, **more)  # type: ignore[arg-type]


def test_labels_are_given_where_their_probability_reaches_the_threshold(folder: Path):
    # A judge's picture: 3/4 judge, 1/4 nurse, but for the baker's share of 1e-4; a nurse's: all nurse.
    high, low = (asked(read_grouped(folder), thresholds=(threshold,)) for threshold in (0.5, 0.2))
    shares = {one.case["label"]: one.numbers for one in high.results}
    assert shares["judge"] == {"Female": 1 / 9, "Male": 0.9}
    assert shares["nurse"] == {"Female": 8 / 9, "Male": 0.1}
    assert shares["baker"] == {"Female": 0.0, "Male": 0.0}
    assert {one.case["label"]: one.value for one in low.results}["nurse"] == 1.0  # the judges' second label counts now
    assert all(one.n == 19 for one in high.results)  # those of no told gender are left out


def test_labels_are_compared_by_fishers_test_and_corrected_together(folder: Path):
    chapter = asked(read_grouped(folder), thresholds=(0.5,))
    found = {one.name: one for one in chapter.contrasts}
    judge = found["judge at 50 %: Male against Female (bare)"]
    assert judge.comparison.p_value == pytest.approx(fisher_exact([[9, 1], [1, 8]])[1])
    assert judge.corrected == pytest.approx(min(1, 3 * judge.comparison.p_value))
    assert len(found) == 3
    assert "2 of 3 labels" in chapter.sentences[0]
    judge_by_hand = 19 * (9 * 8 - 1 * 1) ** 2 / (10 * 9 * 10 * 9)
    assert f"to Male judge (chi-squared {judge_by_hand:.1f}, p = " in chapter.sentences[0]
    assert "to Female nurse (chi-squared" in chapter.sentences[0]


def test_the_most_gendered_label_comes_first(folder: Path):
    chapter = asked(read_grouped(folder), thresholds=(0.5,))
    assert [one.case["label"] for one in chapter.results] == ["judge", "nurse", "baker"] or [
        one.case["label"] for one in chapter.results
    ] == ["nurse", "judge", "baker"]
    assert [one.case["label"] for one in chapter.results][-1] == "baker"


def test_two_groups_must_be_named_where_there_are_more(folder: Path):
    pictures = read_grouped(folder)
    object.__setattr__(pictures, "groups", {"race": ("a", "b", "c") + ("a",) * (len(pictures) - 3)})
    with pytest.raises(ConfigError, match=r"It has a, b, c: name two of them"):
        asked(pictures, by="race")
    chapter = asked(pictures, by="race", between=("c", "a"))
    assert chapter.conditions["groups"] == f"c (1), a ({len(pictures) - 2})"
    with pytest.raises(ConfigError, match=r"race 'd' must be a group of the set"):
        asked(pictures, by="race", between=("a", "d"))
    with pytest.raises(ConfigError, match=r"Got 'a' twice"):
        asked(pictures, by="race", between=("a", "a"))


def test_thresholds_lie_between_0_and_1(folder: Path):
    with pytest.raises(ConfigError, match=r"between 0 and 1. Got 4"):
        asked(read_grouped(folder), thresholds=(4,))


def test_the_command_takes_labels_of_ones_own(
    folder: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    (tmp_path / "words.txt").write_text("a red kite\na blue boat\n")
    command = ["audit", "gendered-labels", str(tmp_path / "tiny"), "--data", str(folder)]
    own = ["--labels", str(tmp_path / "words.txt"), "--thresholds", "0.01", "--out", str(tmp_path / "out")]
    assert main([*command, *own]) == 0
    said = capsys.readouterr().out
    assert "a red kite" in said
    assert "At 1 %" in said
    assert (tmp_path / "out" / "gendered-labels.json").is_file()
    assert main([*command, "--between", "Male"]) == 2
