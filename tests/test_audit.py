import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from audits import KEYS, PROMPTS, an_audit
from diptych.cli.audit import _sets
from diptych.cli.audit_overlap import _THRESHOLD
from diptych.cli.main import main
from diptych.curate.copies import THRESHOLD
from diptych.errors import DataError
from diptych.eval.chapter import contrasts_of
from diptych.eval.comparison import compare_results
from diptych.eval.result_file import read_audit, write_audit
from diptych.measures.compare import compare_shares
from diptych.pages.audit import audit_page
from diptych.pages.html import render_report
from diptych.weights.bundle import Bundle
from scenes import CHANGES, jpeg, scene


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    for name, number in (("day", 1), ("night", 2), ("night", 3)):
        folder = tmp_path / "sets" / "sky" / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(jpeg(scene(number)))
    (tmp_path / "train").mkdir()
    for number in range(20, 26):
        (tmp_path / "train" / f"{number}.jpg").write_bytes(jpeg(scene(number)))
        (tmp_path / "train" / f"{number}.txt").write_text("a sky")
    (tmp_path / "train" / "copy.jpg").write_bytes(jpeg(CHANGES["crop 90 %"](scene(2))))
    (tmp_path / "train" / "copy.txt").write_text("a sky")
    return str(tmp_path / "train"), str(tmp_path / "sets")


