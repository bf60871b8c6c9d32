import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import drawing, png
from diptych.config import to_toml
from diptych.errors import ConfigError, DataError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import Source
from diptych.pairs.shards import ShardWriter
from diptych.train.checkpoint import Checkpoint
from diptych.train.distributed import Ranks, Spread, clip_gradients, launched_ranks, pad, share_of, whole
from diptych.train.learner import Learner
from diptych.train.objectives import Contrastive
from diptych.train.recipe import TrainRecipe, read_recipe
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle
from processes import run_ranks
from runs import curve, furthest, learn, vit

# What the processes of a run have in common.


def talk() -> dict[str, Any]:
    with launched_ranks() as ranks:
        rows = torch.arange(3.0)[: ranks.rank + 1, None] + 10 * ranks.rank  # 1 row, 2 rows
        (passed,) = ranks.pass_on([torch.tensor([ranks.rank])])()
        try:
            ranks.share(lambda: (_ for _ in ()).throw(DataError("the disk is full")))
        except DataError as error:
            sentence = str(error)
        return {
            "shared": ranks.share(lambda: ranks.rank),
            "collected": ranks.collect(ranks.rank * 2),
            "sum": ranks.sum(torch.tensor([1.0 + ranks.rank])).item(),
            "gathered": ranks.gather(rows, [1, 2]).flatten().tolist(),
            "scattered": ranks.scatter_sum(torch.tensor([1.0, 2.0, 3.0]) * (1 + ranks.rank), [1, 2]).tolist(),
            "passed": passed.item(),
            "error": sentence,
            "took time": list(ranks.laps.seconds()),
        }


def test_processes_talk_and_uneven_shares_fit_together():
    first, second = run_ranks(talk, 2)
    assert (first.pop("scattered"), second.pop("scattered")) == ([3.0], [6.0, 9.0])
    assert (first.pop("passed"), second.pop("passed")) == (1, 0)
    assert first == second
    assert first == {
        "shared": 0,
        "collected": [0, 2],
        "sum": 3.0,
        "gathered": [0.0, 10.0, 11.0],
        "error": "the disk is full",
        "took time": ["communication", "other"],
    }


def test_a_process_by_itself_talks_to_nobody():
    ranks = Ranks(0, 1, torch.device("cpu"))
    rows = torch.ones(2, 3)
    assert ranks.is_first
    assert ranks.share(lambda: 7) == 7
    assert ranks.collect("a") == ["a"]
    assert ranks.gather(rows, [2]) is ranks.scatter_sum(rows, [2]) is ranks.sum(rows) is rows
    assert ranks.laps.seconds() == {}  # which takes no time


def test_rows_are_padded_with_zeros_at_the_end():
    assert pad(torch.ones(1, 2), 3).tolist() == [[1, 1], [0, 0], [0, 0]]


