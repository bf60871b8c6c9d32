import dataclasses
import json
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from conftest import drawing, png
from diptych.errors import ConfigError, DataError, DiptychError
from diptych.model import text_tower
from diptych.model.packing import Packing, packed
from diptych.pairs.shards import ShardWriter
from diptych.pairs.sources import Source
from diptych.train import run as run_module
from diptych.train.checkpoint import Checkpoint
from diptych.train.trainer import StepReport, train
from diptych.weights.bundle import Bundle
from runs import (
    assert_same_run,
    change,
    count_pairs,
    losses,
    starting_from,
    train_in_two_parts,
    vit,
    watched,
    with_source,
)


def test_the_precision_that_auto_came_to_is_kept(tiny_recipe, tmp_path, monkeypatch):
    recipe = change(tiny_recipe, precision="auto", steps=4)
    monkeypatch.setattr(run_module, "fast_dtype", lambda _: torch.bfloat16)
    watched(recipe, tmp_path / "undisturbed")

    def fail(progress: StepReport) -> None:
        if progress.step == 3:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError, match="as if killed"):
        train(recipe, tmp_path / "run", on_progress=fail)
    monkeypatch.setattr(run_module, "fast_dtype", lambda _: torch.float32)  # as measured on a busier day
    train(recipe, tmp_path / "run")
    assert Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000004").precision == "bfloat16"
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_a_folder_of_another_run_is_left_alone(undisturbed, tiny_recipe, run_tiny, tmp_path):
    out = tmp_path / "run"
    run_tiny(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        ConfigError, match=r"run holds a run of another recipe \(train\.learning_rate was 0\.002 and is"
    ):
        run_tiny(out, learning_rate=1e-4)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_began_before_an_option_existed_goes_on_with_its_default(tiny_recipe, tmp_path):
    train(change(tiny_recipe, steps=2), tmp_path)
    state = tmp_path / "checkpoints" / "step-00000002" / "training.json"
    values = json.loads(state.read_text())

    def goes_on(**options: Any) -> int:
        plain = values["recipe"] | {"train": values["recipe"]["train"] | options}
        state.write_text(json.dumps(values | {"recipe": plain}))
        state.with_name("digests.json").unlink(missing_ok=True)  # such a checkpoint has none
        result = train(change(tiny_recipe, steps=2), tmp_path, on_note=notes.append)
        assert list(result.notes) == notes[-1:]
        return result.step

    notes: list[str] = []

    del values["recipe"]["train"]["layer_decay"], values["recipe"]["start_from"]
    assert goes_on() == 2
    assert "step-00000002 is of an older diptych and has no digests" in notes[0]
    with pytest.raises(ConfigError, match=r"another version of diptych began\. train\.layer_decoy is not an option"):
        goes_on(layer_decoy=0.5)


def test_a_note_is_text_whatever_the_bytes_of_a_name(tiny_recipe, tmp_path):
    for number in range(4):
        folder = tmp_path / "pictures" / os.fsdecode(b"\xc4" + str(number).encode())
        folder.mkdir(parents=True)
        for size in (4, 8, 12):
            (folder / f"{size}.png").write_bytes(png(drawing("red", "cross", size)))
    with ShardWriter(tmp_path / "good") as writer:
        for number in range(8):
            writer.add(f"{number}", {"png": png(drawing("red", "cross", 4 + number)), "txt": b"red cross"})
    sources = (Source(path=str(tmp_path / "pictures"), weight=0.001), Source(path=str(tmp_path / "good")))
    recipe = dataclasses.replace(tiny_recipe, data=dataclasses.replace(tiny_recipe.data, sources=sources, max_bad=0.9))
    notes = train(change(recipe, steps=1), tmp_path / "run").notes
    assert r"folders are the captions: \xc40, " in notes[0]
    assert all(note.encode() for note in notes)


def test_a_run_does_not_go_on_with_other_data(tiny_recipe, tmp_path):
    folder = tmp_path / "pairs"

    def write(count: int) -> None:
        for path in folder.glob("*"):
            path.unlink()
        with ShardWriter(folder) as writer:
            for n in range(count):
                writer.add(str(n), {"png": png(drawing("red", "bar", n + 2)), "txt": b"red bar"})

    write(4)
    recipe = with_source(change(tiny_recipe, steps=1, batch_size=2), folder)
    train(recipe, tmp_path / "run")
    write(5)
    with pytest.raises(ConfigError, match=r"run holds a run of other data: the pairs of .*pairs were changed\."):
        train(recipe, tmp_path / "run")