def test_overlap_is_told_written_and_shown(
    folders: tuple[str, str], tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    train, data = folders
    out = tmp_path / "out"
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", "overlap", train, "--data", data, "--out", str(out)]
    assert main([*command, "--model", str(tmp_path / "tiny")]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["data", "pictures", "overlap", "contamination"]
    assert row.split()[:4] == ["sky", "3", "1", "33.33%"]
    content = json.loads((out / "overlap.json").read_text())
    assert content["sets"][0]["score"]["n"] == 3
    page = (out / "overlap.html").read_text()
    assert "training: copy" in page
    first = (out / "overlap.json").read_bytes()
    # The results that were kept say the same; nothing is measured then.
    assert main([*command, "--results", str(out / "results")]) == 0
    assert (out / "overlap.json").read_bytes() == first


def test_without_a_folder_nothing_is_kept(folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(tmp_path.iterdir())
    assert main(["audit", "overlap", folders[0], "--data", folders[1], "--threshold", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["sky", "3", "0", "0.00%"]
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_and_its_results_are_not_asked_for_both(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    command = ["audit", "overlap", folders[0], "--data", folders[1], "--model", "x", "--results", "y"]
    assert main(command) == 2
    assert "Got both" in capsys.readouterr().err


def test_the_default_threshold_is_that_of_the_library():
    assert _THRESHOLD == THRESHOLD


def test_the_page_says_all_that_the_audit_says():
    page = render_report(audit_page(an_audit()))
    for said in (
        "Audit of mine",
        "6 of 10 are called by a crime | &lt;b&gt;.",
        "Which pictures of people are called by words for crimes?",
        "called by a crime: 0-19 against 20-59",
        "a child, called a thief",
        "60+ has no picture.",
        "No set of scenes was given.",
        "A label is no verdict.",
        "a photo of {}, section 7.1",
    ):
        assert said in page


def test_the_page_folds_long_tables_away_and_leaves_short_ones_open():
    audit = an_audit()
    (chapter,) = audit.chapters
    many = contrasts_of([(f"{n}", compare_shares(n, 10, 1, 10)) for n in range(1, 10)])
    page = audit_page(replace(audit, chapters=(replace(chapter, contrasts=many),)))
    (section,) = (one for one in page.sections if one.heading == chapter.title)
    assert [table.fold for table in section.tables] == ["", "All 9 differences"]
    assert list(section.lead) == list(chapter.sentences)


def test_two_models_are_paired_number_by_number():
    ours, theirs = an_audit(crime=9), an_audit(crime=1, model="theirs")
    compared = compare_results(ours.results, theirs.results)
    assert [one.test.only_a for one in compared.compared] == [8, 0]  # the same rows: 0.jpg was called so by both
    page = audit_page(ours, compared)
    rows = next(section.tables[0].rows for section in page.sections if section.heading == "Beside theirs")
    assert [row[:4] for row in rows] == [
        ["people, val, audit, crime, 0-19", "90.0%", "10.0%", "-80.0"],
        ["people, val, audit, crime, 20-59", "10.0%", "10.0%", "+0.0"],
    ]


def test_an_audit_is_read_as_it_was_written(tmp_path: Path):
    audit = an_audit()
    write_audit(audit, tmp_path / "audit.json")
    again = read_audit(tmp_path / "audit.json")
    assert again.chapters[0].results[0].rows.keys == audit.chapters[0].results[0].rows.keys
    assert (again.model, again.conditions, again.not_measured) == (audit.model, audit.conditions, audit.not_measured)
    assert again.chapters[0].contrasts == audit.chapters[0].contrasts
    assert again.chapters[0].examples[0].picture is None
    write_audit(again, tmp_path / "twice.json")
    assert (tmp_path / "twice.json").read_bytes() == (tmp_path / "audit.json").read_bytes()


def test_what_results_share_stands_once_in_the_file(tmp_path: Path):
    audit = an_audit()
    (chapter,) = audit.chapters
    write_audit(replace(audit, chapters=(chapter, chapter, chapter)), tmp_path / "audit.json")
    text = (tmp_path / "audit.json").read_text()
    assert text.count('"7.jpg"') == text.count("a photo of {}") == 1
    again = read_audit(tmp_path / "audit.json")
    young, old = KEYS[:10], KEYS[10:]
    assert [result.rows.keys for result in again.results] == [young, old] * 3
    assert {result.prompts for result in again.results} == {PROMPTS}


def test_an_audit_with_the_lists_in_their_places_is_read_as_well(tmp_path: Path):
    write_audit(an_audit(), tmp_path / "audit.json")
    content = json.loads((tmp_path / "audit.json").read_text())
    shared = content.pop("shared")
    for result in content["chapters"][0]["results"]:
        result["rows"]["keys"] = shared[result["rows"]["keys"]]
        result["prompts"] = shared[result["prompts"]]
    (tmp_path / "plain.json").write_text(json.dumps(content))
    write_audit(read_audit(tmp_path / "plain.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "audit.json").read_bytes()


def test_a_digest_that_stands_for_nothing_is_damage(tmp_path: Path):
    write_audit(an_audit(), tmp_path / "audit.json")
    content = json.loads((tmp_path / "audit.json").read_text())
    (tmp_path / "audit.json").write_text(json.dumps(content | {"shared": {}}))
    with pytest.raises(DataError, match="It is damaged"):
        read_audit(tmp_path / "audit.json")


def test_another_file_is_no_audit(tmp_path: Path):
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(DataError, match="must be an audit's file"):
        read_audit(tmp_path / "audit.json")


@pytest.fixture
def colours(tmp_path: Path, tiny_bundle: Bundle) -> list[str]:
    """A command that asks one chapter of a small model."""
    for number, name in enumerate(("red", "green", "blue", "grey", "white")):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for shade in range(6):
            Image.new("RGB", (16, 16), (40 * number, 30 * shade, 200 - 30 * number)).save(
                tmp_path / "colours" / name / f"{shade}.png"
            )
    tiny_bundle.save(tmp_path / "tiny")
    data = str(tmp_path / "colours")
    return ["audit", str(tmp_path / "tiny"), "--data", data, "--chapters", "calibration"]


def test_an_audit_is_a_page_a_file_and_a_card(colours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, card = tmp_path / "out", tmp_path / "card.md"
    assert main([*colours, "--out", str(out), "--card", str(card)]) == 0
    shown = capsys.readouterr().out
    assert "1 chapters" in shown
    assert "not measured: class-design: It was not asked for." in shown
    audit = read_audit(out / "audit.json")
    assert audit.chapters[0].results[0].n == 30
    assert "Is it as sure as it is right?" in (out / "audit.html").read_text()
    assert card.read_text().startswith("---\nmodel-index:")
    # Against itself, read from the file: nothing differs.
    assert main([*colours, "--against", str(out / "audit.json"), "--out", str(out)]) == 0
    page = (out / "audit.html").read_text()
    assert "Beside" in page
    assert "+0.0" in page


def test_captioned_and_named_sets_are_told_by_their_bytes_too(tmp_path: Path):
    draw = Image.new("RGB", (16, 16), "red")
    for path in ("frames/1.png", "cups/1.png", "persons/test/ada/1.png", "persons/test/bo/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        draw.save(tmp_path / path)
    (tmp_path / "frames" / "captions.csv").write_text("picture,right,near_miss,others\n1.png,a street,,a room\n")
    row = {"filename": "1.png", "caption": "a red cup", "negative_caption": "a blue cup"}
    (tmp_path / "cups" / "swap_att.json").write_text(json.dumps({"0": row}))

    def digests() -> dict[str, str]:
        sets = _sets([], [], [], [tmp_path / "cups"], tmp_path / "frames", tmp_path / "persons", "test")
        return {name: digest for (name, _), digest in sets.digests.items()}

    before = digests()
    assert {name: len(digest) for name, digest in before.items()} == {"persons": 64, "cups": 64, "frames": 64}
    (tmp_path / "frames" / "captions.csv").write_text("picture,right,near_miss,others\n1.png,a street,,a park\n")
    after = digests()
    assert [name for name in before if after[name] != before[name]] == ["frames"]


def test_a_limit_that_is_passed_has_an_exit_code_of_its_own(colours: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*colours, "--fail-on", "calibration: calibration error > 99%"]) == 0
    with pytest.raises(SystemExit, match="3"):
        main([*colours, "--fail-on", "calibration: surest 25% <= 1"])
    assert "calibration: surest 25% <= 1: " in capsys.readouterr().err
    assert main([*colours, "--fail-on", "calibration: no such number > 1%"]) == 2
    assert main([*colours, "--fail-on", "calibration is bad"]) == 2


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    colours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert main([*colours, "--out", str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tiny: calibration" not in captured.err


def test_audits_of_other_pictures_or_other_draws_are_not_paired(
    colours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*colours, "--out", str(tmp_path / "out")]) == 0
    kept = ["--against", str(tmp_path / "out" / "audit.json")]
    assert main([*colours, *kept, "--seed", "1"]) == 2
    assert "same draws" in capsys.readouterr().err
    Image.new("RGB", (16, 16), "black").save(tmp_path / "colours" / "red" / "0.png")
    assert main([*colours, *kept]) == 2  # a set of the same name
    assert "must be results on the same data" in capsys.readouterr().err
