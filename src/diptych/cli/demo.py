"""`diptych demo`: the main job, from raw pairs to a zero-shot table and a page."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.console import complain

RECIPE = Path(__file__).parent / "demo.toml"


def demo(
    *,
    out: Path = Path("runs/demo"),
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
) -> None:
    """Train a small CLIP from scratch on the embedded pairs, then name pictures of an art style it has never seen.

    Takes about ten minutes on two cores. Stopped, it goes on where it was when started again.

    Parameters
    ----------
    out
        Folder of the run: the model in bundle/, report.html, results.json, log.jsonl.
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

    recipe = read_recipe(RECIPE, set_ or ())
    with TrainingView(recipe) as view:
        result = train(recipe, out, evaluators=zero_shot_evaluators(recipe), on_progress=view)
    if not result.finished:
        print(
            f"stopped and saved at step {result.step:,} of {recipe.train.steps:,}; the same command goes on from there"
        )
        raise SystemExit(130)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = demo_report(result, recipe, read_log(out / "log.jsonl"), date=today)
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
