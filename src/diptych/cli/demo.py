"""`diptych demo`: the main job, from raw pairs to a zero-shot table and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveFloat

from diptych.cli.console import complain

if TYPE_CHECKING:
    from diptych.train.recipe import TrainRecipe
    from diptych.train.trainer import Evaluator

RECIPE = Path(__file__).parent / "demo.toml"


def demo(
    *,
    out: Path = Path("runs/demo"),
    minutes: PositiveFloat = 10.0,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
) -> None:
    """Train a small CLIP from scratch on the embedded pairs, then name pictures of an art style it has never seen.

    Takes at most ten minutes: a machine that is too slow for all steps is found out at the start, and takes fewer.
    Stopped, it goes on where it was when started again.

    Parameters
    ----------
    out
        Folder of the run: the model in bundle/, report.html, results.json, log.jsonl.
    minutes
        How long it may take. Decided once, at the start of a run, by the pace of some steps; never more steps than the
        recipe has.
    set_
        One option of the demo's recipe, e.g. train.steps=200 for a quick look. May be given several times.
    """
    import datetime

    from diptych.cli.training import TrainingView, zero_shot_evaluators
    from diptych.files import write_json
    from diptych.pages.demo import demo_report
    from diptych.pages.html import write_report
    from diptych.train.log import read_log
    from diptych.train.recipe import read_recipe
    from diptych.train.trainer import train

    whole = read_recipe(RECIPE, set_ or ())
    evaluators = zero_shot_evaluators(whole)
    recipe = _within(minutes, whole, out, evaluators)
    with TrainingView(recipe) as view:
        result = train(recipe, out, evaluators=evaluators, on_progress=view, on_note=complain)
    if not result.finished:
        print(
            f"stopped and saved at step {result.step:,} of {recipe.train.steps:,}; the same command goes on from there"
        )
        raise SystemExit(130)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = demo_report(result, recipe, read_log(out / "log.jsonl"), date=today, planned_steps=whole.train.steps)
    write_json(out / "results.json", report.results)
    if left_out := write_report(report.page, out / "report.html"):
        complain(left_out)
    scored = report.scored
    print(
        f"zero-shot top-1 {scored.top1:.1%} ({scored.interval.low:.1%} to {scored.interval.high:.1%}), "
        f"top-5 {scored.top5:.1%}, over {scored.classes:,} names in an art style it has never seen; "
        f"chance {1 / scored.classes:.2%}"
    )
    for described in report.page.classified:
        print(f"  {described.truth}: " + ", ".join(f"{label} {share:.0%}" for label, share in described.guesses))
    print(f"report  {out / 'report.html'}\nresults {out / 'results.json'}\nmodel   {out / 'bundle'}")


def _within(minutes: float, recipe: "TrainRecipe", out: Path, evaluators: "Mapping[str, Evaluator]") -> "TrainRecipe":
    """The recipe with as many of its steps as this machine takes in time; those of the run that was begun."""
    import dataclasses

    from diptych.train.pace import measure_pace, steps_of

    wanted, steps = recipe.train.steps, steps_of(recipe, out)
    if not (out / "recipe.toml").is_file() and (pace := measure_pace(recipe, evaluators=evaluators)):
        steps = pace.steps_within(60 * minutes, evaluate_every=recipe.train.evaluate_every)
        if steps < wanted:
            fits = f"{steps:,} of {wanted:,} steps fit into {minutes:g} minutes (--minutes)"
            complain(f"a step takes {pace.step:.2f} s here: {fits}. The model will know less than after all of them.")
    steps = min(steps or wanted, wanted)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=steps))
