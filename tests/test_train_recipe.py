import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from diptych.config import from_dict, read_toml, to_dict, to_toml
from diptych.errors import ConfigError, DiptychError
from diptych.train.recipe import TrainRecipe, difference, read_recipe, without_folders

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(tiny_recipe))
    return path


def test_a_printed_recipe_reads_back_equal(tiny_recipe, recipe_file):
    assert read_recipe(recipe_file) == tiny_recipe


def test_options_go_over_the_file(tiny_recipe, recipe_file):
    recipe = read_recipe(recipe_file, ["train.batch_size=16", "data.augment.flip=true", "name=other", "seed=3"])
    assert (recipe.train.batch_size, recipe.data.augment.flip, recipe.name, recipe.seed) == (16, True, "other", 3)
    assert recipe.train == dataclasses.replace(tiny_recipe.train, batch_size=16)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.batchsize=8", r"train\.batchsize is not an option\. Did you mean train\.batch_size\?"),
        ("train.batch_size=1", r"train\.batch_size must be at least 2: .* Got 1\."),
        ("train.steps=0", r"train\.steps must be above 0\. Got 0\."),
        ("train.learning_rate=nan", r"train\.learning_rate must be above 0\. Got nan\."),
        ("train.learning_rate=inf", r"train\.learning_rate must be above 0\. Got inf\."),
        ("train.threads=0", r"train\.threads must be above 0\."),
        ("train.epsilon=0", r"train\.epsilon must be above 0\."),
        ("train.keep_checkpoints=0", r"train\.keep_checkpoints must be above 0\."),
        ("train.weight_decay=-0.1", r"train\.weight_decay must not be negative\. Got -0\.1\."),
        ("train.max_gradient_norm=nan", r"train\.max_gradient_norm must not be negative\. Got nan\."),
        ("train.beta2=1.0", r"train\.beta2 must be at least 0 and below 1\. Got 1\.0\."),
        ("train.precision=int8", r"train\.precision must be one of 'auto', 'bfloat16', 'float16', 'float32'\."),
        ("train.parallel=pipeline", r"train\.parallel must be one of 'ddp', 'fsdp'\."),
        ("train.loss_exchange=star", r"train\.loss_exchange must be one of 'gather', 'ring'\."),
        ("train.stall_seconds=0", r"train\.stall_seconds must be above 0\."),
        ("train.micro_batch_size=-1", r"train\.micro_batch_size must not be negative\. Got -1\."),
        ("train.micro_batch_size=4", r"train\.micro_batch_size must be 0 for a resnet tower: .* Got 4\."),
        ("train.patch_dropout=1.0", r"train\.patch_dropout must be at least 0 and below 1\. Got 1\.0\."),
        ("train.patch_dropout=0.5", r"train\.patch_dropout must be 0 unless model\.image is a vision transformer\."),
        ("train.ema_decay=1.0", r"train\.ema_decay must be at least 0 and below 1\. Got 1\.0\."),
        ("train.layer_decay=0", r"train\.layer_decay must be above 0 and at most 1\. Got 0\.0\."),
        ("train.layer_decay=1.1", r"train\.layer_decay must be above 0 and at most 1\. Got 1\.1\."),
        ("seed=-1", r"seed must be at least 0 and below 2\*\*31\. Got -1\."),
        ("preprocess.image_size=64", r"preprocess\.image_size must equal model\.image\.image_size\. Got 64 and 32\."),
        ("tokenizer.vocab_size=601", r"tokenizer\.vocab_size must equal model\.text\.vocab_size\. Got 601 and 600\."),
        ("data.templates=['a cat']", r"a prompt template must hold one \{\} for the class name\. Got 0"),
    ],
)
def test_an_option_that_cannot_be_is_named(recipe_file, option, message):
    with pytest.raises(DiptychError, match=message) as caught:
        read_recipe(recipe_file, [option])
    assert "\n" not in str(caught.value)


def test_compact_moments_want_betas_that_they_can_follow(tiny_recipe):
    train = dataclasses.replace(tiny_recipe.train, optimizer_state="bfloat16")
    assert train.beta2 == 0.98
    with pytest.raises(
        ConfigError, match=r"train\.momentum, beta1 and beta2 must be at most 0\.99 .* Got 0\.95, 0\.9, 0\.999\."
    ):
        dataclasses.replace(train, beta2=0.999)


def test_moments_in_blocks_are_not_for_shares(tiny_recipe):
    train = dataclasses.replace(tiny_recipe.train, optimizer_state="int8", beta2=0.999)  # has no limit on betas
    with pytest.raises(ConfigError, match=r'optimizer_state="int8" needs train\.parallel="ddp": .*"bfloat16"'):
        dataclasses.replace(train, parallel="fsdp")


def test_what_has_no_default_must_be_given(recipe_file):
    data = read_toml(recipe_file)
    del data["train"]["steps"]
    with pytest.raises(ConfigError, match=r"train\.steps must be given and has no default"):
        from_dict(TrainRecipe, data)


