"""What a run will cost before it starts: FLOPs, memory, bytes on the wire and time, from the recipe alone.

No data is opened, and no model is built but on the meta device. One multiply-add counts as 2 FLOPs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import nn

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.cost import TowerCost, frozen
from diptych.outside import is_outside
from diptych.train.devices import Device, MatrixType
from diptych.train.int8 import BLOCK
from diptych.train.loss import TILE
from diptych.train.muon import orthogonal_flops
from diptych.train.objectives import all_needs, build_heads, over_batch, per_sample, trains_text
from diptych.train.optim import StateType, hidden_matrices, parameter_groups
from diptych.train.own_optimizer import memory_of, own_optimizer
from diptych.train.patches import count_kept_patches
from diptych.train.phases import recipe_at, recipes_by_length, stages
from diptych.train.recipe import TrainRecipe

Sharding = Literal["ddp", "fsdp"]

# Share of the peak that forward and backward passes reach. A guess between what the published runs of
# recipes/published/ imply, 0.11 to 0.28 (docs/scale.md).
DEFAULT_UTILISATION = 0.2

_FLOAT = 4  # bytes; weights, gradients, moments, the residual stream and the features are float32
_USABLE = 0.9  # of a device's memory; the rest goes to its context, workspaces and gaps between blocks
_TILE_BUFFERS = 3


@dataclass(frozen=True, kw_only=True)
class Setup:
    """On what a recipe runs, and how it is spread.

    Raises:
        ConfigError: devices below 1 or several where there is one, a precision that the device has no unit for, or a
            utilisation outside 0 to 1.
    """

    device: Device
    devices: int = 1
    precision: MatrixType  # of matrix products; the rest is float32
    sharding: Sharding = "ddp"  # ddp: all state on every device; fsdp: each holds its share
    checkpointing: bool = False  # transformer blocks are computed a second time in the backward pass, instead of kept
    utilisation: float = DEFAULT_UTILISATION  # share of the peak that forward and backward passes reach

    def __post_init__(self) -> None:
        if self.devices < 1 or (self.device.node == 1 and self.devices > 1):
            limit = "1: --device here is this machine alone" if self.device.node == 1 else "at least 1"
            raise ConfigError(f"--devices must be {limit}. Got {self.devices}.")
        if self.precision not in self.device.flops:
            options = ", ".join(self.device.flops)
            raise ConfigError(f"{self.device.name} does not compute in {self.precision}. Choose from {options}.")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--utilisation must be above 0 and at most 1. Got {self.utilisation}.")

    @classmethod
    def of(
        cls,
        recipe: TrainRecipe,
        device: Device,
        *,
        devices: int = 1,
        precision: MatrixType | None = None,
        sharding: Sharding | None = None,
        checkpointing: bool = False,
        utilisation: float = DEFAULT_UTILISATION,
    ) -> "Setup":
        """On what a recipe runs where it says so itself, but for what is given.

        Raises:
            ConfigError: see `Setup`.
        """
        return cls(
            device=device,
            devices=devices,
            precision=precision or choose_precision(recipe, device),
            sharding=sharding or recipe.train.parallel,
            checkpointing=checkpointing or recipe.train.activation_checkpointing,
            utilisation=utilisation,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of a run. Memory and wire are of the device that has most to do."""

    recipe: str  # name
    setup: Setup
    steps: int
    batch_size: int  # pairs an update, over all devices
    pairs_per_device: int  # of one batch, rounded up
    sequence_length: int  # patches of a picture, where a NaFlex run draws them: the length that is counted; else 0
    parameters: dict[str, int]  # image, text, heads where objectives have some, total
    flops: dict[str, int]  # a pair: image, text, heads, loss, all forward, a step (backward and recomputation included)
    memory: dict[str, int]  # bytes by part
    memory_total: int  # bytes
    memory_otherwise: dict[str, int]  # bytes in total, by sharding, with and without checkpointing
    fits: bool
    advice: str  # what to turn on when it does not fit
    wire: dict[str, int]  # bytes sent a step, by part
    seconds: dict[str, float]  # of a step: compute, update, communication that nothing hides; then step and run
    pairs_per_second: float
    notes: tuple[str, ...]  # what could not be counted, a sentence each
    mfu: float  # FLOPs of the model, recomputation left out, as a share of the peak during the whole step

    @property
    def device_hours(self) -> float:
        """Hours of the run, of all devices together."""
        return self.seconds["run"] / 3600 * self.setup.devices


