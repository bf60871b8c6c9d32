"""train/start.py: what a recipe leaves out comes from the model that it starts from."""

import pytest

from diptych.cli.main import main
from diptych.errors import ConfigError
from diptych.train.recipe import read_recipe
from diptych.train.start import fine_tuning, with_sizes_of_start
from diptych.train.trainer import train
from diptych.weights.registry import load_in_torch

SMALL = "diptych-pictogram-small"
SHORT = (
    'name = "x"\nstart_from = "{start}"\n{more}\n[[data.sources]]\npath = "pairs"\n[train]\nsteps = 2\nbatch_size = 4\n'
)


def test_a_recipe_with_a_start_needs_no_sizes(tmp_path):
    (tmp_path / "recipe.toml").write_text(SHORT.format(start=SMALL, more=""))
    recipe, bundle = read_recipe(tmp_path / "recipe.toml"), load_in_torch(SMALL)
    assert recipe.model == bundle.model.config
    assert recipe.preprocess == bundle.preprocess
    assert recipe.tokenizer.vocab_size == bundle.tokenizer.vocab_size


@pytest.mark.parametrize("more", ["[model.image]\nimage_size = 64\n", "[preprocess]\nimage_size = 64\n"])
def test_one_image_size_is_told_for_both_and_a_part_of_a_table_does(more, tmp_path):
    (tmp_path / "recipe.toml").write_text(SHORT.format(start=SMALL, more=f"{more}\n[model]\nhead = 'sigmoid'"))
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert (recipe.model.image.image_size, recipe.preprocess.image_size) == (64, 64)
    assert recipe.model.head == "sigmoid"
    assert recipe.model.embed_dim == load_in_torch(SMALL).model.config.embed_dim


def test_what_is_told_whole_is_not_looked_up_and_another_kind_takes_the_place_of_theirs():
    whole = {"start_from": "nowhere", "model": {"a": 1}, "preprocess": {"b": 2}, "tokenizer": {"c": 3}}
    assert with_sizes_of_start(whole) == whole
    assert with_sizes_of_start({"name": "x"}) == {"name": "x"}
    with pytest.raises(ConfigError, match="nowhere"):
        with_sizes_of_start({"start_from": "nowhere"})
    vit = {"kind": "vit", "patch_size": 8}
    assert with_sizes_of_start({"start_from": SMALL, "model": {"image": vit}})["model"]["image"] == vit


def test_a_recipe_that_is_printed_for_a_model_fine_tunes_it(pair_shards, tmp_path, capsys):
    assert main(["models", "show", SMALL, "--recipe"]) == 0
    path = tmp_path / "recipe.toml"
    path.write_text(capsys.readouterr().out)
    (tmp_path / "pairs").symlink_to(pair_shards)
    recipe = read_recipe(path, ["train.steps=1", "train.batch_size=4"])
    assert (recipe.name, recipe.start_from) == ("diptych-pictogram-small-tuned", SMALL)
    result = train(recipe, tmp_path / "run")
    assert result.finished
    assert result.bundle.model.config == load_in_torch(SMALL).model.config


@pytest.mark.parametrize(("start", "name"), [("a/b c/", "b-c-tuned"), ("hf:org/name@main", "name-main-tuned")])
def test_its_name_is_one_that_a_folder_may_have(start, name, monkeypatch):
    bundle = load_in_torch(SMALL)
    monkeypatch.setattr("diptych.train.start.sizes_of", lambda _: (bundle.model.config, bundle.preprocess))
    assert fine_tuning(start)["name"] == name
