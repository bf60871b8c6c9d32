"""Lengths of batches: the same for every start and every number of processes, within the budget, and all of them."""

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import COLORS, SHAPES, drawing, png
from diptych.cli.options import ModelOptions
from diptych.config import to_toml
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.model.naflex import NaFlexTowerConfig
from diptych.pairs.augment import Augment
from diptych.pairs.lengths import DrawnLengths, pairs_at
from diptych.pairs.pipeline import Batch, batches, pair_sources
from diptych.pairs.shards import ShardWriter
from diptych.train.plan import Plan, Setup, plan_run
from diptych.train.recipe import Phase, TrainRecipe
from diptych.train.trainer import train
from diptych.weights.registry import load_in_torch
from processes import run_ranks
from runs import (
    assert_same_run,
    change,
    furthest,
    learn,
    train_in_two_parts,
    vit,
    watched,
    with_source,
)
from test_plan import UNIT

LENGTHS = (16, 36, 64)


def drawn(stop: int, seed: int = 0) -> DrawnLengths:
    return DrawnLengths(LENGTHS, batch_size=10, seed=seed, stop=stop)


def test_a_length_is_a_function_of_the_seed_and_the_number_of_the_batch():
    short, long = drawn(20), drawn(400)
    assert [short.of_batch(n) for n in range(20)] == [long.of_batch(n) for n in range(20)]
    assert [short.samples(n) for n in range(20)] == [long.samples(n) for n in range(20)]
    assert [drawn(20, seed=1).of_batch(n) for n in range(20)] != [short.of_batch(n) for n in range(20)]


def test_each_length_comes_as_often_as_it_is_named():
    counts = collections.Counter(drawn(3000).of_batch(n) for n in range(3000))
    assert set(counts) == set(LENGTHS)
    assert all(abs(count - 1000) < 100 for count in counts.values())  # 4 standard deviations of 26
    twice = DrawnLengths((16, 16, 64), batch_size=10, seed=0, stop=3000)
    assert abs(sum(twice.of_batch(n) == 16 for n in range(3000)) - 2000) < 100


def test_batches_follow_each_other_without_a_gap_and_fill_the_budget_of_patches():
    lengths, end = drawn(50), 0
    for number in range(50):
        samples, length = lengths.samples(number), lengths.of_batch(number)
        assert samples.start == end
        end = samples.stop
        assert len(samples) == {16: 40, 36: 17, 64: 10}[length] == pairs_at(length, lengths=LENGTHS, batch_size=10)
        assert 640 - length < len(samples) * length <= 640
        assert {lengths.of_sample(position) for position in samples} == {length}