def plan_run(recipe: TrainRecipe, setup: Setup) -> Plan:
    """Cost of a recipe's run on a stated machine.

    A run with phases is counted at the model's own sizes, those of its last steps, and one that draws sequence lengths
    at that which takes most memory; the run's time is that of all of them. Texts are counted at full context length,
    so batches whose texts are short take less. Not counted: reading and decoding pictures, evaluation, saving.
    Gradients travel while the backward pass computes, weights (fsdp) during the whole step; what is left over, and the
    features, add to the step.

    Raises:
        ConfigError: fewer pairs in a batch than devices.
    """
    if recipe.train.batch_size < setup.devices:
        raise ConfigError(
            f"train.batch_size must give each device at least one pair. Got {recipe.train.batch_size} pairs for "
            f"{setup.devices} devices."
        )
    drawn = recipes_by_length(recipe)
    recipe = max(drawn, key=lambda one: sum(_memory(_sizes(one, setup), setup).values()))
    batch_size = recipe.train.batch_size
    sizes = _sizes(recipe, setup)
    memory, flops, wire = _memory(sizes, setup), _flops(sizes, setup), _wire(sizes, setup)
    total = sum(memory.values())
    seconds = _seconds(sizes, setup, flops, wire)
    useful = flops["step"] - _repeated(sizes, setup)
    peak = setup.device.flops[setup.precision] * setup.devices
    return Plan(
        recipe=recipe.name,
        setup=setup,
        steps=recipe.train.steps,
        batch_size=batch_size,
        pairs_per_device=sizes.pairs,
        sequence_length=max(recipe.data.sequence_lengths, default=0),
        parameters={
            "image": sizes.image_parameters,
            "text": sizes.text_parameters,
            **({"heads": sizes.head_parameters} if sizes.heads else {}),
            "total": sizes.parameters,
        },
        flops=flops,
        memory=memory,
        memory_total=total,
        memory_otherwise={
            f"{other.sharding}{', checkpointing' if other.checkpointing else ''}": sum(_memory(sizes, other).values())
            for other in _alternatives(recipe, setup)
        },
        fits=total <= _USABLE * setup.device.memory,
        advice=_advice(recipe, setup),
        wire=wire,
        seconds=seconds | {"run": sum(_run_seconds(one, setup) for one in drawn) / len(drawn)},
        pairs_per_second=batch_size / seconds["step"],
        notes=sizes.notes,
        mfu=useful * batch_size / (seconds["step"] * peak),
    )


def _run_seconds(recipe: TrainRecipe, setup: Setup) -> float:
    seconds = 0.0
    for stage in stages(recipe):
        sizes = _sizes(recipe_at(recipe, stage), setup)
        step = _seconds(sizes, setup, _flops(sizes, setup), _wire(sizes, setup))["step"]
        seconds += step * (stage.stop - stage.start)
    return seconds


def choose_precision(recipe: TrainRecipe, device: Device) -> MatrixType:
    """The recipe's precision; for "auto" the fastest of the device."""
    return device.fastest_precision if recipe.train.precision == "auto" else recipe.train.precision


class _Sizes(NamedTuple):
    """What a recipe holds, counted once."""

    pairs: int  # a device
    pairs_at_a_time: int  # a device has activations of
    is_over_batch: bool  # an objective takes the features of all pairs
    is_cached: bool  # features come first, by micro-batches; the towers' forward pass is done twice
    batch_size: int
    embed_dim: int
    image: TowerCost
    text: TowerCost
    heads: TowerCost | None  # of the objectives per sample
    image_parameters: int
    text_parameters: int
    head_parameters: int
    parameters: int
    trained: int  # parameters that are not frozen: those have gradients and moments
    weight_bytes: int  # parameters and buffers
    moment_bytes: int  # AdamW's two moments, or Muon's momentum, or what an optimizer from outside keeps
    update_flops: int  # of an update that is more than a few operations a parameter: Muon's, which is float32
    average_bytes: int  # of the weights, where the run keeps one
    matrix_parameters: int  # of which autocast makes copies
    gathered_parameters: int  # that fsdp puts together at a time: two blocks and what is in none
    notes: tuple[str, ...]  # what could not be counted


