"""curate/recipe.py: a recipe from TOML, and the stages that it means."""

import tomllib
from pathlib import Path

import pytest

from diptych.captions.balance import Balance, Cap
from diptych.captions.text_lists import DenyWords
from diptych.config import from_dict, to_toml
from diptych.curate.recipe import CurateRecipe, read_curate_recipe
from diptych.errors import ConfigError

RECIPES = Path(__file__).parent.parent / "recipes" / "curate"

WHOLE = """
name = "all of it"
licence = "CC BY 4.0"
seed = 7
part_rows = 500

[[sources]]
path = "crawl/*.warc.gz"
licence = "CC0-1.0"

[[sources]]
path = "lists/a.csv"
columns = {url = "link", texts = ["alt", "title"]}

[[sources]]
path = "https://x.example/shards"

[[sources]]
path = "embedded:emoji"

[[text.rules]]
kind = "length"
min_words = 3

[[text.rules]]
kind = "deny-words"
file = "words.txt"

[repeated]

[match]
queries = "queries.txt"

[balance]
rule = "cap"
t = 50

[fetch]
contact = "me@x.example"

[describe]
model = "a-model"

[duplicates.features]
threshold = 0.9

[overlap]
data = ["sets/a", "/abs/b"]

[deny]
deny_list = "deny.txt"
threshold = 0.3

[score]
min_score = 0.2

[text_in_pictures]

[best]
share = 0.5

[people]
detector = "mine:faces"

[shards]
samples = 100
"""


@pytest.fixture
def write(tmp_path):
    def write_(text: str) -> Path:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        return tmp_path / "recipe.toml"

    return write_


def test_the_smallest_recipe_names_a_source_and_has_the_default_stages(write):
    recipe = read_curate_recipe(write('[[sources]]\npath = "pictures"\n'))
    assert [stage.name for stage in recipe.pipeline().stages] == [
        "duplicates-pair", "text", "fetch", "describe", "pictures", "duplicates-bytes", "duplicates-look",
    ]  # fmt: skip


def test_every_stage_has_its_place(write):
    recipe = read_curate_recipe(write(WHOLE))
    assert [stage.name for stage in recipe.pipeline().stages] == [
        "duplicates-pair", "text", "texts-repeated", "match", "balance", "fetch", "describe", "pictures",
        "duplicates-bytes", "duplicates-look", "duplicates-features", "overlap", "deny-pictures", "clip-score",
        "text-in-pictures", "best-share", "people",
    ]  # fmt: skip
    assert recipe.pipeline().part_rows == 500


def test_a_recipe_goes_to_toml_and_back(write):
    recipe = read_curate_recipe(write(WHOLE))
    assert from_dict(CurateRecipe, tomllib.loads(to_toml(recipe))) == recipe
    assert read_curate_recipe(write(to_toml(recipe))) == recipe  # as the copy in the folder of the curation is read


def test_duplicates_that_are_not_looked_for_are_said_to_be_false_and_stay_so(write):
    recipe = read_curate_recipe(write('[[sources]]\npath = "pictures"\n[duplicates]\nbytes = false\nlook = false\n'))
    assert [stage.name for stage in recipe.pipeline().stages] == [
        "duplicates-pair", "text", "fetch", "describe", "pictures",
    ]  # fmt: skip
    assert read_curate_recipe(write(to_toml(recipe))) == recipe


def test_relative_paths_are_from_the_recipes_folder_and_those_of_options_from_here(write, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = read_curate_recipe(write(WHOLE), ["match.queries=mine.txt"])
    assert [source.path for source in recipe.sources] == [
        str(tmp_path / "crawl/*.warc.gz"), str(tmp_path / "lists/a.csv"), "https://x.example/shards", "embedded:emoji",
    ]  # fmt: skip
    assert recipe.match
    assert recipe.match.queries == str(tmp_path / "here/mine.txt")
    assert recipe.text.rules[1] == DenyWords(file=tmp_path / "words.txt")
    assert recipe.overlap
    assert recipe.overlap.data == (str(tmp_path / "sets/a"), "/abs/b")
    assert recipe.deny
    assert recipe.deny.deny_list == tmp_path / "deny.txt"
    assert recipe.describe.model == "a-model"  # a name, no path


def test_the_balance_is_of_the_rule_and_draws_by_the_recipes_seed(write):
    recipe = read_curate_recipe(write(WHOLE))
    [cap] = [stage for stage in recipe.pipeline().stages if stage.name == "balance"]
    assert isinstance(cap, Cap)
    assert recipe.match
    assert (cap.t, cap.seed, cap.queries) == (50, 7, recipe.match.queries)
    drawn = read_curate_recipe(write(WHOLE), ["balance.rule=metaclip"])
    assert any(isinstance(stage, Balance) for stage in drawn.pipeline().stages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources = []", "at least one"),
        ('[[sources]]\npath = "a"\n[balance]\nt = 5', r"\[balance\] needs \[match\]"),
        ('[[sources]]\npath = "a"\n[duplicates.features]', "needs describe.model"),
        ('[[sources]]\npath = "a"\n[best]\nshare = 0.3', r"\[best\] needs the stage that gives clip_score"),
        ('[[sources]]\npath = "a"\n[shards]\nsamples = 0', "shards.samples must be at least 1"),
        ('part_rows = 0\n[[sources]]\npath = "a"', "part_rows must be at least 1"),
        (
            '[[sources]]\npath = "a"\n[fetch]\nper_hots = 2',
            "per_hots is not an option. Did you mean fetch.per_host?",
        ),
        ('[[sources]]\npath = "a"\n[match]\nqueries = "q"\n[balance]\nrule = "none"', "balance.rule must be"),
        ("", "sources must be given"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(write, text, message):
    with pytest.raises(ConfigError, match=message):
        read_curate_recipe(write(text))


def test_duplicates_by_bytes_and_look_can_be_left_out(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[[sources]]\npath = "a.csv"\n[duplicates]\nbytes = false\nlook = false\n')
    recipe = read_curate_recipe(path)
    assert not [
        stage.name
        for stage in recipe.pipeline().stages
        if stage.name.startswith("duplicates-") and stage.name != "duplicates-pair"
    ]
    path.write_text(to_toml(recipe))
    assert read_curate_recipe(path) == recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_a_set_reads_and_says_its_command(path):
    assert read_curate_recipe(path).name == path.stem
    assert f"#   diptych curate {path.name} " in path.read_text(encoding="utf-8")