def test_a_source_that_is_not_there_is_one_sentence(tiny_recipe, tmp_path):
    with pytest.raises(DiptychError, match=r"nowhere must be a folder with \.tar shards"):
        train(with_source(tiny_recipe, tmp_path / "nowhere"), tmp_path / "run")


def test_too_many_bad_samples_end_a_run_with_their_causes(tiny_recipe, spoiled_shards, tmp_path):
    recipe = with_source(change(tiny_recipe, steps=100, checkpoint_every=100), spoiled_shards)
    with pytest.raises(DataError) as caught:
        train(recipe, tmp_path / "run")
    sentence = str(caught.value)
    assert sentence.startswith("at most 1.00% of the samples may be bad (data.max_bad). 1")  # the 11th of up to 1000
    assert "are: truncated 1" in sentence
    assert sentence.endswith("Mend the data, or raise the limit.")


def test_bad_samples_within_the_limit_are_counted_and_left_out(tiny_recipe, spoiled_shards, tmp_path):
    recipe = with_source(change(tiny_recipe, steps=5, checkpoint_every=100), spoiled_shards, max_bad=0.2)
    result, seen = watched(recipe, tmp_path / "run")
    assert result.counts["bad"] == {"truncated": 8}  # one epoch
    assert result.counts["pairs"] == seen[-1].pairs == 32


def test_a_batch_without_two_good_samples_is_one_sentence(tiny_recipe, tmp_path):
    with ShardWriter(tmp_path / "pairs") as writer:
        writer.add("a", {"png": b"", "txt": b"red cross red cross"})
    recipe = with_source(tiny_recipe, tmp_path / "pairs", max_bad=1.0)
    with pytest.raises(DataError, match=r"a batch must have at least two good samples, .* Bad so far: empty 8"):
        train(recipe, tmp_path / "run")


def test_the_factor_of_float16_halves_until_it_fits_and_grows_after_2000_steps():
    scale = run_module._LossScale({}, wanted=True)
    tries = scale.tries()
    assert [next(tries), next(tries)] == [2.0**16, 2.0**15]
    for _ in range(1999):
        assert next(scale.tries()) == 2.0**15
    again = run_module._LossScale(scale.plain(), wanted=True)
    assert next(again.tries()) == next(scale.tries()) == 2.0**16
    assert next(run_module._LossScale({"factor": 1.0, "steps": 5}, wanted=True).tries()) == 1.0
    assert list(run_module._LossScale({}, wanted=False).tries()) == [1.0]


@pytest.mark.parametrize(
    ("state", "types"),
    [("bfloat16", {torch.bfloat16}), ("int8", {torch.int8, torch.uint8, torch.float32})],
)
def test_compact_moments_are_saved_as_they_are_and_go_on_to_the_bit(tiny_recipe, tmp_path, state, types):
    recipe = vit(tiny_recipe, steps=6, optimizer_state=state)
    train(recipe, tmp_path / "undisturbed")
    train_in_two_parts(recipe, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    memory = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000006").optimizer
    assert {t.dtype for name, t in memory.items() if not name.endswith(".step")} == types


def test_blocks_are_compiled_where_the_recipe_says_so(tiny_recipe, tmp_path, monkeypatch):
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    plain = losses(tiny_recipe, tmp_path / "plain")
    assert not compiled
    # Texts are packed in the one and padded in the other.
    assert losses(tiny_recipe, tmp_path / "run", compile=True) == pytest.approx(plain, abs=1e-4)
    sizes = vit(tiny_recipe).model
    assert len(compiled) == sizes.image.layers + sizes.text.layers  # pyright: ignore[reportOperatorIssue]


def test_texts_are_packed_but_where_blocks_are_compiled(tiny_recipe, tmp_path, monkeypatch):
    found: list[bool] = []

    def watched_packing(tokens: torch.Tensor, ends: torch.Tensor) -> Packing | None:
        packing = packed(tokens, ends)
        found.append(packing is not None)
        return packing

    monkeypatch.setattr(text_tower, "packed", watched_packing)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _: None)
    losses(tiny_recipe, tmp_path / "plain")
    assert len(found) == 6  # a step each, and none for what is evaluated
    losses(tiny_recipe, tmp_path / "compiled", compile=True)
    assert len(found) == 6


