"""The recipe that lists what the photo model's words are called in other languages."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture(scope="module")
def recipe() -> Iterator[types.ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        patch.setitem(sys.modules, "resvg_py", types.ModuleType("resvg_py"))  # nothing is drawn here
        import photo_translations  # pyright: ignore[reportMissingImports]

        yield photo_translations


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
