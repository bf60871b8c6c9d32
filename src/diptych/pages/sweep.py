"""A sweep as a report: its runs by the metric, and how the best of them learned."""

from collections.abc import Mapping, Sequence

from diptych.pages.page import LinePlot, PageTable, ReportPage
from diptych.train.sweep import Outcome, Sweep, lower_is_better

_SHARES = ("top1", "top5")
_MOST = 12  # curves


def sweep_page(sweep: Sweep, found: Sequence[Outcome], conditions: Mapping[str, str]) -> ReportPage:
    """Lay out a sweep, under way or over.

    Args:
        sweep: of its folder.
        found: its runs, the best first.
        conditions: of all of them: recipe, seed, hardware.
    """
    ended = sum(one.state == "finished" for one in found)
    best = next((one for one in found if one.value is not None), None)
    is_share = sweep.metric.endswith(_SHARES)
    shown = (lambda value: f"{value:.1%}") if is_share else (lambda value: f"{value:.4g}")
    order = "lower is better" if lower_is_better(sweep.metric) else "higher is better"
    options = sorted({option for one in found for option in one.trial.options})
    return ReportPage(
        title=sweep.name,
        summary=f"A sweep of {len(found)} runs, of which {ended} are finished, by {sweep.metric}; {order}.",
        headline=[("best", shown(best.value), best.trial.name)] if best and best.value is not None else [],
        table=PageTable(
            header=("run", *options, sweep.metric, "at step", "state"),
            rows=[
                (
                    one.trial.name,
                    *(one.trial.options.get(option, "-") for option in options),
                    "-" if one.value is None else shown(one.value),
                    f"{one.step:,}",
                    one.state,
                )
                for one in found
            ],
            note="The best of many is better by luck too: measure it again with another seed before you report it.",
        ),
        curves=[
            LinePlot(title=one.trial.name, points=one.curve, is_share=is_share) for one in found[:_MOST] if one.curve
        ],
        conditions=dict(conditions),
    )