# Starting from a model that is trained.


def test_a_run_may_start_from_a_bundle(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", steps=1, warmup_steps=0, learning_rate=1e-12)
    after = train(recipe, tmp_path / "run").bundle
    start = Bundle.load(before / "bundle")
    learned = after.model.state_dict()
    for name, value in start.model.named_parameters():
        torch.testing.assert_close(learned[name], value, rtol=0, atol=1e-9, msg=name)
    assert np.array_equal(after.tokenizer.encode(["red square"]), start.tokenizer.encode(["red square"]))
    assert 'start_from = "' in after.about.recipe


def test_a_run_may_start_from_a_model_for_smaller_pictures(tiny_recipe, tmp_path):
    small = vit(tiny_recipe)
    train(change(small, steps=1), tmp_path / "small")
    image = dataclasses.replace(small.model.image, image_size=64)
    large = dataclasses.replace(
        small,
        model=dataclasses.replace(small.model, image=image),
        preprocess=dataclasses.replace(small.preprocess, image_size=64),
    )
    result = train(starting_from(large, tmp_path / "small" / "bundle"), tmp_path / "large")
    assert result.finished
    assert result.bundle.preprocess.image_size == 64


def test_a_run_may_change_the_head_of_the_model_it_starts_from(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    start = starting_from(tiny_recipe, before / "bundle")
    recipe = dataclasses.replace(change(start, steps=1), model=dataclasses.replace(start.model, head="sigmoid"))
    result = train(recipe, tmp_path / "sigmoid")
    model = result.bundle.model
    assert model.config.head == "sigmoid"
    assert model.logit_bias is not None
    assert model.logit_bias.item() == pytest.approx(-10, abs=0.1)
    assert model.logit_scale_factor().item() == pytest.approx(10, rel=0.05)


def test_a_run_may_change_the_context_length_of_the_model_it_starts_from(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    start = starting_from(tiny_recipe, before / "bundle")
    text = dataclasses.replace(start.model.text, context_length=start.model.text.context_length + 8)
    recipe = dataclasses.replace(change(start, steps=1), model=dataclasses.replace(start.model, text=text))
    bundle = train(recipe, tmp_path / "longer").bundle
    assert bundle.model.config.text == text
    assert bundle.tokenizer.context_length == text.context_length


def test_a_start_of_other_sizes_is_refused(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(vit(tiny_recipe), before / "bundle")
    with pytest.raises(ConfigError, match=r"must be those of start_from=.*, but for the image size and .*: model\."):
        train(recipe, tmp_path / "run")


@pytest.mark.parametrize(("locked", "other"), [("image", "text"), ("text", "image")])
def test_a_frozen_tower_keeps_weights_and_batch_statistics_while_the_other_learns(
    undisturbed, tiny_recipe, tmp_path, locked, other
):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze=(locked,))
    result = train(recipe, tmp_path / "run", evaluators={"set": count_pairs})
    start, end = Bundle.load(before / "bundle").model.state_dict(), result.bundle.model.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(end[name].cpu(), value)}
    assert not [name for name in moved if name.startswith(f"{locked}.")]
    assert [name for name in moved if name.startswith(f"{other}.")]
    kept = Checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000008").optimizer
    assert {name.split(".")[0] for name in kept} == {other, "logit_scale"}


def test_frozen_batch_statistics_stay_while_all_weights_learn(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze_batch_statistics=True)
    model = train(recipe, tmp_path / "run", evaluators={"set": count_pairs}).bundle.model
    start, end = Bundle.load(before / "bundle").model.state_dict(), model.state_dict()
    statistics = {name for name, _ in model.named_buffers()}
    assert {name for name, value in start.items() if torch.equal(end[name].cpu(), value)} == statistics


def test_a_run_with_a_frozen_tower_goes_on_to_the_same_end(undisturbed, tiny_recipe, tmp_path):
    before, _, _ = undisturbed
    recipe = starting_from(tiny_recipe, before / "bundle", freeze=("image",))
    train(recipe, tmp_path / "whole")

    def stop(progress: StepReport) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    assert not train(recipe, tmp_path / "broken", on_progress=stop).finished
    train(recipe, tmp_path / "broken")
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
