from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.audit.probes import PromptSet
from diptych.audit.tones import tones
from diptych.cli.main import main
from diptych.data.embedded import TONES, data_path
from diptych.errors import DataError
from diptych.eval.chapter import Chapter
from diptych.eval.features import TrunkFeatures
from diptych.sets.grouped import read_grouped
from diptych.sets.pictures import Pictures
from diptych.weights.bundle import Bundle
from oracles import Oracle, paint

ROLES = ["cook", "elf", "judge"]
# Drawing, gender, role, and what is said of it in light and in dark.
DRAWINGS = [
    ("m-cook", "man", "cook", "cook", "cook"),
    ("w-cook", "woman", "cook", "cook", "judge"),
    ("m-judge", "man", "judge", "judge", "elf"),
    ("w-judge", "woman", "judge", "elf", "judge"),
    ("elf", "", "elf", "cook", "judge"),
]
WORDS = (PromptSet(name="bare", templates=("{}",)),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["key,drawing,tone,gender,class"]
    for name, gender, role, light, dark in DRAWINGS:
        for tone, answer in (("dark", dark), ("light", light)):
            paint(tmp_path / f"{name}_{tone}.png", ROLES.index(answer))
            lines.append(f"{name}_{tone}.png,{name},{tone},{gender},{role}")
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def chapter(folder: Path) -> Chapter:
    return tones(Oracle(ROLES), read_grouped(folder), prompts=WORDS)  # type: ignore[arg-type]


def value_of(chapter: Chapter, **case: str) -> float:
    return next(one.value for one in chapter.results if case.items() <= one.case.items())


def test_accuracy_and_changes_are_those_counted_by_hand(chapter: Chapter):
    assert value_of(chapter, measured="answer changes") == 4 / 5
    assert value_of(chapter, measured="answer changes when moved") == 0.0  # of pictures in one shade
    assert value_of(chapter, measured="right in some tones") == 3 / 5  # the elf is wrong in both
    assert value_of(chapter, measured="right", tone="light") == 3 / 5
    assert value_of(chapter, measured="right", tone="dark") == 2 / 5
    assert value_of(chapter, measured="right", gender="man") == 3 / 4
    assert value_of(chapter, measured="right", gender="woman") == 2 / 4


def test_light_and_dark_are_compared_on_the_same_drawings_and_men_and_women_in_the_same_roles(chapter: Chapter):
    by_name = {one.name: one.comparison for one in chapter.contrasts}
    dark = by_name["right: dark against light (bare)"]
    assert (dark.only_a, dark.only_b, dark.test) == (2, 1, "McNemar")
    assert dark.p_value == 1.0  # 2 of 3: 2 * (1 + 3) / 8
    woman = by_name["right: woman against man in the same role (bare)"]
    assert (woman.n, woman.a, woman.b) == (2, 0.75, 0.5)  # roles, not pictures
    assert "2 right in light alone, 1 in dark alone" in chapter.sentences[1]
    changes = by_name["answer changes: by tone against by moving (bare)"]
    assert (changes.only_a, changes.only_b) == (0, 4)


def test_a_drawing_that_lacks_a_tone_is_left_out_and_said(folder: Path):
    (folder / "elf_dark.png").write_bytes(b"no picture")
    table = (folder / "groups.csv").read_text().replace("elf_dark.png,elf", "elf_dark.png,")
    (folder / "groups.csv").write_text(table)
    paint(folder / "elf_dark.png", 0)
    chapter = tones(Oracle(ROLES), read_grouped(folder), prompts=WORDS)  # type: ignore[arg-type]
    assert chapter.results[0].n == 4
    assert "Drawings that lack a tone, or of which one cannot be read: 1." in chapter.not_measured
    (folder / "groups.csv").write_text("key,drawing,tone,gender,class\nelf_light.png,elf,light,,elf\n")
    for other in folder.glob("*_*.png"):
        if other.name != "elf_light.png":
            other.unlink()
    with pytest.raises(DataError, match=r"two tones or more"):
        tones(Oracle(ROLES), read_grouped(folder), prompts=WORDS)  # type: ignore[arg-type]


def test_a_drawing_is_no_face_and_changes_are_shown_side_by_side(chapter: Chapter):
    assert chapter.notes[0].startswith("A drawing is no face")
    assert chapter.examples[0].caption == "elf; light: cook, dark: judge"
    assert chapter.examples[0].picture is not None
    assert chapter.examples[0].picture.size == (64, 32)
    assert len(chapter.examples) == 4


def test_moving_a_drawing_can_change_the_answer_and_is_tried_as_often_as_there_are_other_tones(folder: Path):
    class Corner(Oracle):
        """Answers "elf" where the pixel at the lower right is not that at the upper left."""

        def pictures(self, data: Pictures, sha256: str = "") -> TrunkFeatures:
            found = super().pictures(data, sha256)
            for row in range(len(data)):
                picture = data.open(row)
                if picture.getpixel((3, 3)) != picture.getpixel((0, 0)):
                    found.image_features[row] = self._row(ROLES.index("elf"))
            self.seen = [*getattr(self, "seen", []), len(data)]
            return found

    for tone in ("light", "dark"):
        picture = Image.open(folder / f"m-cook_{tone}.png")
        picture.putpixel((3, 0), (250, 0, 0))
        picture.save(folder / f"m-cook_{tone}.png")
        shifted = Image.open(folder / f"w-cook_{tone}.png")
        shifted.putpixel((2, 3), (250, 0, 0))  # comes into the corner when the drawing moves right by a pixel
        shifted.save(folder / f"w-cook_{tone}.png")
    oracle = Corner(ROLES)
    chapter = tones(oracle, read_grouped(folder), prompts=WORDS)  # type: ignore[arg-type]
    assert value_of(chapter, measured="answer changes when moved") == 1 / 5
    assert oracle.seen == [10, 5]  # one other tone, one way


@pytest.mark.parametrize(("name", "drawings", "roles"), [(TONES, 306, 158), ("embedded:tones-noto", 305, 157)])
def test_the_drawings_that_ship_come_in_five_tones_each(name: str, drawings: int, roles: int):
    data = read_grouped(data_path(name))
    assert (len(data), len(data.classnames)) == (5 * drawings, roles)
    assert not data.left_out
    told = {role for role in data.classnames if {"man", "woman", "men", "women"} & set(role.split())}
    assert len(told) <= 10  # those that Unicode has for one gender alone, as "man dancing"
    rows = [data.groups["drawing"].index(one) for one in dict.fromkeys(data.groups["drawing"])][::40]
    for row in rows:
        five = [np.asarray(data.open(row + number)) for number in range(5)]
        assert {one.shape for one in five} == {(64, 64, 3)}
        assert len({one.tobytes() for one in five}) == 5
        assert [data.groups["tone"][row + number] for number in range(5)] == [
            "light", "medium-light", "medium", "medium-dark", "dark"
        ]  # fmt: skip
    genders = {(data.labelled().targets[row], data.groups["gender"][row]) for row in range(len(data))}
    both = {role for role, gender in genders if gender == "man"} & {
        role for role, gender in genders if gender == "woman"
    }
    assert len(both) >= 60


def test_the_tones_stay_below_3_mb_and_are_credited():
    folder = data_path(TONES).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3e6
    credits = (folder / "CREDITS.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in credits
    assert "Apache 2.0" in credits


def test_the_command_takes_a_set_of_ones_own(
    folder: Path, tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
):
    tiny_bundle.save(tmp_path / "tiny")
    command = ["audit", "tones", str(tmp_path / "tiny"), "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "note: A drawing is no face" in capsys.readouterr().out
    assert (tmp_path / "out" / "tones.json").is_file()