def _sizes(recipe: TrainRecipe, setup: Setup) -> _Sizes:
    config = recipe.model
    kept = next(iter(recipe.data.sequence_lengths), None)  # one at most, see `recipes_by_length`
    if recipe.train.patch_dropout:
        kept = count_kept_patches(config.image.patches, recipe.train.patch_dropout)
    pairs = math.ceil(recipe.train.batch_size / setup.devices)
    micro_batch_size = recipe.train.micro_batch_size
    model = CLIP(config)  # on the meta device
    heads = build_heads(recipe.objectives, config, _Ends())
    costs = {
        "image": config.image.cost(config.embed_dim, element=_element(setup), kept_patches=kept),
        "text": config.text.cost(config.embed_dim, element=_element(setup)),
    }
    if "text_features" not in all_needs(recipe.objectives, config):
        costs["text"] = TowerCost(0, 0, 0, 0, 0)
    for name in recipe.train.freeze:
        costs[name] = frozen(costs[name])
        getattr(model, name).requires_grad_(False)
    if not trains_text(recipe.objectives, config):
        model.text.requires_grad_(False)
    of_heads = [one.cost(config, element=_element(setup)) for one in per_sample(recipe.objectives)]
    is_over_batch = bool(over_batch(recipe.objectives))
    named = (*model.named_parameters(), *((f"heads.{name}", p) for name, p in heads.named_parameters()))
    trained = {name: p for name, p in named if p.requires_grad}
    stacked = hidden_matrices(model) if recipe.train.optimizer == "muon" else {}
    hidden = {name: count for name, count in stacked.items() if name in trained}
    blocks = [sum(p.numel() for p in block.parameters() if p.requires_grad) for block in model.blocks()]
    trained_parameters = sum(p.numel() for p in trained.values())
    looked_up = ("token_embedding.weight", "position_embedding")  # added, never multiplied
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim >= 2 and not name.endswith(looked_up))
    matrices += sum(p.numel() for p in heads.parameters() if p.ndim >= 2)
    parameters = _count(model) + _count(heads)
    moment_bytes = _moment_bytes(trained, hidden, recipe.train.optimizer_state)
    if is_outside(recipe.train.optimizer):
        moment_bytes = _own_moment_bytes(recipe, [model, heads])
    tensors = (*model.parameters(), *model.buffers(), *heads.parameters(), *heads.buffers())
    return _Sizes(
        pairs=pairs,
        pairs_at_a_time=min(pairs, micro_batch_size or pairs),
        is_over_batch=is_over_batch,
        is_cached=micro_batch_size > 0 and is_over_batch,
        batch_size=recipe.train.batch_size,
        embed_dim=config.embed_dim,
        image=costs["image"],
        text=costs["text"],
        heads=TowerCost(*map(sum, zip(*of_heads, strict=True))) if of_heads else None,
        image_parameters=_count(model.image),
        text_parameters=_count(model.text),
        head_parameters=_count(heads),
        parameters=parameters,
        trained=trained_parameters,
        weight_bytes=sum(t.numel() * t.element_size() for t in tensors),
        moment_bytes=moment_bytes or 0,
        update_flops=sum(_orthogonal_flops(trained[name], count) for name, count in hidden.items())
        // recipe.train.orthogonal_every,
        average_bytes=_FLOAT * parameters if recipe.train.ema_decay else 0,
        matrix_parameters=matrices,
        gathered_parameters=trained_parameters - sum(blocks) + 2 * max(blocks, default=0),
        notes=tuple(_notes(recipe, moment_bytes)),
    )


class _Ends(NamedTuple):
    """What a head asks of a tokenizer; none of its sizes hangs on it."""

    start_token_id: int | None = None
    end_token_id: int = 0


def _moment_bytes(trained: Mapping[str, nn.Parameter], hidden: Iterable[str], state: StateType) -> int:
    """Of parameters by name, those in `hidden` Muon's."""
    if state == "int8":
        return 2 * sum(p.numel() + _FLOAT * math.ceil(p.numel() / BLOCK) for p in trained.values())
    numbers = 2 * sum(p.numel() for p in trained.values()) - sum(trained[name].numel() for name in hidden)
    return numbers * (_FLOAT if state == "float32" else 2)