def test_parts_are_the_whole_batch_in_order_and_as_even_as_they_can_be():
    lengths = drawn(30)
    for number in range(30):
        parts = [lengths.samples(number, part=part, parts=3) for part in range(3)]
        assert [position for part in parts for position in part] == list(lengths.samples(number))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# Batches of pictures that are wide, tall and square, and runs that learn from them.


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """40 pictures of four shapes, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("shapes")
    with ShardWriter(folder, samples_per_shard=16) as writer:
        for n in range(40):
            width, height = ((48, 32), (32, 48), (40, 40), (90, 30))[n % 4]
            color, shape = COLORS[n % 5], SHAPES[n % 4]
            data = png(drawing(color, shape, 10).resize((width, height)))
            writer.add(f"{n:03d}", {"png": data[:60] if n == 7 else data, "txt": f"{color} {shape} {n}".encode()})
    return folder


@pytest.fixture(scope="module")
def flexible(tiny_recipe, shapes) -> TrainRecipe:
    recipe = vit(with_source(tiny_recipe, shapes, max_bad=0.1))
    image = NaFlexTowerConfig(image_size=32, patch_size=8, width=32, layers=2, heads=2)
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, embed_dim=32, image=image),
        data=dataclasses.replace(recipe.data, sequence_lengths=(4, 9, 16)),
        preprocess=Preprocess(image_size=32, resize="naflex", patch_size=8),
    )


def read(recipe: TrainRecipe, tokenizer: Tokenizer, start: int, stop: int, **options: Any) -> list[Batch]:
    return list(
        batches(
            pair_sources(recipe.data),
            recipe.data,
            preprocess=recipe.preprocess,
            tokenizer=tokenizer,
            batch_size=8,
            seed=0,
            start=start,
            stop=stop,
            **options,
        )
    )


def assert_same(found: Batch, expected: Batch) -> None:
    assert found.keys == expected.keys
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.noise, expected.noise)


def test_a_batch_is_the_same_wherever_the_stream_begins_and_its_parts_are_the_whole(flexible, tokenizer):
    whole = read(flexible, tokenizer, 0, 6)
    assert {batch.images.shape[1] for batch in whole} == {4, 9, 16}
    for batch in whole:
        assert len(batch.keys) + sum(batch.bad.values()) == 8 * 16 // batch.images.shape[1]
    for found, expected in zip(read(flexible, tokenizer, 3, 6, threads=3), whole[3:], strict=True):
        assert_same(found, expected)
    parts = [read(flexible, tokenizer, 0, 6, part=part, parts=3) for part in range(3)]
    for number, expected in enumerate(whole):
        keys = [key for part in parts for key in part[number].keys]
        assert keys == list(expected.keys)
        assert torch.equal(torch.cat([part[number].images for part in parts]), expected.images)


def test_pictures_keep_their_shape_in_the_largest_grid_that_fits(flexible, tokenizer):
    fixed = Augment(crop_scale=(1, 1), crop_ratio=(1, 1))
    recipe = dataclasses.replace(flexible, data=dataclasses.replace(flexible.data, augment=fixed))
    grids = {  # by shape and length; rows, columns
        0: {4: (2, 2), 9: (2, 3), 16: (3, 5)},
        1: {4: (2, 2), 9: (3, 2), 16: (5, 3)},
        2: {4: (2, 2), 9: (3, 3), 16: (4, 4)},
    }
    for batch in read(recipe, tokenizer, 0, 6):
        length = batch.images.shape[1]
        for key, rows in zip(batch.keys, batch.images, strict=True):
            grid = tuple(rows[:, :2].amax(dim=0).tolist())
            if int(key) % 4 in grids:
                assert grid == grids[int(key) % 4][length], key
            assert (rows[:, 0] > 0).sum() == grid[0] * grid[1] <= length


def test_a_run_that_was_stopped_learns_the_same_to_the_bit(flexible, tmp_path):
    train(flexible, tmp_path / "whole")
    train_in_two_parts(flexible, tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    bundle = load_in_torch(tmp_path / "whole" / "bundle")
    assert bundle.model.config == flexible.model
    wide = drawing("red", "bar", 10).resize((90, 30))
    again = load_in_torch(tmp_path / "whole" / "bundle", image_size=64)  # at most 64 patches
    measured = ModelOptions(model=str(tmp_path / "whole" / "bundle"), image_size=64).features().bundle
    assert measured.preprocess(wide).shape == again.preprocess(wide).shape == (64, 194)
    features = np.concatenate([bundle.encode_images([wide]), again.encode_images([wide])])
    assert np.isfinite(features).all()
    assert 1e-4 < np.linalg.norm(features[0] - features[1]) < 1  # the same picture in more detail


def test_micro_batches_and_recomputed_blocks_learn_the_same(flexible, tmp_path):
    def losses(name: str, **options: Any) -> list[float]:
        return [report.loss for report in watched(change(flexible, **options), tmp_path / name)[1]]

    whole = losses("whole")
    assert losses("small", micro_batch_size=3) == pytest.approx(whole, abs=1e-4)
    assert losses("again", activation_checkpointing=True) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_draw_the_same_lengths_and_learn_what_one_learns(flexible, tmp_path, parallel):
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(change(flexible, steps=5, checkpoint_every=5)))
    (alone,) = run_ranks(learn, 1, path, tmp_path / "alone", True)
    path.write_text(to_toml(change(flexible, steps=5, checkpoint_every=5, parallel=parallel)))
    results = run_ranks(learn, 2, path, tmp_path / "two", True)
    assert sorted(key for result in results for key in result["keys"]) == sorted(alone["keys"])
    assert results[0]["counts"]["pairs"] == alone["counts"]["pairs"]
    assert furthest(tmp_path / "two", tmp_path / "alone") < 1e-9


def test_a_plan_counts_the_length_that_takes_most_memory_and_the_mean_time(flexible):
    setup = Setup(device=UNIT, precision="float32")

    def at(length: int, pairs: int) -> Plan:
        data = dataclasses.replace(flexible.data, sequence_lengths=(length,))
        return plan_run(dataclasses.replace(change(flexible, batch_size=pairs), data=data), setup)

    each = [at(4, 32), at(9, 14), at(16, 8)]  # 128 patches in all
    found = plan_run(flexible, setup)
    assert found.memory_total == max(plan.memory_total for plan in each)
    assert found.sequence_length == 4  # as that has the most texts
    assert found.batch_size == 32
    assert found.seconds["run"] == pytest.approx(sum(plan.seconds["run"] for plan in each) / 3)
    assert found.flops["image"] == flexible.model.image.cost(32, element=4, kept_patches=4).forward


def test_what_does_not_go_with_drawn_lengths_is_refused_in_a_sentence(flexible, tiny_recipe):
    phase = Phase(steps=2, image_size=16)
    for options, message in (
        ({"compile": True}, r"train\.compile must be false for a naflex tower"),
        ({"phases": (phase,)}, r"train\.phases must be empty for a naflex tower"),
        ({"patch_dropout": 0.5}, r"train\.patch_dropout must be 0.*naflex tower; vit and siglip take it"),
    ):
        with pytest.raises(ConfigError, match=message):
            change(flexible, **options)
    drawn = dataclasses.replace(tiny_recipe.data, sequence_lengths=(4, 9))
    with pytest.raises(
        ConfigError, match=r"sequence_lengths must be empty unless model\.image\.kind is \"naflex\".*4, 9"
    ):
        dataclasses.replace(tiny_recipe, data=drawn)
    with pytest.raises(ConfigError, match=r'preprocess\.resize must be "naflex".*Got "shortest" for "naflex"'):
        dataclasses.replace(flexible, preprocess=Preprocess(image_size=32))
    long = dataclasses.replace(flexible.data, sequence_lengths=(4, 99_999))
    with pytest.raises(ConfigError, match=r"sequence_lengths must be at most 256, 16 times .*Got 99,999"):
        dataclasses.replace(flexible, data=long)
    with pytest.raises(ConfigError, match=r"sequence_lengths must be at least 1 patch each\. Got 4, 0"):
        dataclasses.replace(tiny_recipe.data, sequence_lengths=(4, 0))
