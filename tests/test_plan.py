"""Plans: by hand, against a real model's tensors, and against the published runs."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diptych.cli.main import main
from diptych.cli.plan import plan
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.train.devices import Device, find_device
from diptych.train.muon import Muon, orthogonal_flops
from diptych.train.optim import adamw, hidden_matrices, parameter_groups
from diptych.train.plan import DEFAULT_UTILISATION, Plan, Setup, choose_precision, plan_run
from diptych.train.recipe import TrainRecipe, read_recipe

PUBLISHED = Path(__file__).parent.parent / "recipes" / "published"
CAPTIONS = Path(__file__).parent.parent / "recipes" / "photo-captions.toml"
DEMO = Path(__file__).parent.parent / "src" / "diptych" / "cli" / "demo.toml"
# One FLOP, one byte a second: times are counts. Two devices a node.
UNIT = Device(
    name="unit", flops={"bfloat16": 1, "float32": 1}, memory=10**9, bandwidth=1, node=2, link=1, network=0.5, source=""
)
# Recipe, preset, devices, checkpointing, hours (CLIP, section 2.5 and table 18; open_clip's documentation).
RUNS = [
    ("clip-vit-l-14", "ViT-L-14", "v100-32gb", 256, True, 12 * 24),
    ("clip-rn50x64", "RN50x64", "v100-32gb", 592, False, 18 * 24),
    ("openclip-vit-b-32-laion400m", "ViT-B-32", "a100-40gb", 128, False, 36),
]


def tiny(**train: object) -> TrainRecipe:
    """The demo's recipe with the sizes of tiny-vit, learning from pairs alone by AdamW."""
    recipe = read_recipe(DEMO)
    plain = {"batch_size": 8, "steps": 3, "optimizer": "adamw", "orthogonal_every": 1, "objectives": ()}
    return replace(
        recipe,
        model=preset("tiny-vit"),
        tokenizer=replace(recipe.tokenizer, vocab_size=512),
        train=replace(recipe.train, **(plain | train)),  # pyright: ignore[reportArgumentType]
    )


def frozen_image() -> TrainRecipe:
    return replace(tiny(), start_from="somewhere", train=replace(tiny().train, freeze=("image",)))


def setup(**options: object) -> Setup:
    return Setup(**({"device": UNIT, "precision": "bfloat16"} | options))  # pyright: ignore[reportArgumentType]


def planned(name: str, device: str, devices: int, checkpointing: bool) -> Plan:
    recipe = read_recipe(PUBLISHED / f"{name}.toml")
    what = find_device(device)
    precision = choose_precision(recipe, what)
    return plan_run(recipe, Setup(device=what, devices=devices, precision=precision, checkpointing=checkpointing))


@pytest.mark.parametrize(("name", "of", "device", "devices", "checkpointing", "hours"), RUNS)
def test_published_runs_are_predicted_within_a_factor_of_2(
    name: str, of: str, device: str, devices: int, checkpointing: bool, hours: int
):
    found = planned(name, device, devices, checkpointing)
    assert found.setup.precision == ("float16" if device == "v100-32gb" else "bfloat16")
    assert 1 / 2 < found.seconds["run"] / 3600 / hours < 2
    # What the published time implies for the share of the peak in forward and backward passes.
    rest = found.seconds["update"] + found.seconds["communication"]
    implied = found.setup.utilisation * found.seconds["compute"] / (hours * 3600 / found.steps - rest)
    assert 0.1 < implied < 0.3
    assert read_recipe(PUBLISHED / f"{name}.toml").model == preset(of)
    assert found.steps * found.batch_size == 12_800_000_000


