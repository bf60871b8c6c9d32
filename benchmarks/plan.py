"""How far off `diptych plan` is: published runs against their published times, and the demo's recipe on this machine.

    python benchmarks/plan.py

The demo's recipe is trained for STEPS steps; between steps, whose time is taken without, the probe of `--device here`
is run again, so that prediction and measurement see the same machine. Writes results/plan.json.
"""

import datetime
import json
import os
import statistics
import tempfile
from pathlib import Path

import diptych.cli
import history
from diptych.runtime import hardware
from diptych.train.devices import Device, find_device
from diptych.train.plan import Plan, Setup, choose_precision, plan_run
from diptych.train.recipe import TrainRecipe, read_recipe
from diptych.train.trainer import StepReport, train

ROOT = Path(__file__).parent.parent
STEPS, PROBE_EVERY, WARM_UP = 60, 3, 6
# Recipe, device, devices, checkpointing, hours: CLIP, section 2.5 and table 18; open_clip's documentation.
PUBLISHED = [
    ("clip-vit-l-14", "v100-32gb", 256, True, 12 * 24),
    ("clip-rn50x64", "v100-32gb", 592, False, 18 * 24),
    ("openclip-vit-b-32-laion400m", "a100-40gb", 128, False, 36),
]


def planned(recipe: TrainRecipe, device: Device, devices: int = 1, *, checkpointing: bool = False) -> Plan:
    precision = choose_precision(recipe, device)
    return plan_run(recipe, Setup(device=device, devices=devices, precision=precision, checkpointing=checkpointing))


def implied(plan: Plan, step_seconds: float) -> float:
    """Share of the peak in forward and backward passes with which the plan would have come out right."""
    rest = plan.seconds["update"] + plan.seconds["communication"]
    return plan.setup.utilisation * plan.seconds["compute"] / (step_seconds - rest)


def published() -> list[dict[str, object]]:
    rows = []
    for name, device, devices, checkpointing, hours in PUBLISHED:
        recipe = read_recipe(ROOT / "recipes" / "published" / f"{name}.toml")
        plan = planned(recipe, find_device(device), devices, checkpointing=checkpointing)
        rows.append(
            {
                "recipe": name,
                "device": f"{devices} x {device}",
                "published hours": hours,
                "predicted hours": round(plan.seconds["run"] / 3600, 1),
                "predicted/published": round(plan.seconds["run"] / 3600 / hours, 2),
                "implied utilisation": round(implied(plan, hours * 3600 / plan.steps), 3),
            }
        )
    return rows


def here() -> dict[str, object]:
    recipe = read_recipe(Path(diptych.cli.__path__[0]) / "demo.toml", [f"train.steps={STEPS}"])
    predicted, measured = [], []
    plans = []

    def on_progress(progress: StepReport) -> None:
        if progress.step > WARM_UP:
            measured.append(progress.pairs_per_second)
        if progress.step % PROBE_EVERY == 0:
            plans.append(planned(recipe, find_device("here")))
            predicted.append(plans[-1].pairs_per_second)

    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", on_progress=on_progress)
    speed, expected = statistics.median(measured), statistics.median(predicted)
    middle = min(plans, key=lambda plan: abs(plan.pairs_per_second - expected))
    return {
        "recipe": "demo",
        "precision": middle.setup.precision,
        "peak GFLOP/s": round(middle.setup.device.flops[middle.setup.precision] / 1e9, 1),
        "predicted pairs/s": round(expected),
        "measured pairs/s": round(speed),
        "predicted/measured": round(expected / speed, 2),
        "implied utilisation": round(implied(middle, recipe.train.batch_size / speed), 3),
        "probes": len(plans),
        "steps": len(measured),
        "load average": round(os.getloadavg()[0], 1),  # beyond the cores: others were at work too
    }


def main() -> None:
    result = {
        "what": "time of a run by `diptych plan` at its default utilisation against what was published or measured",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": 0,
        "hardware": hardware(),
        "published": published(),
        "here": here(),
    }
    history.write(history.RESULTS / "plan.json", result, keys=("recipe",))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
