"""pages/sweep.py: the runs of a sweep side by side."""

from diptych.pages.sweep import sweep_page
from diptych.train.sweep import Outcome, Sweep, Trial


def test_the_page_has_a_row_a_run_the_best_in_the_headline_and_a_curve_of_each_that_has_one():
    trials = [Trial({"train.steps": "5", "seed": str(seed)}) for seed in range(3)]
    curve = [(1.0, 0.25), (5.0, 0.5)]
    found = [
        Outcome(trial=trials[0], state="finished", step=5, value=0.5, curve=curve),
        Outcome(trial=trials[1], state="running", step=1, value=0.25, curve=curve[:1]),
        Outcome(trial=trials[2], state="waiting"),
    ]
    page = sweep_page(Sweep(name="s", metric="set/top1", trials=trials), found, {"cpu": "some"})
    assert page.summary == "A sweep of 3 runs, of which 1 are finished, by set/top1; higher is better."
    assert page.headline == [("best", "50.0%", "steps=5,seed=0")]
    assert page.table
    assert page.table.header == ("run", "seed", "train.steps", "set/top1", "at step", "state")
    assert page.table.rows[0] == ("steps=5,seed=0", "0", "5", "50.0%", "5", "finished")
    assert page.table.rows[2][3:] == ("-", "0", "waiting")
    assert [(plot.title, plot.is_share) for plot in page.curves] == [("steps=5,seed=0", True), ("steps=5,seed=1", True)]
    assert "lower is better" in sweep_page(Sweep(name="s", metric="loss", trials=[]), [], {}).summary
