"""What `train` and `demo` share: the evaluators that a recipe names, and the view of a running step."""

import collections
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from diptych.cli.console import complain, error_console, shows_bars
from diptych.data.embedded import data_path
from diptych.eval.head_accuracy import head_accuracy
from diptych.eval.measure import evaluate_zero_shot, prompts_of, task_of
from diptych.runtime import usable_cores
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import time_shares
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import Evaluator, HeadEvaluator, StepReport
from diptych.train.watch import RECENT, time_of
from diptych.weights.bundle import Bundle

_LINE_EVERY = 50  # steps, where no terminal can show a bar


def zero_shot_evaluators(recipe: TrainRecipe) -> dict[str, Evaluator]:
    """One evaluator for each labelled set that the recipe names, by the set's folder name."""
    sets = [read_labelled(data_path(name)) for name in recipe.evaluate]
    for data in sets:
        if naming := prompts_of(data, task_of(data.name, "classification")).naming:  # refused before the first step
            complain(f"{data.name}: class names: {naming}.")
    return {data.name: _Accuracy(data) for data in sets}


def head_evaluators(recipe: TrainRecipe) -> dict[str, HeadEvaluator]:
    """The same sets for heads that tell names apart by themselves, in the first template of the recipe."""

    def accuracy(data: LabelledImages) -> HeadEvaluator:
        return lambda scorer: head_accuracy(scorer, data, template=recipe.data.templates[0])

    return {data.name: accuracy(data) for data in [read_labelled(data_path(name)) for name in recipe.evaluate]}


class _Accuracy:
    def __init__(self, data: LabelledImages) -> None:
        self._data = data

    def __call__(self, bundle: Bundle) -> Mapping[str, float]:
        numbers = evaluate_zero_shot(bundle, self._data).numbers
        names = {"top1": "top-1", "top5": "top-5"}
        return {name: numbers[key] for name, key in names.items() if key in numbers}


class TrainingView:
    """A live bar on a terminal, with what holds the run up below it; plain lines elsewhere."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self._recipe = recipe
        self._cores = usable_cores()
        self._console = error_console()
        self._bar = Bar(
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
        )
        self._live = Live(console=self._console, refresh_per_second=4) if shows_bars() else None
        self._task: TaskID | None = None
        self._shown: Mapping[str, float] = {}
        self._rate = 0.0
        self._recent: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECENT)  # lines of the log
        self._held_up = ""
        self._said = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: StepReport) -> None:
        """Show one step."""
        self._rate += (0.1 if self._rate else 1.0) * (progress.pairs_per_second - self._rate)
        state = (
            f"step {progress.step:,}/{progress.steps:,}  loss {progress.loss:.3f}  {self._rate:,.0f} pairs/s  "
            f"lr {progress.learning_rate:.1e}  scale {progress.logit_scale:.1f}"
        )
        if self._is_logged(progress):  # so its time is that of a whole line
            self._recent.append(progress.logged(with_metrics=False))
            self._held_up = bottleneck(time_shares(time_of(self._recent)), self._recipe, cores=self._cores)
        if self._live:
            if self._task is None:
                self._task = self._bar.add_task("", total=progress.steps, completed=progress.step - 1, state="")
            self._bar.update(self._task, completed=progress.step, state=state)
            self._live.update(Group(self._bar, Text(self._held_up, style="dim")))
        else:
            if progress.step % _LINE_EVERY == 0 or progress.step == progress.steps:
                left = (progress.steps - progress.step) * progress.seconds / progress.step
                self._console.print(f"{state}  {left / 60:.1f} min left", highlight=False)
            if len(self._recent) == RECENT and _without_share(self._held_up) != self._said:
                self._said = _without_share(self._held_up)
                self._console.print(self._held_up, highlight=False, soft_wrap=True)
        if progress.metrics != self._shown:
            self._shown = progress.metrics
            numbers = "  ".join(f"{name} {value:.1%}" for name, value in progress.metrics.items())
            self._console.print(f"step {self._measured_at(progress):,}  {numbers}", highlight=False)

    def _measured_at(self, progress: StepReport) -> int:
        """The step of the last evaluation."""
        every = self._recipe.train.evaluate_every
        if progress.step == progress.steps:
            return progress.step
        return progress.step - progress.step % every if every else 0

    def _is_logged(self, progress: StepReport) -> bool:
        every = (self._recipe.train.log_every, self._recipe.train.evaluate_every, progress.steps)
        return any(number and progress.step % number == 0 for number in every)


def _without_share(sentence: str) -> str:
    return sentence.partition("%")[2]
