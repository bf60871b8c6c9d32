"""Runs in several processes: each comes to the weights of one process, or is refused in a sentence before any step."""

import json
from pathlib import Path

import pytest

from diptych.errors import ConfigError
from diptych.pairs.pipeline import batches, pair_sources
from rank_table import BOUNDS, STEPS, Combination, Outcome, Table, all_combinations, tables
from runs import change

ROOT = Path(__file__).parents[1]
ALL_AT_ONCE, FIXED = "contrastive + classification + caption", 'freeze = ["image"], fixed pictures'
PLAIN = Combination("vit", "clip", "contrastive", "adamw", "", "ddp", "whole")
# Of each objective, tower, optimizer, way to hold a model and format of checkpoints at least one, and most options; the
# script of the tables tries the rest.
SPREAD = [
    Combination("vit", "bag-of-words", ALL_AT_ONCE, "muon", 'optimizer = "muon"', "fsdp", "whole"),
    Combination("resnet", "bag-of-words", "bag-of-words", "adamw", "", "ddp", "shares"),
    Combination("efficientnet-lite", "bag-of-words", "classification", "adamw", "ema_decay", "ddp", "whole"),
    Combination("vit", "clip", "sigmoid", "adamw", "distillation", "fsdp", "whole"),
    Combination("efficientnet-lite", "clip", "caption", "muon", "phases", "fsdp", "shares"),
    Combination("resnet", "bag-of-words", "bag-of-words", "adamw", FIXED, "fsdp", "whole"),
    Combination("efficientnet-lite", "clip", "contrastive", "adamw", 'precision = "float16"', "ddp", "whole"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    return Table(tmp_path_factory.mktemp("table"))


def test_some_process_has_no_pair_in_some_batch_and_no_batch_has_fewer_than_two(table, tokenizer):
    recipe = table.recipe(PLAIN)
    sizes = [
        [
            len(batch.keys)
            for batch in batches(
                pair_sources(recipe.data), recipe.data, preprocess=recipe.preprocess, tokenizer=tokenizer,
                batch_size=8, seed=recipe.seed, start=0, stop=STEPS, part=part, parts=2,
            )
        ]
        for part in (0, 1)
    ]  # fmt: skip
    assert 0 in sizes[0] + sizes[1]
    assert min(map(sum, zip(*sizes, strict=True))) >= 2


def test_runs_of_several_processes_with_a_restart_come_to_the_weights_of_one_without(table):
    assert set(SPREAD) < set(all_combinations())
    outcomes = table.outcomes(SPREAD, seconds=500)
    assert {str(one): outcomes[one].word(one) for one in SPREAD} == dict.fromkeys(map(str, SPREAD), "same")


def test_the_tables_are_those_of_the_script_over_all_combinations():
    page = (ROOT / "docs" / "how-to" / "distributed.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / "ranks.json").read_text())
    outcomes = {Combination(**row["combination"]): Outcome(**row["outcome"]) for row in result["rows"]}
    assert [one for one in all_combinations() if one in outcomes] == list(outcomes)
    assert [str(one) for one in all_combinations() if one not in outcomes] == result["not_tried"]
    assert tables(outcomes) in page
    of_double = {outcome.word(one) for one, outcome in outcomes.items() if one.option not in BOUNDS}
    assert of_double == {"same", "refused"}  # in shorter types rounding grows, and the table states how far


@pytest.mark.parametrize("one", [one for one in all_combinations() if not one.option], ids=str)
def test_what_the_table_calls_refused_is_refused_by_the_recipe(table, one):
    learns_words_alone = one.objective in ("bag-of-words", "classification")
    if one.text == "bag-of-words" or not learns_words_alone:
        table.recipe(one)
        return
    with pytest.raises(ConfigError, match=r'must be "bag-of-words" where no objective but (bag-of-words|classific)'):
        table.recipe(one)


@pytest.mark.parametrize(
    ("one", "options", "sentence"),
    [
        (PLAIN, {"optimizer_state": "int8", "parallel": "fsdp"}, 'needs train.parallel="ddp"'),
        (PLAIN, {"optimizer_state": "int8", "optimizer": "muon"}, 'needs train.optimizer="adamw"'),
        (PLAIN, {"gradient_compression": "powersgd", "parallel": "fsdp"}, 'must be "none" with train.parallel="fsdp"'),
        (PLAIN._replace(image="resnet"), {"micro_batch_size": 2}, "must be 0 for a resnet tower"),
    ],
)
def test_what_cannot_be_is_one_sentence(table, one, options, sentence):
    recipe = table.recipe(one)
    with pytest.raises(ConfigError, match=sentence) as caught:
        change(recipe, **options)
    assert "\n" not in str(caught.value)
