"""How long a machine takes for a recipe's steps, and how many of them fit into some minutes."""

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.config import read_toml, to_dict
from diptych.errors import ConfigError
from diptych.train.phases import recipe_at, stages
from diptych.train.recipe import TrainRecipe, difference, recipe_of
from diptych.train.trainer import Evaluator, StepReport, train

_FIRST, _STEPS = 5, 25  # the first steps are slower, and do not count
_SPARE = 0.95  # of the time; a machine has other things to do


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a machine was measured to take."""

    step: float  # seconds
    evaluation: float  # seconds of each
    spent: float  # seconds that finding out took

    def steps_within(self, seconds: float, *, evaluate_every: int) -> int:
        """Steps that a run of so many seconds has, measuring itself at its start, on the way and at its end.

        Tens of them, and one more evaluation is left for what comes after; at least 10.
        """
        left = _SPARE * (seconds - self.spent - 3 * self.evaluation)
        each = self.step + (self.evaluation / evaluate_every if evaluate_every else 0.0)
        return max(1, math.floor(left / each / 10)) * 10


def measure_pace(recipe: TrainRecipe, *, evaluators: Mapping[str, Evaluator]) -> Pace | None:
    """A run's first steps, at its last phase's sizes, in a folder that is thrown away.

    Args:
        recipe: of the run; short ones, of fewer than eight times as many steps as a probe has, are not measured.
        evaluators: as `train` is given them.

    Raises:
        DiptychError: as `train` does.
        KeyboardInterrupt: a stop was asked for.
    """
    if recipe.train.steps < 8 * _STEPS:
        return None
    probed = recipe_at(recipe, stages(recipe)[-1])
    options = {"evaluate_every": 0, "checkpoint_every": _STEPS, "keep_best": "", "old_tasks": (), "max_forgetting": 0.0}
    settings = dataclasses.replace(probed.train, steps=_STEPS, **options)
    seconds: list[float] = []

    def on_progress(report: StepReport) -> None:
        seconds.append(report.seconds)

    with tempfile.TemporaryDirectory() as name:
        probed = dataclasses.replace(probed, train=settings)
        result = train(probed, Path(name) / "probe", evaluators=evaluators, on_progress=on_progress)
    if not result.finished:
        raise KeyboardInterrupt
    time = result.counts["time"]
    return Pace(
        step=(seconds[-1] - seconds[_FIRST - 1]) / (_STEPS - _FIRST),
        evaluation=time.get("evaluation", 0.0) / 2,
        spent=seconds[-1] + time.get("evaluation", 0.0),
    )


def steps_of(recipe: TrainRecipe, out: Path) -> int:
    """The steps of the run that a folder holds, where it is of this recipe but for their number; else 0."""
    try:
        before = recipe_of(read_toml(out / "recipe.toml"))
        steps = before.train.steps
        same = dataclasses.replace(before, train=dataclasses.replace(before.train, steps=recipe.train.steps))
    except ConfigError:
        return 0
    return 0 if difference(to_dict(same), to_dict(recipe)) else steps
