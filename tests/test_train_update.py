import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import drawing
from diptych.errors import TrainingError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import batches, pair_sources
from diptych.torch_runtime import generator
from diptych.train import exchange
from diptych.train import update as update_module
from diptych.train.checkpoint import Checkpoint
from diptych.train.distributed import Ranks, Spread
from diptych.train.log import read_log
from diptych.train.objectives import BagOfWords, Caption, Classification, Contrastive, Together
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from diptych.train.update import Inputs, Losses, cached_gradients, whole_gradients
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise
from learning import learner_of
from runs import (
    assert_same_run,
    change,
    losses,
    starting_from,
    train_in_two_parts,
    vit,
    watched,
    with_source,
)
from test_files import names
from test_loss import pair_by_pair_loss

SLICES = [slice(0, 3), slice(3, 4), slice(4, 8)]


@pytest.fixture
def model() -> CLIP:
    return CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0)).double()


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    tokens = torch.randint(3, 500, (8, 6), generator=generator)
    tokens[:, -1] = 2  # the end
    return Inputs(images, tokens, torch.arange(8).expand(8, 8))


CONTRASTIVE = (Contrastive(),)
WAYS_TO_LEARN = {
    "contrastive": CONTRASTIVE,
    "words": [Classification(weight=2.0)],
    "all at once": [Caption(width=16, attends=True), Contrastive(weight=0.5), BagOfWords(weight=0.1)],
}


def gradients(
    model: CLIP, inputs: Inputs, micro_batches: list[slice] | None, objectives: Any = CONTRASTIVE, **options
) -> tuple[float, list]:
    ranks = Ranks(0, 1, torch.device("cpu"))
    learner = learner_of(model, objectives)
    spread = Spread(learner, ranks, "ddp", model.blocks())
    together = Together(
        text_ids=None, ranks=ranks, sizes=[len(inputs.images)], exchange="gather", teacher_image_features=None,
        teacher_text_features=None,
    )  # fmt: skip
    of_objectives = Losses(objectives, together)
    most: list[int] = []

    def forward(inputs: Inputs, with_heads: bool):
        most.append(len(inputs.images) * torch.is_grad_enabled())
        return spread(*inputs, None, with_heads)

    learner.zero_grad()
    options = {"scale_by": 1.0, "check": lambda loss: None, "ranks": ranks} | options
    if micro_batches is None:
        loss = whole_gradients(spread, forward, inputs, of_objectives, **options)
    else:
        loss = cached_gradients(spread, forward, inputs, of_objectives, micro_batches=micro_batches, **options)
        assert max(most) == 4  # rows with activations
    return loss, [(name, p.grad.clone()) for name, p in learner.named_parameters() if p.grad is not None]


@pytest.mark.parametrize("scale_by", [1.0, 8.0])
@pytest.mark.parametrize("way", WAYS_TO_LEARN)
def test_micro_batches_have_the_gradients_of_the_whole_batch(model, inputs, scale_by, way):
    loss, expected = gradients(model, inputs, None, WAYS_TO_LEARN[way])
    cached_loss, cached = gradients(model, inputs, SLICES, WAYS_TO_LEARN[way], scale_by=scale_by)
    assert cached_loss == pytest.approx(loss, rel=1e-12)
    for (name, ours), (_, theirs) in zip(cached, expected, strict=True):
        torch.testing.assert_close(ours, scale_by * theirs, rtol=1e-9, atol=1e-12, msg=name)


def test_where_each_pair_is_looked_at_by_itself_micro_batches_take_one_pass(model, inputs):
    passes: list[bool] = []
    encode = model.encode_image

    def listen(*args: Any) -> torch.Tensor:
        passes.append(torch.is_grad_enabled())
        return encode(*args)

    model.encode_image = listen
    gradients(model, inputs, SLICES, WAYS_TO_LEARN["words"])
    assert passes == [True] * 3
    passes.clear()
    gradients(model, inputs, SLICES)
    assert passes == [False] * 3 + [True] * 3


