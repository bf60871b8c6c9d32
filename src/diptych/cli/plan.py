"""`diptych plan`: what a recipe's run will cost on a stated device."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.console import print_table

if TYPE_CHECKING:
    from diptych.train.plan import Plan


def plan(
    recipe: Path,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    device: str = "here",
    devices: int = 1,
    precision: Literal["bfloat16", "float16", "float32"] | None = None,
    sharding: Literal["ddp", "fsdp"] | None = None,
    checkpointing: bool = False,
    utilisation: float = 0.2,
    json_: bool = False,
) -> None:
    """Tell what a run will cost before it starts: FLOPs, memory, bytes on the wire, time. No data is opened.

    Parameters
    ----------
    recipe
        A TOML file.
    set_
        One option of the recipe, e.g. train.batch_size=512. May be given several times.
    device
        v100-16gb, v100-32gb, a100-40gb, a100-80gb, h100-80gb, or here: the CPU of this machine, measured for a second.
    devices
        How many; they share train.batch_size.
    precision
        Of matrix products. The recipe's by default; for "auto" the fastest of the device.
    sharding
        ddp: weights, gradients and optimizer state whole on each device. fsdp: each holds its share of them. The
        recipe's train.parallel by default.
    checkpointing
        Transformer blocks are computed a second time in the backward pass, instead of kept. On as well when the
        recipe's train.activation_checkpointing is.
    utilisation
        Share of the device's peak that forward and backward passes reach.
    json_
        Print JSON.
    """
    from diptych.config import to_dict
    from diptych.train.devices import find_device
    from diptych.train.plan import Setup, plan_run
    from diptych.train.recipe import read_recipe

    run = read_recipe(recipe, set_ or ())
    setup = Setup.of(
        run,
        find_device(device),
        devices=devices,
        precision=precision,
        sharding=sharding,
        checkpointing=checkpointing,
        utilisation=utilisation,
    )
    cost = plan_run(run, setup)
    if json_:
        print(json.dumps(to_dict(cost), indent=2))
        return
    _print_run(cost, has_phases=bool(run.train.phases))
    _print_memory(cost)
    _print_step(cost)


def _print_run(cost: "Plan", *, has_phases: bool) -> None:
    setup, flops = cost.setup, cost.flops
    print(f"{cost.recipe}: {cost.steps:,} steps of {cost.batch_size:,} pairs")
    print(
        f"{setup.devices} x {setup.device.name}, {cost.pairs_per_device:,} pairs each, {setup.precision}, "
        f"{setup.sharding}{', checkpointing' if setup.checkpointing else ''}; {setup.device.source}\n"
    )
    if has_phases:
        print("counted at the model's own sizes, those of the last phase; the time of the run is that of all phases\n")
    if cost.sequence_length:
        print(
            f"counted at {cost.sequence_length:,} patches a picture, the sequence length that takes most memory; the "
            "time of the run is the mean over all lengths\n"
        )
    print_table(
        [
            ("parameters", *(f"{cost.parameters[part] / 1e6:,.2f} M" for part in ("image", "text", "total"))),
            ("GFLOPs a pair, forward", *(f"{flops[part] / 1e9:,.3f}" for part in ("image", "text", "forward"))),
            ("GFLOPs a pair, a training step", "", "", f"{flops['step'] / 1e9:,.3f}"),
        ],
        header=("", "image", "text", "total"),
        numbers=(1, 2, 3),
    )
    if "heads" in flops:
        size, forward = cost.parameters["heads"] / 1e6, flops["heads"] / 1e9
        print(f"of the total, heads of objectives: {size:,.2f} M parameters, {forward:,.3f} GFLOPs a pair, forward")
    print()


def _print_memory(cost: "Plan") -> None:
    device = cost.setup.device
    print_table(
        [
            *((part, _gib(size)) for part, size in cost.memory.items()),
            ("total", _gib(cost.memory_total)),
            *((f"total with {spread}", _gib(size)) for spread, size in cost.memory_otherwise.items()),
            (f"of a {device.name}", _gib(device.memory)),
        ],
        header=("memory of a device", ""),
        numbers=(1,),
    )
    for note in cost.notes:
        print(note)
    print("it fits\n" if cost.fits else f"it does not fit: {cost.advice}\n")


def _print_step(cost: "Plan") -> None:
    seconds = cost.seconds
    print_table(
        [
            *((f"{part}, sent by a device", f"{size / 1e9:,.3f} GB") for part, size in cost.wire.items()),
            (f"compute at {cost.setup.utilisation:.0%} of the peak", f"{seconds['compute']:,.4f} s"),
            ("optimizer", f"{seconds['update']:,.4f} s"),
            ("communication that nothing hides", f"{seconds['communication']:,.4f} s"),
            ("step", f"{seconds['step']:,.4f} s"),
        ],
        header=("a step", ""),
        numbers=(1,),
    )
    print(
        f"\n{cost.pairs_per_second:,.0f} pairs/s, model FLOPs utilisation {cost.mfu:.1%}\n"
        f"the run: {_duration(seconds['run'])}, {cost.device_hours:,.1f} device hours"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.3f} GiB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"
