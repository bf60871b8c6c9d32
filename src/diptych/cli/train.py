"""`diptych train`: a recipe in, checkpoints and a bundle out."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    recipe: Path,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    out: Path | None = None,
) -> None:
    """Train a model as a recipe says; go on where a run in the same folder was stopped.

    Several processes share the work when torchrun starts them: torchrun --nproc-per-node 4 -m diptych train RECIPE.

    Parameters
    ----------
    recipe
        A TOML file; its relative paths are from its folder. `recipes/` has some; each opens with its command, time and
        result.
    set_
        One option of the recipe, e.g. train.batch_size=512; relative paths are from here. May be given several times.
    out
        Folder of the run, runs/NAME by default: recipe.toml, log.jsonl, checkpoints/, bundle/, results.json.
    """
    import diptych.train.trainer as trainer
    from diptych.cli.console import complain
    from diptych.cli.training import TrainingView, head_evaluators, zero_shot_evaluators
    from diptych.files import write_json
    from diptych.runtime import hardware
    from diptych.train.best import read_best
    from diptych.train.bottleneck import bottleneck
    from diptych.train.distributed import launched_rank
    from diptych.train.laps import time_shares
    from diptych.train.recipe import read_recipe

    plan = read_recipe(recipe, set_ or ())
    out = out or Path("runs") / plan.name
    if launched_rank() != 0:  # the first process measures, shows and writes for all
        trainer.train(plan, out, on_alarm=complain)
        return
    with TrainingView(plan) as view:
        result = trainer.train(
            plan,
            out,
            evaluators=zero_shot_evaluators(plan),
            head_evaluators=head_evaluators(plan),
            on_progress=view,
            on_alarm=complain,
            on_note=complain,
        )
    if not result.finished:
        print(f"stopped and saved at step {result.step:,} of {plan.train.steps:,}; the same command goes on from there")
        raise SystemExit(130)
    machine = hardware()
    held_up = bottleneck(time_shares(result.counts["time"]), plan, cores=int(machine["cores"]))
    facts = {"recipe": plan.name, "seed": plan.seed, "steps": result.step, "hardware": machine}
    facts |= {"metrics": dict(result.metrics), "counts": dict(result.counts), "bottleneck": held_up}
    facts |= {"notes": list(result.notes)} if result.notes else {}
    write_json(out / "results.json", facts)
    print(f"{result.counts['pairs']:,} pairs in {result.counts['train_seconds'] / 60:.1f} min -> {out / 'bundle'}")
    for name, value in result.metrics.items():
        print(f"{name} {value:.1%}")
    if plan.train.keep_best and (best := read_best(out / "best")):
        print(f"best {best.metric} {best.value:.1%} at step {best.step:,} -> {out / 'best'}")
    if bad := sum(result.counts["bad"].values()):
        print(f"{bad:,} bad samples were left out: {result.counts['bad']}")
    if held_up:
        print(held_up)