def test_each_micro_batch_by_itself_would_have_other_gradients(model, inputs):
    """The test above could not fail if negatives of other micro-batches made no difference."""
    _, expected = gradients(model, inputs, None)
    by_itself = [gradients(model, inputs.rows(rows), None)[1] for rows in SLICES]
    mean = sum(parts[-1][1] * (rows.stop - rows.start) / 8 for parts, rows in zip(by_itself, SLICES, strict=True))
    assert (mean - expected[-1][1]).abs().max() > 1e-3


def test_the_loss_is_checked_before_any_gradient_is_made(model, inputs):
    def refuse(loss: float) -> None:
        raise ValueError(loss)

    for micro_batches in (None, SLICES):
        with pytest.raises(ValueError, match=r"\d"):
            gradients(model, inputs, micro_batches, check=refuse)
        assert all(p.grad is None for p in model.parameters())


# Whole steps.


@pytest.mark.parametrize("same_text_is_positive", [True, False])
def test_the_first_loss_is_that_of_the_plain_twin(tiny_recipe, tmp_path, same_text_is_positive):
    recipe = change(tiny_recipe, steps=1, batch_size=40, same_text_is_positive=same_text_is_positive)
    recipe = with_source(recipe, Path(recipe.data.sources[0].path), templates=("{}", "a drawing of one {} on white"))
    result, (progress,) = watched(recipe, tmp_path)
    (batch,) = batches(
        pair_sources(recipe.data),
        recipe.data,
        preprocess=recipe.preprocess,
        tokenizer=result.bundle.tokenizer,
        batch_size=40,
        seed=recipe.seed,
        start=0,
        stop=1,
    )
    model = CLIP(recipe.model, generator(recipe.seed)).train()
    output = model(normalise(recipe.preprocess, batch.images), batch.tokens)
    ids, own = batch.text_ids.tolist(), list(range(40))
    features = output.image_features, output.text_features, output.logit_scale
    twins = {True: pair_by_pair_loss(*features, (ids, ids)), False: pair_by_pair_loss(*features, (own, own))}
    assert twins[True].item() != pytest.approx(twins[False].item(), rel=1e-3)
    assert progress.loss == pytest.approx(twins[same_text_is_positive].item(), rel=1e-4)


def test_a_sigmoid_head_learns_by_the_sigmoid_loss(tiny_recipe, tmp_path):
    recipe = vit(tiny_recipe, steps=1)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, head="sigmoid"))
    _, (progress,) = watched(recipe, tmp_path)
    assert progress.logit_scale == pytest.approx(10, rel=0.01)
    # At bias -10 all answers are "no", and 8 pictures have one match each: about 10 nats a picture, less the cosines.
    assert 5 < progress.loss < 20


def test_a_sigmoid_head_learns_more_than_how_rare_a_match_is(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, steps=40, batch_size=20, learning_rate=4e-3, checkpoint_every=100, log_every=100)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, head="sigmoid"))
    result, seen = watched(recipe, tmp_path)
    # 20 of 40 captions, of which 2 are alike: 1.25 of 20 texts match a picture, give or take. Who knows that alone:
    rare = 1.25 / 20
    constant = -20 * (rare * math.log(rare) + (1 - rare) * math.log(1 - rare))  # nats a picture
    assert sum(progress.loss for progress in seen[-5:]) / 5 < 0.9 * constant
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.fingerprint() == result.bundle.fingerprint()
    logits = bundle.logits_per_image(
        bundle.encode_images([drawing("red", "bar", 14)]), bundle.encode_texts(["red bar"])
    )
    torch.testing.assert_close(bundle.probabilities(logits), torch.from_numpy(logits).sigmoid().numpy())


def test_the_logit_scale_is_held_in_bounds_on_the_way(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, learning_rate=1.0, warmup_steps=0, checkpoint_every=100)
    _, seen = watched(recipe, tmp_path)  # Adam moves its logarithm, 2.7 at first, by up to 1 a step
    assert min(progress.logit_scale for progress in seen) == 1.0
    assert max(progress.logit_scale for progress in seen) <= 100.001


def test_a_gradient_is_clipped_and_its_own_length_is_told(tiny_recipe, tmp_path):
    free = change(tiny_recipe, steps=2, checkpoint_every=100)
    _, (first, second) = watched(free, tmp_path / "free")
    _, (clipped_first, clipped_second) = watched(change(free, max_gradient_norm=1e-3), tmp_path / "clipped")
    assert clipped_first.gradient_norm == first.gradient_norm > 1
    assert clipped_second.loss != second.loss