def test_a_difference_is_the_first_option_that_would_change_the_run(tiny_recipe):
    before = to_dict(tiny_recipe)
    assert difference(before, before) == ""
    changed = dataclasses.replace(tiny_recipe, train=dataclasses.replace(tiny_recipe.train, learning_rate=1e-4))
    assert difference(before, to_dict(changed)) == "train.learning_rate was 0.002 and is now 0.0001"
    assert difference(before, before | {"licence": None}) == "licence was '' and is now None"


def test_what_neither_weights_nor_log_depend_on_is_no_difference(tiny_recipe):
    train = dataclasses.replace(tiny_recipe.train, threads=7, checkpoint_every=3, keep_checkpoints=9)
    data = dataclasses.replace(tiny_recipe.data, max_bad=0.5)
    changed = dataclasses.replace(tiny_recipe, train=train, data=data)
    assert difference(to_dict(tiny_recipe), to_dict(changed)) == ""


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("", {"freeze_batch_statistics": True}, r"freeze_batch_statistics must be false without start_from"),
        ("", {"freeze": ("image",)}, r"train\.freeze must be empty without start_from"),
        ("x", {"freeze": ("image", "text")}, r"train\.freeze must leave a tower to train\. Got image and text\."),
    ],
)
def test_what_cannot_be_frozen_is_refused(tiny_recipe, start, options, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny_recipe, start_from=start, train=dataclasses.replace(tiny_recipe.train, **options))


@pytest.mark.parametrize(
    ("teacher", "weight"),
    [
        ({"teacher_images": "a", "teacher_texts": "b"}, 0.0),
        ({"teacher_images": "a"}, 0.0),
        ({"teacher_images": "a"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_teacher_and_the_weight_of_its_loss_need_each_other(tiny_recipe, teacher, weight):
    source = dataclasses.replace(tiny_recipe.data.sources[0], **teacher)
    with pytest.raises(ConfigError, match=r"train\.distillation must be above 0 where all of data\.sources name"):
        dataclasses.replace(
            tiny_recipe,
            data=dataclasses.replace(tiny_recipe.data, sources=(source,)),
            train=dataclasses.replace(tiny_recipe.train, distillation=weight),
        )


def test_paths_are_from_the_folder_of_the_recipe_and_those_of_options_from_here(recipe_file, tmp_path, monkeypatch):
    there = tmp_path / "elsewhere"
    there.mkdir()
    monkeypatch.chdir(there)
    data = read_toml(recipe_file)
    teacher = {"teacher_images": "a.safetensors", "teacher_texts": "shard"}
    data["data"]["sources"] = [{"path": "pairs", **teacher}, {"path": "../b.csv", "image_folder": "c", **teacher}]
    data["data"]["sources"] += [{"path": path, **teacher} for path in ("embedded:emoji", "s3://b/c", "~/d", "/e")]
    data |= {"evaluate": ["sets/x", "embedded:twemoji"], "start_from": "runs/y/bundle"}
    data["train"]["distillation"] = 1.0
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "recipe.toml"
    path.write_text(to_toml(from_dict(TrainRecipe, data)))
    recipe = read_recipe(Path("../deep/recipe.toml"))
    deep = str(path.parent)
    paths = [source.path for source in recipe.data.sources]
    assert paths == [f"{deep}/pairs", f"{tmp_path}/b.csv", "embedded:emoji", "s3://b/c", "~/d", "/e"]
    assert recipe.data.sources[1].image_folder == f"{deep}/c"
    assert recipe.data.sources[0].teacher_images == f"{deep}/a.safetensors"
    assert recipe.data.sources[0].teacher_texts == "shard"
    assert recipe.evaluate == (f"{deep}/sets/x", "embedded:twemoji")
    assert recipe.start_from == f"{deep}/runs/y/bundle"
    here = read_recipe(path, ["evaluate=['mine']", "start_from=diptych-photo", "data.remote.cache=cache"])
    assert (here.evaluate, here.start_from) == ((f"{there}/mine",), "diptych-photo")
    assert here.data.remote.cache == f"{there}/cache"
    path.with_name("again.toml").write_text(to_toml(recipe))
    assert read_recipe(path.with_name("again.toml")) == recipe
    assert [source.path for source in without_folders(recipe).data.sources][:2] == ["pairs", "b.csv"]


def test_a_path_of_another_type_is_refused_as_any_option(recipe_file):
    for option in ("data.sources=3", "data.sources=[3]", "data.sources=[{path=3}]", "data=3", "evaluate=[3]"):
        with pytest.raises(ConfigError, match="must be"):
            read_recipe(recipe_file, [option])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_reads_and_opens_with_its_command_and_what_came_of_it(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert f"#   diptych train recipes/{path.name}\n" in opening
    assert re.search(r"[\d.]+ min on 2 cores", opening)
    assert re.search(r"[\d.]+ %", opening)