def test_weights_gradients_and_optimizer_are_those_of_a_real_model_to_the_byte():
    for name in ("tiny-vit", "tiny-resnet"):
        recipe = replace(tiny(), model=preset(name))
        model = CLIP(recipe.model, generator(0))
        optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1))
        output = model(torch.rand(2, 3, 32, 32), torch.zeros(2, 16, dtype=torch.int64))
        (output.image_features.sum() * output.text_features.sum() * output.logit_scale).backward()
        optimizer.step()
        moments = [s[key] for s in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
        kept = (*model.parameters(), *model.buffers())
        memory = plan_run(recipe, setup()).memory
        assert memory["weights"] == sum(t.nbytes for t in kept)
        assert memory["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        assert memory["optimizer"] == sum(t.nbytes for t in moments)


def test_copies_of_weights_are_those_that_autocast_makes():
    model = CLIP(preset("tiny-vit"), generator(0))
    looked_up = sum(p.numel() for n, p in model.named_parameters() if "position" in n or "token_embedding" in n)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert plan_run(tiny(), setup()).memory["copies of weights"] == 2 * (matrices - looked_up)
    assert plan_run(tiny(), setup(precision="float32")).memory["copies of weights"] == 0


def test_memory_grows_with_the_pairs_of_the_fullest_device():
    recipe = tiny(batch_size=10)
    cost = recipe.model.image.cost(32, element=2)
    found = plan_run(recipe, setup(devices=4))
    assert found.pairs_per_device == 3  # 10 over 4 devices: 3, 3, 2, 2
    assert found.memory["image activations"] == 3 * cost.activations
    assert found.memory["features"] == (3 + 10) * 32 * 4 * 2
    assert found.memory["loss tile"] == 3 * 4 * 3 * 10
    checkpointed = plan_run(recipe, setup(devices=4, checkpointing=True))
    assert checkpointed.memory["image activations"] == 3 * cost.checkpointed
    assert found.memory_otherwise["ddp, checkpointing"] == checkpointed.memory_total


def test_fsdp_divides_the_state_and_gathers_two_blocks_at_a_time():
    whole, shared = plan_run(tiny(), setup(devices=4)), plan_run(tiny(), setup(devices=4, sharding="fsdp"))
    for part in ("weights", "gradients", "optimizer"):
        assert shared.memory[part] == -(-whole.memory[part] // 4)
    model = CLIP(preset("tiny-vit"))
    blocks = [sum(p.numel() for p in b.parameters()) for t in (model.image, model.text) for b in t.blocks]  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    rest = whole.parameters["total"] - sum(blocks)
    gathered = rest + 2 * max(blocks)
    assert shared.memory["copies of weights"] - whole.memory["copies of weights"] == 4 * gathered
    assert whole.memory_otherwise["fsdp"] == shared.memory_total


def test_fsdp_leaves_a_frozen_tower_whole_on_each_device_and_gathers_nothing_of_it():
    whole = plan_run(frozen_image(), setup(devices=4))
    shared = plan_run(frozen_image(), setup(devices=4, sharding="fsdp"))
    frozen = 4 * whole.parameters["image"]
    assert shared.memory["weights"] == frozen + -(-(whole.memory["weights"] - frozen) // 4)
    blocks = [sum(p.numel() for p in block.parameters()) for block in CLIP(preset("tiny-vit")).text.blocks]  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    gathered = whole.parameters["total"] - whole.parameters["image"] - sum(blocks) + 2 * max(blocks)
    assert shared.memory["copies of weights"] - whole.memory["copies of weights"] == 4 * gathered


def test_a_step_is_three_forward_passes_and_the_loss():
    found = plan_run(tiny(), setup())
    image, text = (t.cost(32, element=2) for t in (tiny().model.image, tiny().model.text))
    loss = 2 * 8 * 32
    assert found.flops["loss"] == loss
    assert found.flops["step"] == image.forward + image.backward + 3 * text.forward + 4 * loss
    again = plan_run(tiny(), setup(checkpointing=True))
    assert again.flops["step"] - found.flops["step"] == image.blocks + text.blocks


def test_times_are_counts_over_rates():
    found = plan_run(tiny(), setup(utilisation=0.5))
    parameters = found.parameters["total"]
    assert found.seconds["compute"] == 8 * found.flops["step"] / 0.5
    assert found.seconds["update"] == 28 * parameters  # weight, gradient, two moments: four read, three written
    assert found.seconds["communication"] == 0
    assert found.seconds["step"] == found.seconds["compute"] + found.seconds["update"]
    assert found.seconds["run"] == 3 * found.seconds["step"]
    assert found.pairs_per_second == 8 / found.seconds["step"]
    assert found.mfu == pytest.approx(8 * found.flops["step"] / found.seconds["step"])
    again = plan_run(tiny(), setup(utilisation=0.5, checkpointing=True))
    assert again.mfu < found.mfu  # computing twice is no use


def test_moments_of_8_bits_are_counted_as_a_real_optimizer_holds_them():
    model = CLIP(tiny().model, torch.Generator().manual_seed(0))
    optimizer = adamw(parameter_groups(model, weight_decay=0.1), betas=(0.9, 0.98), epsilon=1e-6, state="int8")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(t.nbytes for state in optimizer.state.values() for name, t in state.items() if name != "step")
    assert plan_run(tiny(optimizer_state="int8"), setup()).memory["optimizer"] == held


def test_momentum_of_muon_is_counted_as_a_real_optimizer_holds_it_and_its_products_as_time():
    model = CLIP(tiny().model, torch.Generator().manual_seed(0))
    groups = parameter_groups(model, weight_decay=0.1, optimizer="muon")
    optimizer = Muon(groups, momentum=0.95, betas=(0.9, 0.98), epsilon=1e-6, state="bfloat16")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(t.nbytes for state in optimizer.state.values() for name, t in state.items() if name != "step")
    assert plan_run(tiny(optimizer="muon", optimizer_state="bfloat16"), setup()).memory["optimizer"] == held
    plain, found = (plan_run(tiny(optimizer=name), setup(utilisation=0.5)) for name in ("adamw", "muon"))
    hidden = hidden_matrices(model)
    numbers = sum(p.numel() for name, p in model.named_parameters() if name in hidden)
    # Four blocks of width 32: query, key, value and output [32, 32], and the two of the MLP, [128, 32] and [32, 128].
    products = 4 * (4 * orthogonal_flops(32, 32) + 2 * orthogonal_flops(128, 32))
    assert found.seconds["update"] == plain.seconds["update"] - 8 * numbers + products / 0.5
    half = plan_run(tiny(optimizer="muon", orthogonal_every=2), setup(utilisation=0.5))
    assert half.seconds["update"] == found.seconds["update"] - products


def test_an_average_of_the_weights_takes_4_bytes_a_parameter():
    plain, found = plan_run(tiny(), setup(utilisation=0.5)), plan_run(tiny(ema_decay=0.999), setup(utilisation=0.5))
    parameters = found.parameters["total"]
    assert found.memory_total - plain.memory_total == found.memory["average of weights"] == 4 * parameters
    assert found.seconds["update"] == 40 * parameters  # 12 more: weight and average read, average written
    assert "average of weights" not in plain.memory


def test_bytes_on_the_wire_are_those_of_the_collectives():
    parameters = plan_run(tiny(), setup()).parameters["total"]
    ddp, fsdp = (plan_run(tiny(), setup(devices=4, sharding=sharding)) for sharding in ("ddp", "fsdp"))
    assert ddp.wire["weights and gradients"] == 3 / 4 * parameters * 8
    assert fsdp.wire["weights and gradients"] == 3 / 4 * parameters * (4 + 4 + 4)
    assert ddp.wire["features"] == 3 / 4 * 8 * 32 * 4 * 2
    assert plan_run(tiny(), setup()).wire == {"weights and gradients": 0, "features": 0}


def test_only_what_the_backward_pass_does_not_hide_adds_to_a_step():
    slow, fast = replace(UNIT, link=0.001), replace(UNIT, link=1e12)
    hidden = plan_run(tiny(), setup(device=fast, devices=2))
    assert hidden.seconds["communication"] == pytest.approx(hidden.wire["features"] / 1e12)
    shown = plan_run(tiny(), setup(device=slow, devices=2))
    backward = 4 * (shown.flops["step"] - shown.flops["forward"]) / DEFAULT_UTILISATION
    assert shown.seconds["communication"] == pytest.approx(sum(shown.wire.values()) / 0.001 - backward)
    beyond_the_node = plan_run(tiny(), setup(device=fast, devices=4))
    assert beyond_the_node.seconds["communication"] > 1  # over the network, at half a byte a second


def test_the_advice_names_the_least_that_makes_it_fit():
    recipe = tiny(batch_size=400)
    sizes = plan_run(recipe, setup(devices=4)).memory_otherwise
    assert sizes["ddp"] > sizes["fsdp"] > sizes["ddp, checkpointing"]

    def advice(memory: int, **options: object) -> str:
        found = plan_run(recipe, setup(device=replace(UNIT, memory=memory), devices=4, **options))
        assert found.fits == (not found.advice)
        return found.advice

    def enough(size: int) -> int:
        return int(size / 0.9) + 2

    assert advice(enough(sizes["ddp"])) == ""
    assert advice(enough(sizes["ddp"]) - 4).startswith("turn on --checkpointing: then it takes 0.0 GiB")
    assert "--sharding fsdp --checkpointing" in advice(enough(sizes["fsdp, checkpointing"]))
    assert "train.micro_batch_size" in advice(enough(sizes["fsdp, checkpointing"]) - 4)
    assert "Choose a larger device" in advice(1000)


def test_the_advice_on_pairs_is_the_largest_number_that_fits():
    device = replace(UNIT, memory=4 * 10**6)
    words = plan_run(tiny(batch_size=400), setup(device=device)).advice
    pairs = int(words.split("devices: ")[1].split()[0])
    for size, fits in ((pairs, True), (pairs + 1, False)):
        lean = setup(device=device, checkpointing=True)
        assert plan_run(tiny(batch_size=400, micro_batch_size=size), lean).fits == fits


def test_micro_batches_hold_less_and_compute_a_second_forward_pass():
    whole, parts = plan_run(tiny(), setup()), plan_run(tiny(micro_batch_size=2), setup())
    assert parts.memory["image activations"] == whole.memory["image activations"] / 4
    assert parts.flops["step"] - whole.flops["step"] == whole.flops["image"] + whole.flops["text"]
    assert parts.mfu < whole.mfu


def test_dropped_patches_are_not_computed_and_small_moments_not_held():
    found = plan_run(tiny(patch_dropout=0.75, optimizer_state="bfloat16"), setup())
    # 4 of 16 patches pass through the blocks with the class token; all are embedded.
    assert found.flops["image"] == tiny().model.image.cost(32, element=2, kept_patches=4).forward
    assert found.memory["optimizer"] == 4 * found.parameters["total"]


def test_a_frozen_tower_has_no_gradients_moments_or_activations():
    plain, lit = plan_run(tiny(), setup(devices=2)), plan_run(frozen_image(), setup(devices=2))
    trained = lit.parameters["total"] - lit.parameters["image"]
    assert lit.memory["weights"] == plain.memory["weights"]
    assert (lit.memory["gradients"], lit.memory["optimizer"]) == (4 * trained, 8 * trained)
    assert lit.memory["image activations"] == 0
    assert lit.memory["text activations"] == plain.memory["text activations"]
    assert plain.flops["step"] - lit.flops["step"] == tiny().model.image.cost(32, element=2).backward
    assert lit.wire["weights and gradients"] == 1 / 2 * trained * 8


def test_what_cannot_be_planned_is_named():
    with pytest.raises(ConfigError, match=r"at least one pair\. Got 8 pairs for 16 devices"):
        plan_run(tiny(), setup(devices=16))
    with pytest.raises(ConfigError, match=r"v100-16gb does not compute in bfloat16\. Choose from float16, float32"):
        setup(device=find_device("v100-16gb"))
    with pytest.raises(ConfigError, match=r"at least 1\. Got 0"):
        setup(devices=0)
    with pytest.raises(ConfigError, match=r"this machine alone\. Got 2"):
        setup(device=replace(UNIT, node=1), devices=2)
    with pytest.raises(ConfigError, match=r"at most 1\. Got 1\.5"):
        setup(utilisation=1.5)


def test_the_command_opens_no_data_and_prints_every_part(capsys: pytest.CaptureFixture[str]):
    words = ["plan", str(PUBLISHED / "clip-vit-l-14.toml"), "--device", "v100-16gb", "--devices", "64"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for part in ("427.62 M", "image activations", "optimizer", "features, sent by a device", "of a v100-16gb", "days"):
        assert part in out
    assert "it does not fit: turn on --sharding fsdp --checkpointing, then set train.micro_batch_size=334 or" in out
    fsdp = [
        word for option in ("parallel=fsdp", "activation_checkpointing=true") for word in ("--set", f"train.{option}")
    ]
    assert main([*words, *fsdp, "--set", "train.micro_batch_size=256", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["fits"], cost["pairs_per_device"], cost["setup"]["precision"]) == (True, 512, "float16")
    assert (cost["setup"]["sharding"], cost["setup"]["checkpointing"]) == ("fsdp", True)


def test_the_default_model_is_planned_and_offered_nothing_that_it_has_not(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(CAPTIONS), "--device", "a100-40gb"]) == 0
    out = capsys.readouterr().out
    assert "GFLOPs a pair, forward           1.739    1.710" in out
    assert "it fits" in out
    recipe = read_recipe(CAPTIONS, ["train.freeze=[]"])
    image, text = (tower.cost(384, element=2) for tower in (recipe.model.image, recipe.model.text))
    found = plan_run(recipe, setup(device=replace(UNIT, memory=10**9)))
    towers = image.forward + image.backward + text.forward + text.backward
    assert found.flops["step"] == towers + 4 * found.flops["loss"]
    assert found.memory["text activations"] == 256 * text.activations
    assert list(found.memory_otherwise) == ["ddp"]  # nothing in it can be computed a second time
    assert found.advice.startswith("set train.micro_batch_size=")


def test_a_setup_is_the_recipes_but_for_what_is_given():
    recipe = tiny(precision="float32", parallel="fsdp", activation_checkpointing=True)
    assert Setup.of(recipe, UNIT) == setup(precision="float32", sharding="fsdp", checkpointing=True)
    assert Setup.of(recipe, UNIT, devices=2, precision="bfloat16", sharding="ddp") == setup(
        devices=2, checkpointing=True
    )
    assert Setup.of(tiny(), UNIT) == setup()
    two = plan_run(tiny(), setup(devices=2))
    assert two.device_hours == pytest.approx(two.seconds["run"] / 1800)


def test_the_command_plans_for_this_machine(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(DEMO), "--precision", "float32", "--utilisation", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "demo: 1,700 steps of 256 pairs" in out
    assert "1 x here, 256 pairs each, float32, ddp; measured on" in out
    assert "it fits" in out


def test_the_commands_utilisation_is_the_plans():
    assert inspect.signature(plan).parameters["utilisation"].default == DEFAULT_UTILISATION
