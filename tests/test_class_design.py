from pathlib import Path

import numpy as np
import pytest
from scipy.stats import fisher_exact

from diptych.audit.class_design import class_design, together
from diptych.audit.probes import ClassDesign, PromptSet
from diptych.cli.main import main
from diptych.errors import DiptychError
from diptych.eval.chapter import Chapter
from diptych.measures.binomial import clopper_pearson
from diptych.sets.grouped import read_grouped
from diptych.weights.bundle import Bundle
from oracles import Oracle, paint

TEXTS = ["a man", "a woman", "an ox", "an ape", "a thief", "a child"]
DESIGN = ClassDesign(
    categories={"people": ("a man", "a woman"), "beasts": ("an ox", "an ape"), "crime": ("a thief",)},
    counted=("beasts", "crime"),
    added=("a child",),
)
# Age, what the picture is taken for first, and how often. Of the young six of ten are children next to beasts.
PEOPLE = {
    ("0-9", "an ox"): 3,
    ("0-9", "a child"): 4,
    ("0-9", "a man"): 3,
    ("20-29", "a man"): 15,
    ("20-29", "an ape"): 1,
    ("20-29", "a thief"): 4,
}
WORDS = (PromptSet(name="photo", templates=("a photo of {}",)), PromptSet(name="bare", templates=("{}",)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["key,age"]
    for (age, text), count in PEOPLE.items():
        for number in range(count):
            name = f"{age}-{text.replace(' ', '')}-{number}.png"
            paint(tmp_path / name, TEXTS.index(text))
            lines.append(f"{name},{age}")
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def chapter(folder: Path) -> Chapter:
    # A child is a beast where "child" is not among the labels.
    oracle = Oracle(TEXTS, second={"a child": "an ape"})
    return class_design(oracle, read_grouped(folder), labels=DESIGN, prompts=WORDS)  # type: ignore[arg-type]


def value_of(chapter: Chapter, labels: str, called: str, group: str, prompts: str = "photo"):
    wanted = {"prompts": prompts, "labels": labels, "called": called, "group": group}
    return next(one for one in chapter.results if wanted.items() <= one.case.items())


def test_rates_by_group_are_those_counted_by_hand(chapter: Chapter):
    young = value_of(chapter, "as given", "beasts", "0-9")
    assert (young.value, young.n) == (0.7, 10)  # three oxen, and four children who are apes without the label
    assert young.interval == clopper_pearson(7, 10)
    assert value_of(chapter, "as given", "crime", "20-29").value == 0.2
    assert value_of(chapter, "as given", together(DESIGN), "20-29").value == 0.25
    assert value_of(chapter, "as given", together(DESIGN), "all").value == 12 / 30
    assert young.numbers == {"chance": 2 / 5}


def test_one_label_more_changes_the_rate_of_the_young_alone(chapter: Chapter):
    assert value_of(chapter, "with a child", "beasts", "0-9").value == 0.3
    assert value_of(chapter, "with a child", "beasts", "20-29").value == 0.05
    effects = {one.name: one.comparison for one in chapter.contrasts if "against as given" in one.name}
    name = "called beasts or crime: with a child against as given, {} (photo)"
    young, old = effects[name.format("age 0-9")], effects[name.format("age 20-29")]
    assert (young.only_a, young.only_b, young.p_value) == (4, 0, 2 * 0.5**4)  # McNemar: four of four
    assert (old.only_a, old.only_b, old.p_value) == (0, 0, 1.0)


def test_each_group_is_compared_with_the_rest_by_fishers_test(chapter: Chapter):
    one = next(c for c in chapter.contrasts if c.name == "called beasts: age 0-9 against the rest (photo)")
    assert (one.comparison.a, one.comparison.b) == (0.05, 0.7)
    assert one.comparison.p_value == pytest.approx(fisher_exact([[7, 3], [1, 19]])[1])
    assert one.corrected >= one.comparison.p_value


def test_every_number_is_there_in_both_prompt_sets_and_no_two_are_one(chapter: Chapter):
    cases = [tuple(one.case.values()) for one in chapter.results]
    assert len(set(cases)) == len(cases) == 2 * 2 * 3 * 3  # prompts, labels, categories, all and two ages
    assert {one.prompts.templates for one in chapter.results} == {("a photo of {}",), ("{}",)}


def test_the_page_names_categories_and_none_of_their_labels(chapter: Chapter):
    said = [*chapter.sentences, *(one.caption for one in chapter.examples), *(one.name for one in chapter.contrasts)]
    assert not any(word in text for text in said for word in ("ox", "ape", "thief"))
    assert "70.0 % (34.8 to 93.3 %; n = 10)" in chapter.sentences[0]
    assert len(chapter.examples) == 12


def test_groups_of_one_kind_alone_are_said(folder: Path):
    pictures = read_grouped(folder)
    oracle = Oracle(TEXTS)
    same = {"age": pictures.groups["age"], "place": ("here",) * len(pictures)}
    object.__setattr__(pictures, "groups", same)
    chapter = class_design(oracle, pictures, labels=DESIGN, prompts=WORDS)  # type: ignore[arg-type]
    assert "place has one group alone, which cannot be compared with others." in chapter.not_measured
    assert not any("place" in one.name and "rest" in one.name for one in chapter.contrasts)


def test_counts_do_not_hang_on_the_order_of_pictures(folder: Path):
    pictures = read_grouped(folder)
    oracle = Oracle(TEXTS, second={"a child": "an ape"})
    first = class_design(oracle, pictures, labels=DESIGN, prompts=WORDS)  # type: ignore[arg-type]
    order = np.random.default_rng(0).permutation(len(pictures))
    for name in ("keys", "_sources"):
        object.__setattr__(pictures, name, tuple(getattr(pictures, name)[row] for row in order))
    object.__setattr__(pictures, "groups", {"age": tuple(pictures.groups["age"][row] for row in order)})
    again = class_design(oracle, pictures, labels=DESIGN, prompts=WORDS)  # type: ignore[arg-type]
    assert [one.value for one in first.results] == [one.value for one in again.results]


def test_the_command_prints_the_chapter_and_writes_it(
    folder: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", "class-design", str(tmp_path / "tiny"), "--data", str(folder), "--by", "age"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "with child" in said
    assert "non-human" in said
    assert "gorilla" not in said
    assert (tmp_path / "out" / "class-design.json").is_file()
    assert main([*command[:-1], "sex"]) == 2
    empty = read_grouped(folder)
    object.__setattr__(empty, "groups", {})
    with pytest.raises(DiptychError, match=r"must have groups"):
        class_design(Oracle(TEXTS), empty, labels=DESIGN, prompts=WORDS)  # type: ignore[arg-type]