def test_lower_layers_move_less_where_the_recipe_says_so(tiny_recipe, tmp_path):
    before = CLIP(vit(tiny_recipe).model, generator(0)).state_dict()
    moved: dict[float, dict[str, float]] = {}
    for decay in (1.0, 0.5):
        recipe = vit(tiny_recipe, steps=1, warmup_steps=0, weight_decay=0.0, layer_decay=decay)
        after = train(recipe, tmp_path / str(decay)).bundle.model.state_dict()
        moved[decay] = {name: (after[name] - before[name]).norm().item() for name in before}
    shares = {name: moved[0.5][name] / moved[1.0][name] for name in moved[1.0] if moved[1.0][name] > 1e-4}
    for name, factor in (("image.projection", 1), ("image.blocks.1.mlp.up.weight", 0.5), ("text.projection", 1),
                         ("image.patch_embedding.weight", 0.125), ("text.position_embedding", 0.125)):  # fmt: skip
        assert shares[name] == pytest.approx(factor, rel=1e-3), name


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run_with_nothing_saved_after(tiny_recipe, tmp_path, monkeypatch, what):
    loss_of, calls = exchange.clip_loss, []

    def spoiled(image_features: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        loss = loss_of(image_features, *args, **options)
        if len(calls) < 5:
            return loss
        # 0, with an infinite slope: the root of 0.
        return loss * torch.nan if what == "loss" else loss + (image_features - image_features.detach()).sum().sqrt()

    monkeypatch.setattr(exchange, "clip_loss", spoiled)
    with pytest.raises(TrainingError, match=rf"the {what} must be finite, and is (nan|inf) at step 5\. ") as caught:
        train(tiny_recipe, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "checkpoints") == ["step-00000002", "step-00000004"]
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    assert not (tmp_path / "bundle").exists()


def test_a_rate_that_is_far_too_high_ends_the_run_with_the_step_named(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, learning_rate=1e38, warmup_steps=0, checkpoint_every=100)
    with pytest.raises(TrainingError, match=r"must be finite, and is (nan|inf) at step [2-8]\."):
        train(recipe, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_bfloat16_comes_near_float32_and_is_not_it(tiny_recipe, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = change(tiny_recipe, steps=2, precision=precision, checkpoint_every=100)
        _, seen = watched(recipe, tmp_path / precision)
        losses[precision] = [progress.loss for progress in seen]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_float16_finds_a_factor_that_fits_and_loses_no_batch(tiny_recipe, tmp_path, monkeypatch):
    recipe = vit(tiny_recipe, steps=6, precision="float16")
    _, seen = watched(recipe, tmp_path / "run")
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert [progress.loss for progress in seen] == pytest.approx(plain, rel=0.05)
    assert [progress.gradient_norm for progress in seen] != plain
    assert [progress.pairs for progress in seen] == list(range(8, 49, 8))
    factor = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000006").loss_scale["factor"]
    assert 1 <= factor <= 2**16
    assert math.log2(factor).is_integer()
    train_in_two_parts(recipe, tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "run")


# Savers of memory, each off unless a recipe asks for it.


@pytest.mark.parametrize("options", [{"micro_batch_size": 3}, {"activation_checkpointing": True}], ids=str)
def test_what_is_computed_twice_comes_out_the_same(tiny_recipe, tmp_path, options):
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert losses(tiny_recipe, tmp_path / "saving", **options) == pytest.approx(plain, rel=1e-5)
    saved, twin = (Bundle.load(tmp_path / name / "bundle").model.state_dict() for name in ("saving", "plain"))
    assert max((saved[name] - twin[name]).abs().max().item() for name in twin) < 1e-3


def test_a_run_may_go_on_with_more_memory_saved(tiny_recipe, tmp_path):
    saving = {"micro_batch_size": 3, "activation_checkpointing": True}
    result = train_in_two_parts(vit(tiny_recipe, steps=6), tmp_path / "run", then=vit(tiny_recipe, steps=6, **saving))
    assert result.finished
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert [line["loss"] for line in read_log(tmp_path / "run" / "log.jsonl")] == pytest.approx(plain, rel=1e-5)


def test_dropped_patches_are_drawn_anew_each_step_and_are_back_for_evaluation(tiny_recipe, tmp_path, monkeypatch):
    draw, drawn = update_module.draw_kept_patches, []

    def listen(noise: torch.Tensor, **options: Any) -> torch.Tensor:
        drawn.append(draw(noise, **options))
        return drawn[-1]

    monkeypatch.setattr(update_module, "draw_kept_patches", listen)
    half = losses(tiny_recipe, tmp_path / "half", patch_dropout=0.5)
    assert {tuple(kept.shape) for kept in drawn} == {(8, 8)}  # of 16
    assert not torch.equal(drawn[0], drawn[1])
    assert half != losses(tiny_recipe, tmp_path / "plain")
    micro = losses(tiny_recipe, tmp_path / "micro", patch_dropout=0.5, micro_batch_size=3)
    assert micro == pytest.approx(half, rel=1e-5)
    bundle = Bundle.load(tmp_path / "half" / "bundle")  # its golden features are those of all patches
    assert bundle.model.image.position_embedding.shape[0] == 17


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_micro_batches_with_a_frozen_tower_learn_what_the_whole_batch_does(tiny_recipe, tmp_path, frozen):
    # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon makes steps.
    plain = vit(tiny_recipe, epsilon=1e-4)
    train(change(plain, steps=1), tmp_path / "start")
    whole = starting_from(plain, tmp_path / "start" / "bundle", freeze=(frozen,))
    ends = [train(r, tmp_path / str(n)).bundle for n, r in enumerate((whole, change(whole, micro_batch_size=3)))]
    for name, value in ends[0].model.state_dict().items():
        torch.testing.assert_close(ends[1].model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


# Distillation.


def stored_features(path: Path, keys: Sequence[str], seed: int) -> str:
    features = torch.randn(len(keys), 5, generator=torch.Generator().manual_seed(seed))
    save_file({"features": features}, path, metadata={"keys": json.dumps(list(keys))})
    return str(path)


@pytest.fixture
def taught(tiny_recipe, tmp_path) -> TrainRecipe:
    """The tiny recipe with a teacher in five dimensions."""
    source = tiny_recipe.data.sources[0]
    (pairs,) = pair_sources(tiny_recipe.data)
    captions = dict.fromkeys(text for index in range(len(pairs)) for text in pairs.captions(index))
    source = dataclasses.replace(
        source,
        teacher_images=stored_features(tmp_path / "images.safetensors", [pairs[n].key for n in range(len(pairs))], 0),
        teacher_texts=stored_features(tmp_path / "texts.safetensors", list(captions), 1),
    )
    return dataclasses.replace(
        tiny_recipe,
        data=dataclasses.replace(tiny_recipe.data, sources=(source,)),
        train=dataclasses.replace(tiny_recipe.train, distillation=0.5, teacher_logit_scale=20.0, steps=1),
    )


def test_the_loss_of_a_teacher_is_added_with_its_weight(taught, tiny_recipe, tmp_path):
    _, (with_teacher,) = watched(taught, tmp_path / "taught")
    _, (without,) = watched(change(tiny_recipe, steps=1), tmp_path / "plain")
    model = CLIP(taught.model, generator(taught.seed)).train()
    bundle = Bundle.load(tmp_path / "taught" / "bundle")
    (batch,) = batches(
        pair_sources(taught.data), taught.data, preprocess=taught.preprocess, tokenizer=bundle.tokenizer,
        batch_size=8, seed=0, start=0, stop=1,
    )  # fmt: skip
    output = model(normalise(taught.preprocess, batch.images), batch.tokens)
    ours = output.logit_scale * output.image_features @ output.text_features.T
    assert batch.teacher_image_features is not None
    assert batch.teacher_text_features is not None
    theirs = 20 * batch.teacher_image_features @ batch.teacher_text_features.T
    divergences = [
        torch.nn.functional.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean").item()
        for a, b in ((ours, theirs), (ours.T, theirs.T))
    ]
    assert with_teacher.loss - without.loss == pytest.approx(0.5 * sum(divergences) / 2, rel=1e-4)
