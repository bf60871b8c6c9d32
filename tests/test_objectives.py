"""What a recipe may ask to be learned: by recipe alone, added up, exact on the way, in several processes; or not."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.config import from_dict, to_dict, to_toml
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.pairs.pipeline import batches, pair_sources
from diptych.torch_runtime import generator
from diptych.train.checkpoint import Checkpoint
from diptych.train.exchange import sigmoid_loss, softmax_loss
from diptych.train.heads import Heads, NameScorer
from diptych.train.learner import Learner
from diptych.train.log import read_log
from diptych.train.objectives import (
    BagOfWords,
    Caption,
    Classification,
    Contrastive,
    Distillation,
    Objective,
    Sigmoid,
    all_needs,
    over_batch,
    per_sample,
    trains_text,
)
from diptych.train.plan import Setup, plan_run
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise
from learning import with_bag
from processes import run_ranks
from runs import assert_same_run, change, curve, furthest, learn, train_in_two_parts, vit, watched
from test_plan import UNIT

CAPTION = Caption(width=16, heads=2, layers=1)
LOOKING = Caption(width=16, heads=2, layers=1, attends=True, weight=0.5)


def with_head(recipe: TrainRecipe, head: Any, *objectives: Any) -> TrainRecipe:
    model = dataclasses.replace(recipe.model, head=head)
    return dataclasses.replace(recipe, model=model, train=dataclasses.replace(recipe.train, objectives=objectives))


@pytest.fixture
def recipes(tiny_recipe) -> dict[str, TrainRecipe]:
    """Every objective by itself, and sums of them, on the smallest vision transformer."""
    plain = vit(tiny_recipe, steps=6)
    return {
        "contrastive": change(plain, objectives=(Contrastive(),)),
        "sigmoid": with_head(plain, "sigmoid", Sigmoid()),
        "contrastive, bag": with_bag(plain),
        "bag-of-words": with_bag(plain, BagOfWords()),
        "classification": with_bag(plain, Classification()),
        "caption": change(plain, objectives=(CAPTION,)),
        "contrastive + caption": change(plain, objectives=(Contrastive(), LOOKING)),
        "contrastive + classification": change(plain, objectives=(Contrastive(), Classification(weight=0.1))),
        "all": change(plain, objectives=(BagOfWords(weight=0.01), Contrastive(), Classification(), LOOKING)),
    }


NAMES = (
    "contrastive", "sigmoid", "contrastive, bag", "bag-of-words", "classification", "caption", "contrastive + caption",
    "contrastive + classification", "all",
)  # fmt: skip


def test_a_recipe_that_names_no_objective_has_the_one_of_its_head(tiny_recipe):
    assert tiny_recipe.objectives == (Contrastive(),)
    assert with_head(tiny_recipe, "sigmoid").objectives == (Sigmoid(),)
    plain = to_dict(tiny_recipe)
    plain["train"]["objectives"] = [{"weight": 2}, {"kind": "caption", "attends": True}]
    assert from_dict(TrainRecipe, plain).objectives == (Contrastive(weight=2.0), Caption(attends=True))
    source = {"teacher_images": "a", "teacher_texts": "b"}
    taught = to_dict(tiny_recipe)
    taught["data"]["sources"][0] |= source
    taught["train"] |= {"distillation": 0.5, "teacher_logit_scale": 20.0}
    assert from_dict(TrainRecipe, taught).objectives == (
        Contrastive(),
        Distillation(weight=0.5, teacher_logit_scale=20.0),
    )


def test_naming_the_objective_of_the_head_changes_no_bit(tiny_recipe, tmp_path):
    for head, objective in (("softmax", Contrastive()), ("sigmoid", Sigmoid())):
        recipe = with_head(vit(tiny_recipe, steps=3), head)
        train(recipe, tmp_path / head / "plain")
        train(change(recipe, objectives=(objective,)), tmp_path / head / "named")
        ours, theirs = (tmp_path / head / name / "bundle" / "model.safetensors" for name in ("named", "plain"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_objectives_tell_what_they_need_and_the_kind_of_their_loss(tiny_recipe):
    model, bag = tiny_recipe.model, with_bag(tiny_recipe).model
    features = {"image_features", "text_features"}
    assert Contrastive().needs(model) == Sigmoid().needs(model) == features
    assert Classification().needs(model) == {"image_features", "tokens"}
    assert BagOfWords().needs(bag) == {"image_features", "tokens", "word_rows"}
    assert LOOKING.needs(model) == {"image_features", "image_tokens", "tokens"}
    both: Sequence[Objective] = (Contrastive(), CAPTION)
    assert all_needs(both, model) == features | {"tokens"}
    assert (over_batch(both), per_sample(both)) == ([Contrastive()], [CAPTION])
    assert trains_text(both, model)
    assert trains_text([Classification()], bag)
    assert not trains_text([CAPTION], bag)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_by_recipe_alone_and_goes_on_to_the_bit(recipes, tmp_path, name):
    recipe = change(recipes[name], ema_decay=0.5, micro_batch_size=3, checkpoint_every=2)
    train(recipe, tmp_path / "undisturbed")
    train_in_two_parts(recipe, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    found = [sorted((tmp_path / out / "bundle").glob("objectives.*")) for out in ("run", "undisturbed")]
    assert len(found[0]) == (2 if per_sample(recipe.objectives) else 0)
    for ours, theirs in zip(*found, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    for name in ("average.safetensors", "objectives.safetensors"):
        ours, theirs = (tmp_path / out / "checkpoints" / "step-00000006" / name for out in ("run", "undisturbed"))
        assert ours.is_file() == theirs.is_file()
        assert not ours.is_file() or ours.read_bytes() == theirs.read_bytes()


def whole_loss(recipe: TrainRecipe, bundle: Bundle) -> float:
    """The first loss of a run, from the parts and their weights."""
    (batch,) = batches(
        pair_sources(recipe.data), recipe.data, preprocess=recipe.preprocess, tokenizer=bundle.tokenizer,
        batch_size=8, seed=recipe.seed, start=0, stop=1,
    )  # fmt: skip
    model = CLIP(recipe.model, generator(recipe.seed)).train()
    if recipe.model.text.rows_are_features:
        model.text.load_state_dict(bundle.model.text.state_dict() | dict(model.text.named_parameters()))
    total = 0.0
    for objective in recipe.objectives:
        learner = Learner(model, first_heads(recipe, objective), [objective])
        outputs = learner(normalise(recipe.preprocess, batch.images), batch.tokens)
        if outputs.losses is not None:
            total += objective.weight * outputs.losses.double().mean().item()
        else:
            loss = softmax_loss if outputs.features.logit_bias is None else sigmoid_loss
            ranks: Any = dataclasses.make_dataclass("Ranks", [("count", int, 1)])()
            part = loss(outputs.features, batch.text_ids, ranks=ranks, sizes=[8], exchange="gather")
            total += objective.weight * part.item()
    return total


def first_heads(recipe: TrainRecipe, objective: Objective) -> torch.nn.ModuleDict:
    """The head of an objective as a run of no steps has it."""
    from diptych.train.distributed import Ranks
    from diptych.train.run import Run

    run = Run(recipe, pair_sources(recipe.data), None, Ranks(0, 1, torch.device("cpu")))
    heads = {kind: head for kind, head in run.heads.items() if kind == objective.kind}
    return torch.nn.ModuleDict(heads)


@pytest.mark.parametrize("name", ["sigmoid", "contrastive, bag", "bag-of-words", "caption", "all"])
def test_the_first_loss_is_the_sum_of_the_parts_times_their_weights(recipes, tmp_path, name):
    recipe = change(recipes[name], steps=1)
    result, (progress,) = watched(recipe, tmp_path)
    assert progress.loss == pytest.approx(whole_loss(recipe, result.bundle), rel=1e-5)


@pytest.mark.parametrize("name", ["classification", "caption", "all"])
def test_micro_batches_learn_what_whole_batches_do(recipes, tmp_path, name):
    plain = watched(recipes[name], tmp_path / "plain")[1]
    small = watched(change(recipes[name], micro_batch_size=3), tmp_path / "small")[1]
    assert [step.loss for step in small] == pytest.approx([step.loss for step in plain], rel=1e-4)


def refuse(*_: Any) -> Any:
    raise AssertionError("this tower must not run")


def test_words_and_captions_run_no_text_tower(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(Bundle, "save", lambda *_: None)  # which encodes golden texts
    monkeypatch.setattr(CLIP, "encode_text", refuse)
    for name in ("bag-of-words", "classification", "caption"):
        train(change(recipes[name], steps=1, checkpoint_every=9), tmp_path / name)
    with pytest.raises(AssertionError, match="must not run"):
        train(change(recipes["all"], steps=1, checkpoint_every=9), tmp_path / "all")


def test_image_tokens_are_asked_for_where_somebody_needs_them_alone(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(CLIP, "encode_image_and_tokens", refuse)
    train(change(recipes["caption"], steps=1), tmp_path / "caption")
    with pytest.raises(AssertionError, match="must not run"):
        train(change(recipes["contrastive + caption"], steps=1), tmp_path / "both")


def test_words_learned_as_classes_are_a_bundle_that_tells_names_apart(tiny_recipe, tmp_path):
    recipe = with_bag(tiny_recipe, Classification(), steps=60, checkpoint_every=100, log_every=100, batch_size=20)
    result = train(recipe, tmp_path)
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.fingerprint() == result.bundle.fingerprint()
    (batch,) = batches(
        pair_sources(recipe.data), recipe.data, preprocess=recipe.preprocess, tokenizer=bundle.tokenizer,
        batch_size=40, seed=0, start=0, stop=1,
    )  # fmt: skip
    captions = sorted({bundle.tokenizer.decode(row[1:]) for row in batch.tokens})
    names = bundle.encode_texts(captions)
    pictures = bundle.encode_pixels(batch.images.numpy())
    found = (pictures @ names.T).argmax(axis=1).tolist()
    own = [bundle.tokenizer.decode(row[1:]) for row in batch.tokens]
    right = sum(captions[best] == caption for best, caption in zip(found, own, strict=True))
    assert right / 40 > 3 / len(captions)  # three times chance
    scorer = NameScorer(bundle, Heads.load(tmp_path / "bundle"), "classification")
    assert scorer.names_by_bundle


def test_a_caption_head_alone_is_measured_by_its_own_scores_and_the_run_says_so(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, objectives=(CAPTION,), steps=2)
    result = train(
        recipe,
        tmp_path,
        evaluators={"set": lambda bundle: {"mean": bundle.encode_texts(["red"]).mean().item()}},
        head_evaluators={"set": lambda scorer: {"seen": float(scorer.names_by_bundle)}},
    )
    assert set(result.metrics) == {"set/mean", "set/caption seen"}
    assert "no objective trains the text tower" in result.notes[-1]
    start = CLIP(recipe.model, generator(0)).state_dict()
    after = result.bundle.model.state_dict()
    assert all(torch.equal(after[name], start[name]) for name in start if not name.startswith("image."))
    assert not torch.equal(after["image.projection.weight"], start["image.projection.weight"])
    quiet = train(
        with_bag(change(tiny_recipe, steps=1), Classification()), tmp_path / "bag", head_evaluators={"a": refuse}
    )
    assert quiet.metrics == {}


def test_the_best_bundle_has_its_heads_beside_it(tiny_recipe, tmp_path):
    recipe = change(tiny_recipe, objectives=(Contrastive(), CAPTION), keep_best="set/a", evaluate_every=1, steps=2)
    train(recipe, tmp_path, evaluators={"set": lambda _: {"a": 0.5}})
    heads = Heads.load(tmp_path / "best")
    assert list(heads.objectives) == [CAPTION]
    before = heads.tensors["caption.projection.weight"]
    assert not torch.equal(Heads.load(tmp_path / "bundle").tensors["caption.projection.weight"], before)


def test_heads_are_kept_over_a_phase_at_another_size(tiny_recipe, tmp_path):
    plain = to_dict(change(tiny_recipe, objectives=(Contrastive(), LOOKING), steps=4))
    plain["model"]["image"]["image_size"] = plain["preprocess"]["image_size"] = 64
    plain["train"]["phases"] = [{"steps": 3, "image_size": 32}]
    recipe = from_dict(TrainRecipe, plain)
    train(recipe, tmp_path / "undisturbed")
    train_in_two_parts(recipe, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_checkpoints_hold_heads_and_the_optimizers_memory_of_them(recipes, tmp_path):
    train(change(recipes["contrastive + caption"], checkpoint_every=6), tmp_path)
    saved = Checkpoint.load(tmp_path / "checkpoints" / "step-00000006")
    assert saved.heads.tensors["caption.token_embedding.weight"].shape == (600, 16)
    assert saved.optimizer["objectives.caption.token_embedding.weight.exp_avg"].shape == (600, 16)
    assert saved.optimizer["text.token_embedding.weight.exp_avg"].shape == (600, 32)


# Several processes.


@pytest.fixture(scope="module")
def twenty_steps(tiny_recipe, tmp_path_factory) -> Callable[..., tuple[TrainRecipe, Path]]:
    """Some objectives, 20 steps by one process in float64."""
    objectives = (Contrastive(), Classification(weight=0.3), LOOKING)
    recipe = vit(tiny_recipe, steps=20, checkpoint_every=100, objectives=objectives)
    bag = with_bag(vit(tiny_recipe, steps=20, checkpoint_every=100), BagOfWords())
    done: dict[str, tuple[TrainRecipe, Path]] = {}

    def run(name: str) -> tuple[TrainRecipe, Path]:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            (folder / "recipe.toml").write_text(to_toml({"sum": recipe, "bag": bag}[name]))
            learn(folder / "recipe.toml", folder / "run", True)
            done[name] = {"sum": recipe, "bag": bag}[name], folder / "run"
        return done[name]

    return run


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("sum", 2, {}),
        ("sum", 2, {"parallel": "fsdp", "micro_batch_size": 3}),
        ("bag", 2, {"parallel": "fsdp"}),
        ("bag", 4, {"micro_batch_size": 1}),
    ],
)
def test_several_processes_learn_objectives_as_one_does(twenty_steps, tmp_path, name, count, options):
    recipe, undisturbed = twenty_steps(name)
    (tmp_path / "recipe.toml").write_text(to_toml(change(recipe, **options)))
    run_ranks(learn, count, tmp_path / "recipe.toml", tmp_path / "run", True)
    assert furthest(tmp_path / "run", undisturbed) < 1e-9
    for value in ("loss", "gradient_norm"):
        assert curve(tmp_path / "run", value) == pytest.approx(curve(undisturbed, value), rel=1e-9)


def test_a_process_without_a_good_pair_takes_part(tmp_path, spoiled_shards, tiny_recipe):
    source = dataclasses.replace(tiny_recipe.data.sources[0], path=str(spoiled_shards))
    data = dataclasses.replace(tiny_recipe.data, sources=(source,), max_bad=0.5)
    recipe = dataclasses.replace(vit(tiny_recipe, steps=12, batch_size=4, checkpoint_every=100), data=data)
    recipe = change(recipe, objectives=(Contrastive(), Classification(), LOOKING))
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    learn(tmp_path / "recipe.toml", tmp_path / "alone", True)
    run_ranks(learn, 4, tmp_path / "recipe.toml", tmp_path / "run", True)
    assert furthest(tmp_path / "run", tmp_path / "alone") < 1e-9


# What is planned.


def test_a_plan_counts_heads_and_what_does_not_run(recipes):
    def plan(name: str) -> Any:
        return plan_run(recipes[name], Setup(device=UNIT, precision="bfloat16"))

    plain, both, words = plan("contrastive"), plan("contrastive + caption"), plan("classification")
    assert "heads" not in plain.parameters
    assert "head activations" not in plain.memory
    assert both.parameters["heads"] == both.parameters["total"] - plain.parameters["total"] > 600 * 16
    assert both.flops["forward"] == plain.flops["forward"] + both.flops["heads"]
    assert both.memory["optimizer"] == plain.memory["optimizer"] + 8 * both.parameters["heads"]
    assert both.memory["head activations"] > 0
    assert (words.flops["text"], words.flops["loss"], words.memory["text activations"]) == (0, 0, 0)
    assert words.flops["heads"] == 2 * 600 * 32
    assert words.parameters["heads"] == 600  # biases; the rows are the text tower's


# What is refused.


@pytest.mark.parametrize(
    ("head", "objectives", "sentence"),
    [
        ("softmax", (Contrastive(), Contrastive()), r"must name each kind once\. Got contrastive again\."),
        ("softmax", (Contrastive(weight=0.0),), r"weight must be above 0\. Got 0\.0 of contrastive\."),
        ("softmax", (Sigmoid(),), r'model\.head must be "sigmoid" where .* kind sigmoid, .* Got softmax and sigmoid\.'),
        ("sigmoid", (Contrastive(),), r'model\.head must be "sigmoid" where .* Got sigmoid and contrastive\.'),
        ("sigmoid", (Sigmoid(), Contrastive()), r"contrastive and sigmoid do not go together\. Got sigmoid"),
        ("softmax", (Classification(),), r'model\.text\.kind must be "bag-of-words" where no objective but classifi'),
        ("softmax", (Classification(), CAPTION), r"but classification and caption learns: .* a clip tower would stay"),
    ],
)
def test_what_no_run_can_learn_is_one_sentence(tiny_recipe, head, objectives, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        with_head(tiny_recipe, head, *objectives)
    assert "\n" not in str(caught.value)


def test_an_objective_that_does_not_exist_is_named(tiny_recipe):
    plain = to_dict(tiny_recipe)
    plain["train"]["objectives"] = [{"kind": "captions"}]
    with pytest.raises(ConfigError, match=r"train\.objectives\[0\]\.kind must be one of 'contrastive', .* Got 'capt"):
        from_dict(TrainRecipe, plain)


def test_a_run_does_not_go_on_with_other_objectives(recipes, tmp_path):
    train(change(recipes["contrastive"], steps=2), tmp_path)
    with pytest.raises(ConfigError, match=r"another recipe \(train\.objectives was"):
        train(change(recipes["contrastive + caption"], steps=2), tmp_path)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]