def _notes(recipe: TrainRecipe, moment_bytes: int | None) -> Iterator[str]:
    for one in over_batch(recipe.objectives):
        if is_outside(one.kind):
            yield f"what the loss of {one.kind} takes is counted as that of the contrastive one"
    if moment_bytes is None:
        yield f"what {recipe.train.optimizer} keeps is not counted, as its step looks at numbers"


def _own_moment_bytes(recipe: TrainRecipe, modules: Iterable[nn.Module]) -> int | None:
    """Of an optimizer from outside, by a step on the meta device."""
    settings = recipe.train
    groups = [group for one in modules for group in parameter_groups(one, weight_decay=settings.weight_decay)]
    betas = (settings.beta1, settings.beta2)
    return memory_of(own_optimizer(settings.optimizer, groups, betas=betas, epsilon=settings.epsilon))


def _orthogonal_flops(parameter: nn.Parameter, stacked: int) -> int:
    rows = len(parameter) // stacked
    return stacked * orthogonal_flops(rows, parameter.numel() // len(parameter))


def _element(setup: Setup) -> int:
    """Bytes of one number in matrix products."""
    return _FLOAT if setup.precision == "float32" else 2


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _memory(sizes: _Sizes, setup: Setup) -> dict[str, int]:
    shares = setup.devices if setup.sharding == "fsdp" else 1
    element = _element(setup)
    copies = element * sizes.matrix_parameters if element < _FLOAT else 0  # of autocast, kept for the backward pass
    if shares > 1:
        copies += _FLOAT * sizes.gathered_parameters
    image, text = (
        tower.checkpointed if setup.checkpointing else tower.activations for tower in (sizes.image, sizes.text)
    )
    return {
        "weights": _shared(sizes, sizes.weight_bytes, shares),
        "copies of weights": copies,
        "gradients": math.ceil(_FLOAT * sizes.trained / shares),
        "optimizer": math.ceil(sizes.moment_bytes / shares),
        **({"average of weights": _shared(sizes, sizes.average_bytes, shares)} if sizes.average_bytes else {}),
        "image activations": sizes.pairs_at_a_time * image,
        "text activations": sizes.pairs_at_a_time * text,
        **({"head activations": sizes.pairs_at_a_time * sizes.heads.activations} if sizes.heads else {}),
        **(_loss_memory(sizes) if sizes.is_over_batch else {}),
    }


def _shared(sizes: _Sizes, total: int, shares: int) -> int:
    """Of so many bytes of weights, what one device holds: its share of what is trained, and all of what is frozen."""
    frozen_bytes = _FLOAT * (sizes.parameters - sizes.trained)
    return frozen_bytes + math.ceil((total - frozen_bytes) / shares)


def _loss_memory(sizes: _Sizes) -> dict[str, int]:
    return {
        # Own pictures, texts of all devices, and their gradients.
        "features": 2 * _FLOAT * (sizes.pairs + sizes.batch_size) * sizes.embed_dim,
        "loss tile": _TILE_BUFFERS * _FLOAT * min(TILE, sizes.pairs) * min(TILE, sizes.batch_size),
    }


def _flops(sizes: _Sizes, setup: Setup) -> dict[str, int]:
    # A row of logits; its softmax serves both directions.
    loss = 2 * sizes.batch_size * sizes.embed_dim if sizes.is_over_batch else 0
    parts = [sizes.image, sizes.text, *([sizes.heads] if sizes.heads else [])]
    towers = sum(part.forward + part.backward for part in parts)
    # The loss: a tile is computed for its sums, again for its gradients, and takes part in two products then.
    return {
        "image": sizes.image.forward,
        "text": sizes.text.forward,
        **({"heads": sizes.heads.forward} if sizes.heads else {}),
        "loss": loss,
        "forward": sum(part.forward for part in parts) + loss,
        "step": towers + _repeated(sizes, setup) + 4 * loss,
    }


def _repeated(sizes: _Sizes, setup: Setup) -> int:
    """FLOPs of a pair that are done a second time to save memory."""
    blocks = sizes.image.blocks + sizes.text.blocks if setup.checkpointing else 0
    return blocks + (sizes.image.forward + sizes.text.forward if sizes.is_cached else 0)


def _wire(sizes: _Sizes, setup: Setup) -> dict[str, int]:
    share = (setup.devices - 1) / setup.devices
    # fsdp: weights gathered for both passes, gradients scattered. ddp: a ring's all-reduce, which sends all twice.
    state = share * sizes.trained * _FLOAT * (3 if setup.sharding == "fsdp" else 2)
    # Texts are gathered, their gradients scattered; pictures stay. Passing them round a ring sends as much.
    features = share * 2 * _FLOAT * sizes.batch_size * sizes.embed_dim if sizes.is_over_batch else 0
    return {"weights and gradients": round(state), "features": round(features)}


def _seconds(sizes: _Sizes, setup: Setup, flops: dict[str, int], wire: dict[str, int]) -> dict[str, float]:
    device = setup.device
    compute = sizes.pairs * flops["step"] / (device.flops[setup.precision] * setup.utilisation)
    shares = setup.devices if setup.sharding == "fsdp" else 1
    # Weight, gradient and moments read; weight and moments written; the average read and written beside the weight.
    touched = 3 * _FLOAT * sizes.trained + 2 * sizes.moment_bytes + 3 * sizes.average_bytes
    update = touched / shares / device.bandwidth
    update += sizes.update_flops / (device.flops["float32"] * setup.utilisation)
    # ddp: the backward pass, what it computes again included.
    hides = compute if setup.sharding == "fsdp" else compute * (1 - flops["forward"] / flops["step"])
    communication = 0.0
    if setup.devices > 1:
        rate = device.link if setup.devices <= device.node else device.network
        communication = max(0.0, wire["weights and gradients"] / rate - hides) + wire["features"] / rate
    step = compute + update + communication
    return {"compute": compute, "update": update, "communication": communication, "step": step}


def _alternatives(recipe: TrainRecipe, setup: Setup) -> list[Setup]:
    has_blocks = recipe.model.image.has_blocks or recipe.model.text.has_blocks
    shardings: tuple[Sharding, ...] = ("ddp", "fsdp") if setup.devices > 1 else ("ddp",)
    return [
        replace(setup, sharding=sharding, checkpointing=checkpointing)
        for sharding in shardings
        for checkpointing in ((False, True) if has_blocks else (False,))
    ]


def _advice(recipe: TrainRecipe, setup: Setup) -> str:
    """The least that makes a run fit, in one sentence; nothing when it fits as it is."""
    usable = _USABLE * setup.device.memory
    precisions = dict.fromkeys((setup.precision, setup.device.fastest_precision))
    tries = [replace(option, precision=p) for p in precisions for option in (setup, *_alternatives(recipe, setup))]
    for option in tries:
        total = sum(_memory(_sizes(recipe, option), option).values())
        if total <= usable:
            words = " ".join(_turned_on(setup, option))
            return words and f"turn on {words}: then it takes {total / 2**30:.1f} GiB."
    leanest = tries[-1]
    sizes = _sizes(recipe, leanest)
    fixed = sum(_memory(sizes._replace(pairs_at_a_time=0), leanest).values())
    pairs = int((usable - fixed) / (sizes.image.checkpointed + sizes.text.checkpointed))
    if pairs < 1:
        return f"weights, their state and features alone take {fixed / 2**30:.1f} GiB. Choose a larger device."
    options = " ".join(_turned_on(setup, leanest))
    first = f"turn on {options}, then " if options else ""
    cure = "spread the batch over more devices"
    if not recipe.model.image.needs_whole_batch:
        cure = f"set train.micro_batch_size={pairs} or {cure}"
    return f"{first}{cure}: {pairs:,} pairs a device fit at a time."


def _turned_on(before: Setup, after: Setup) -> list[str]:
    """The options of the command that lead from one setup to another."""
    changes = (
        f"--precision {after.precision}" if after.precision != before.precision else "",
        f"--sharding {after.sharding}" if after.sharding != before.sharding else "",
        "--checkpointing" if after.checkpointing and not before.checkpointing else "",
    )
    return [change for change in changes if change]