def hold(parallel: str) -> dict[str, Any]:
    with launched_ranks() as ranks:
        model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
        reference = {name: p.detach().clone() for name, p in model.named_parameters()}
        learner = Learner(model, nn.ModuleDict(), [Contrastive()])
        spread = Spread(learner, ranks, parallel, model.blocks())  # pyright: ignore[reportArgumentType]
        held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())
        pictures, tokens = torch.ones(2, 3, 32, 32) * (1 + ranks.rank), torch.ones(2, 4, dtype=torch.int64)
        for wanted in (False, True):
            with spread.averaging(wanted):
                output = spread(pictures, tokens).features
                assert output is not None
                ((output.image_features + output.text_features)[:, 0].sum() * output.logit_scale).backward()
        parameters = [p for p in model.parameters() if p.grad is not None]
        gradients = {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}
        norm = clip_gradients(parameters, 1e-3).item()
        clipped = torch.stack([whole(p.grad).norm() for p in parameters]).norm().item()
        same = all(torch.equal(whole(p.detach()), reference[name]) for name, p in model.named_parameters())
        again = share_of(reference["text.projection"], model.text.projection)
        return {
            "share": held / sum(p.numel() for p in reference.values()),
            "gradients": {name: value.tolist() for name, value in gradients.items() if value.ndim < 2},
            "norm": norm,
            "clipped": clipped,
            "same": same and torch.equal(whole(again), reference["text.projection"]),
        }


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_model_is_held_whole_or_in_shares_and_gradients_are_averaged_over_processes(parallel):
    results = run_ranks(hold, 2, parallel)
    model = CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0))
    for factor in (1, 2):  # what rank 0 and rank 1 see, each of them twice
        output = model(torch.ones(2, 3, 32, 32) * factor, torch.ones(2, 4, dtype=torch.int64))
        (
            (output.image_features + output.text_features)[:, 0].sum() * output.logit_scale
        ).backward()  # average of two is the sum over both
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()
    for result in results:
        assert result["share"] == 1 if parallel == "ddp" else result["share"] < 0.6
        assert result["norm"] == pytest.approx(norm, rel=1e-5)
        assert result["clipped"] == pytest.approx(1e-3, rel=1e-3)
        assert result["same"]
        for name, gradient in result["gradients"].items():
            torch.testing.assert_close(torch.tensor(gradient), model.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


# Whole runs: what several processes learn is what one learns.


@pytest.fixture(scope="module")
def spoiled_pairs(tmp_path_factory) -> Path:
    """30 drawings in captions of several lengths; every seventh cannot be read."""
    folder = tmp_path_factory.mktemp("spoiled")
    with ShardWriter(folder) as writer:
        for n in range(30):
            picture = png(drawing(("red", "blue", "green")[n % 3], ("bar", "cross")[n % 2], 4 + n % 10))
            caption = ("red bar", "a large blue cross", "green")[n % 3]
            writer.add(str(n), {"png": picture[:60] if n % 7 == 0 else picture, "txt": caption.encode()})
    return folder


@pytest.fixture(scope="module")
def alone(tiny_recipe, spoiled_pairs, tmp_path_factory) -> Callable[[bool], tuple[TrainRecipe, Path, dict[str, Any]]]:
    """20 steps by one process."""
    data = dataclasses.replace(tiny_recipe.data, sources=(Source(path=str(spoiled_pairs)),), max_bad=0.5)
    recipe = dataclasses.replace(vit(tiny_recipe, steps=20, checkpoint_every=100, max_gradient_norm=5.0), data=data)
    done: dict[bool, tuple[TrainRecipe, Path, dict[str, Any]]] = {}

    def run(is_double: bool) -> tuple[TrainRecipe, Path, dict[str, Any]]:
        if is_double not in done:
            folder = tmp_path_factory.mktemp("alone")
            (folder / "recipe.toml").write_text(to_toml(recipe))
            done[is_double] = recipe, folder / "run", learn(folder / "recipe.toml", folder / "run", is_double)
        return done[is_double]

    return run


WAYS = [
    (2, {}),
    (4, {"loss_exchange": "ring"}),
    (2, {"parallel": "fsdp", "loss_exchange": "ring"}),
    (2, {"micro_batch_size": 2}),
    (2, {"parallel": "fsdp", "micro_batch_size": 3, "activation_checkpointing": True}),
]


@pytest.mark.parametrize(("count", "options"), [pytest.param(*way, id=f"{way[0]} {way[1]}") for way in WAYS])
@pytest.mark.parametrize("is_double", [True, False], ids=["float64", "float32"])
def test_several_processes_learn_what_one_learns(alone, tmp_path, count, options, is_double):
    recipe, undisturbed, seen = alone(is_double)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    results = run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run", is_double)
    assert sorted(key for result in results for key in result["keys"]) == sorted(seen["keys"])
    assert all(result["counts"] == seen["counts"] for result in results)
    assert seen["counts"]["bad"] == {"truncated": 29}  # so that the processes' shares are uneven
    bound = 1e-9 if is_double else 2e-4
    assert furthest(tmp_path / "run", undisturbed) < bound
    for name in ("loss", "gradient_norm"):
        assert curve(tmp_path / "run", name) == pytest.approx(curve(undisturbed, name), rel=bound)


def test_a_run_goes_on_with_any_number_of_processes_and_sees_exactly_what_remains(alone, tmp_path):
    recipe, undisturbed, seen = alone(False)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    keys: list[str] = []
    for count, stop_after in ((2, 6), (1, 13), (4, 0)):
        results = run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
        assert {result["step"] for result in results} == {stop_after or 20}
        keys += [key for result in results for key in result["keys"]]
    assert sorted(keys) == sorted(seen["keys"])  # by step
    assert curve(tmp_path / "run", "step") == curve(undisturbed, "step")
    assert curve(tmp_path / "run", "pairs") == curve(undisturbed, "pairs")
    assert furthest(tmp_path / "run", undisturbed) < 2e-4


def test_shares_are_saved_whole_and_go_on(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=6, parallel="fsdp", checkpoint_every=2)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "undisturbed", False)
    for stop_after in (3, 0):
        run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False, stop_after)
    assert furthest(tmp_path / "run", tmp_path / "undisturbed") == 0
    last = tmp_path / "run" / "checkpoints" / "step-00000006"
    memory = Checkpoint.load(last).optimizer
    assert memory["text.token_embedding.weight.exp_avg"].shape == (600, recipe.model.text.width)
    assert Bundle.load(tmp_path / "run" / "bundle").fingerprint() == Bundle.load(last).fingerprint()


def refused(path: Path, out: Path) -> str:
    try:
        train(read_recipe(path), out)
    except ConfigError as error:
        return str(error)
    return ""


def test_what_several_processes_cannot_do_is_one_sentence_in_each(tiny_recipe, tmp_path):
    (tmp_path / "odd.toml").write_text(to_toml(vit(tiny_recipe, batch_size=9)))
    sentences = run_ranks(refused, 2, tmp_path / "odd.toml", tmp_path / "run")
    assert sentences == [sentences[0]] * 2
    assert sentences[0].startswith("train.batch_size must be a multiple of the number of processes, which share it. ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_a_frozen_tower_stays_in_several_processes_too(tiny_recipe, tmp_path, frozen):
    train(vit(tiny_recipe, steps=1), tmp_path / "start")
    start = str(tmp_path / "start" / "bundle")
    # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon makes steps.
    recipe = vit(dataclasses.replace(tiny_recipe, start_from=start), freeze=(frozen,), steps=6, epsilon=1e-4)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    train(recipe, tmp_path / "alone")
    run_ranks(learn, 2, tmp_path / "recipe.toml", tmp_path / "run", False)
    before, alone, after = (
        Bundle.load(path).model.state_dict()
        for path in (start, tmp_path / "alone" / "bundle", tmp_path / "run" / "bundle")
    )
    assert max((after[name] - alone[name]).abs().max().item() for name in alone) < 2e-4
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(f"{frozen}."))
    assert any(not torch.equal(before[name], after[name]) for name in before if not name.startswith(f"{frozen}."))
