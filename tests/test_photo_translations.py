"""The recipe that lists what the photo model's words are called in other languages."""

import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe_modules import imported


@pytest.fixture(scope="module")
def recipe() -> Iterator[types.ModuleType]:
    with imported("photo_translations") as module:
        yield module


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (["Koch/Köchin"], ["koch", "köchin"]),
        (["Pilot(in)"], ["pilot", "pilotin"]),
        (["Orang-Utan"], ["orang utan"]),
        (["Totenkopf mit Knochen"], []),  # longer than people type
        (["os", "x"], []),  # too short to tell from English
        (["猫"], ["猫"]),  # which a letter of Chinese is not
        (["barn", "pies"], []),  # English, the second as a plural
        (["chat", "Katze"], ["katze"]),
        (["Hund"], []),  # said by an earlier language
        ([""], []),
    ],
)
def test_of_a_name_stays_what_can_be_looked_up(recipe: types.ModuleType, names: list[str], texts: list[str]) -> None:
    assert list(recipe.forms(names, {"barn", "pie", "chat"}, {"hund"})) == texts


def test_names_are_read_of_both_parts_of_cldr(recipe: types.ModuleType, tmp_path: Path) -> None:
    for (package, key), sign, name in zip(recipe.PARTS, ("🐶", "🏴\ufe0f"), ("Hund", "Fahne"), strict=True):
        folder = tmp_path / package / key / "de"
        folder.mkdir(parents=True)
        (folder / "annotations.json").write_text(
            f'{{"{key}": {{"identity": {{}}, "annotations": {{"{sign}": {{"default": ["x"], "tts": ["{name}"]}}}}}}}}',
            encoding="utf-8",
        )
    folders = {package: tmp_path / package for package, _ in recipe.PARTS}
    assert recipe.read_names(folders, "de") == {"🐶": ["Hund"], "🏴": ["Fahne"]}
    assert recipe.read_names(folders, "fr") == {}


def test_keywords_are_matched_by_the_emoji_that_they_stand_at_alone_and_both_ways(recipe: types.ModuleType) -> None:
    english = {
        "tree": {1, 2, 3}, "plant": {1, 2, 3, 4, 5, 6}, "beard": {7, 8}, "whiskers": {7, 8}, "car": {9},
        "water": {10, 11},
    }  # fmt: skip
    german = {
        "baum": {1, 2, 3, 4},
        "pflanze": {1, 2, 3, 4, 5},
        "bart": {7, 8},
        "auto": {9},
        "see": {10, 12},
        "ort": {12, 13},
    }
    # "beard" and "whiskers" are tied, a car has one emoji, and of water's two the sea has but one.
    assert recipe.matched(english, german) == {"tree": "baum", "plant": "pflanze"}


def test_a_keyword_stands_at_the_emoji_of_the_list(recipe: types.ModuleType) -> None:
    keywords = {"🌳": ["Baum", "Laub-Baum"], "🌲": ["baum"], "🔣": ["Zeichen"]}
    assert recipe.emoji_of(keywords, ["🌲", "🌳"]) == {"baum": {0, 1}, "laub baum": {1}}
