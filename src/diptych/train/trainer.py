"""The loop: batch, step, log, evaluate, save; and what a run is asked, told and ends with."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from diptych.config import to_dict, to_toml
from diptych.data.notebook import progress
from diptych.errors import TrainingError
from diptych.files import atomic_folder, folder_lock, remove_leftovers, write_text
from diptych.pairs.pipeline import Batch, batches
from diptych.runtime import stop_request
from diptych.train.best import BestBundle, check_metric
from diptych.train.checkpoint import list_checkpoints
from diptych.train.distributed import launched_ranks
from diptych.train.forgetting import CHANGE, forgotten, with_changes
from diptych.train.heads import Heads, NameScorer
from diptych.train.log import RunLog
from diptych.train.phases import stages
from diptych.train.recipe import TrainRecipe
from diptych.train.run import Run, check_ranks, open_run
from diptych.train.saver import Saver
from diptych.train.trackers import Trackers, check_trackers
from diptych.train.update import StepOutcome, train_step
from diptych.train.watchdog import Watchdog
from diptych.weights.bundle import Bundle

Evaluator = Callable[[Bundle], Mapping[str, float]]
HeadEvaluator = Callable[[NameScorer], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Where a run is after a step; given to `on_progress` after every one."""

    step: int  # updates done
    steps: int
    loss: float  # nats, of this batch
    gradient_norm: float  # of this batch, before it is clipped
    learning_rate: float
    logit_scale: float  # the factor
    pairs: int  # learned from so far
    seconds: float  # of training so far, evaluation and saving excluded
    pairs_per_second: float  # of this step, the wait for its batch included
    metrics: Mapping[str, float]  # of the last evaluation, empty before the first
    bad: Mapping[str, int]  # samples left out so far, by cause
    time: Mapping[str, float]  # seconds since the last line of the log, by section of `laps`

    def logged(self, *, with_metrics: bool) -> dict[str, Any]:
        """One line of `log.jsonl`."""
        names = ("step", "pairs", "seconds", "loss", "gradient_norm", "learning_rate", "logit_scale")
        line = {name: getattr(self, name) for name in names} | (dict(self.metrics) if with_metrics else {})
        line |= {"bad": dict(self.bad)} if self.bad else {}
        return line | _rounded(self.time)


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    bundle: Bundle
    step: int
    finished: bool  # False: stopped by a signal, and saved
    metrics: Mapping[str, float]  # of the last evaluation
    counts: Mapping[str, Any]  # pairs, bad ones by cause, truncated texts, seconds of training, seconds by section
    notes: Sequence[str] = ()  # what was assumed in reading the sources, a sentence each


def train(
    recipe: TrainRecipe,
    out: Path,
    *,
    evaluators: Mapping[str, Evaluator] | None = None,
    head_evaluators: Mapping[str, HeadEvaluator] | None = None,
    on_progress: Callable[[StepReport], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train one model; go on from the newest checkpoint when `out` holds one of the same recipe.

    A run that was killed at any moment and started again ends with the same weights, bit for bit, as one that was not
    (same machine, same number of torch threads). SIGINT and SIGTERM end it after the step in hand, saved. On the way
    `data.max_bad`, `train.threads` and how often it is saved may change.

    Where torchrun started several processes, all call this; each computes its part of every batch, the first one
    alone measures, writes and calls back. Another number of processes may go on with a run: it sees the same batches,
    and its weights differ by rounding.

    Args:
        recipe: everything that decides the run.
        out: gets `recipe.toml`, `log.jsonl`, `checkpoints/`, `best/` where the recipe asks for it, and at the end
            `bundle/`, heads of objectives beside the bundle's own files; one run at a time. Trackers may keep something
            there too.
        evaluators: each is given the model as a bundle and returns named finite numbers, logged as `NAME/number`;
            called once before the first step, then as the recipe says, and at the end. In a run from a trained model
            `NAME/number_change` tells how far each went since the start.
        head_evaluators: each is given what scores names by the head of an objective, where that says other than the
            bundle does, at the same times; logged as `NAME/KIND number`.
        on_progress: called after each step; by default a notebook shows a bar.
        on_alarm: called when another process died or stands still, in the one that found it, with a sentence; this
            process then ends with exit code 1, as no Python code can end a wait for others.
        on_note: called before the first step with each sentence on what was assumed in reading the sources, in the
            first process; and with a sentence for each tracker that fails, whenever that is.

    Raises:
        ConfigError: `out` holds a run of another recipe or of other data, or another process works in it; or
            `start_from` holds a model of other sizes; or the recipe names a metric that no evaluator gives.
        DataError: a source cannot be read, `out` cannot be written, or too many samples are bad.
        MissingExtraError: grain is not installed, or `train.trackers` asks for what is not.
        TrainingError: the loss or its gradient is not finite, or the run forgot more than the recipe bears; it is then
            saved.
        WeightsError: the newest checkpoint is damaged, or `start_from` cannot be read.
    """
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(launched_ranks())
        check_ranks(recipe, ranks)
        check_trackers(recipe.train.trackers)  # what is missing is missed now

        def claim() -> Path | None:
            stack.enter_context(folder_lock(out))
            remove_leftovers(out)
            remove_leftovers(out / "checkpoints")
            shutil.rmtree(out / "stall", ignore_errors=True)  # of a life that ended otherwise, maybe of more processes
            return next(reversed(list_checkpoints(out / "checkpoints")), None)

        newest = ranks.share(claim)
        run = open_run(recipe, ranks, out, newest)
        stack.callback(lambda: run.spread.close())  # of the last phase
        if on_note and ranks.is_first:
            for note in run.notes:
                on_note(note)
        ranks.share(lambda: write_text(out / "recipe.toml", to_toml(recipe)))
        watchdog = Watchdog(
            ranks, out / "stall", seconds=recipe.train.stall_seconds, on_alarm=on_alarm or (lambda _: None)
        )
        with watchdog:
            try:
                measures = _Evaluators(evaluators or {}, head_evaluators or {})
                advance = stack.enter_context(progress(f"training {recipe.name}"))
                show = on_progress or (lambda report: advance(report.step, report.steps))
                _go_on(run, out, measures, show, on_note or (lambda _: None), watchdog)
                bundle, heads = run.measured_bundle(), run.measured_heads()
                bundle.model.eval()
                finished = run.step == recipe.train.steps
                if finished:
                    watchdog.at("save", run.step)
                    with ranks.laps.section("saving"):
                        ranks.share(lambda: _save_bundle(out / "bundle", bundle, heads))
            except RuntimeError as error:
                if ranks.count > 1 and _is_of_exchange(error):
                    watchdog.wait_for_verdict()
                raise
        return TrainResult(bundle, run.step, finished, run.metrics, run.counts.plain(), run.notes)


class _Evaluators(NamedTuple):
    of_bundle: Mapping[str, Evaluator]
    of_heads: Mapping[str, HeadEvaluator]

    def __call__(self, bundle: Bundle, heads: Heads) -> dict[str, float]:
        measured = {name: measure(bundle) for name, measure in self.of_bundle.items()}
        numbers = {f"{name}/{number}": value for name, found in measured.items() for number, value in found.items()}
        for kind in [objective.kind for objective in heads.objectives] if self.of_heads else ():
            scorer = NameScorer(bundle, heads, kind)
            if not scorer.names_by_bundle:
                for name, measure in self.of_heads.items():
                    numbers |= {f"{name}/{kind} {number}": value for number, value in measure(scorer).items()}
        return numbers


def _save_bundle(folder: Path, bundle: Bundle, heads: Heads) -> None:
    with atomic_folder(folder) as aside:
        bundle.save(aside)
        heads.save(aside)


def _is_of_exchange(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which name it.
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "connection" in str(error).lower()


def _go_on(
    run: Run,
    out: Path,
    evaluators: _Evaluators,
    on_progress: Callable[[StepReport], None],
    on_note: Callable[[str], None],
    watchdog: Watchdog,
) -> None:
    """From the step where the run is to its last one, or to a stop request."""
    settings, ranks, laps = run.recipe.train, run.ranks, run.ranks.laps
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(contextlib.closing(_stream(run)))
        saver = Saver(run, out / "checkpoints")
        stack.callback(saver.abandon)
        logs = [stack.enter_context(contextlib.closing(log)) for log in _open_logs(run, out, on_note)]
        stop_requested = stack.enter_context(stop_request())
        best = None
        if settings.keep_best:
            best = ranks.share(lambda: BestBundle(out / "best", settings.keep_best, is_new=run.step == 0))
        if run.step == 0:  # an evaluator that cannot run says so now, not after an hour
            _evaluate(run, evaluators, best)
            if run.metrics:
                for log in logs:
                    log.write(**_logged_start(run))
                laps.mark()
        else:
            _check_metrics(run)
            _stop_if_forgotten(run)
        is_first_step = True
        lap_start = time.perf_counter()
        watchdog.at("data", run.step + 1)
        for batch in laps.waits("data", stream):
            laps.beside(batch.seconds)
            is_first_step |= run.enter_phase()
            watchdog.at("first step" if is_first_step else "step", run.step + 1, batch.keys)
            is_first_step = False
            sizes = run.count(batch)
            outcome = train_step(run, batch, sizes)
            lap = time.perf_counter() - lap_start
            run.counts.train_seconds += lap
            is_last = run.step == settings.steps
            evaluates = is_last or _is_due(run.step, settings.evaluate_every)
            if evaluates:
                watchdog.at("evaluate", run.step)
                _evaluate(run, evaluators, best)
            report = _report(run, outcome, pairs_per_second=sum(sizes) / lap)
            if evaluates or _is_due(run.step, settings.log_every):
                for log in logs:
                    log.write(**report.logged(with_metrics=evaluates))
                laps.mark()
            if ranks.is_first:
                on_progress(report)
            asked, written = zip(*ranks.collect((stop_requested(), saver.has_written)), strict=True)
            stops = is_last or bool(_forgotten(run)) or any(asked)
            if all(written):
                saver.finish()
            if stops or _is_due(run.step, settings.checkpoint_every):
                watchdog.at("save", run.step)
                saver.save()
            if stops:
                saver.finish()
                _stop_if_forgotten(run)
                break
            watchdog.at("data", run.step + 1)
            lap_start = time.perf_counter()


def _open_logs(run: Run, out: Path, on_fault: Callable[[str], None]) -> Iterator[RunLog | Trackers]:
    """What the first process writes each line to; the others write nothing."""
    if run.ranks.is_first:
        yield RunLog(out / "log.jsonl", resume_step=run.step)
        names = run.recipe.train.trackers
        yield Trackers(names, out, resume_step=run.step, recipe=to_dict(run.recipe), on_fault=on_fault)


def _stream(run: Run) -> Generator[Batch]:
    """The batches from where the run is to its last step, this process's part of each; a phase's at its sizes."""
    recipe, first = run.recipe, run.step
    for stage in stages(recipe):
        if stage.stop <= first:
            continue
        tokenizer = run.bundle.tokenizer
        if stage.context_length < tokenizer.context_length:
            tokenizer = tokenizer.with_context_length(stage.context_length)
        stream = batches(
            run.sources,
            recipe.data,
            preprocess=dataclasses.replace(recipe.preprocess, image_size=stage.image_size),
            tokenizer=tokenizer,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            start=max(first, stage.start),
            stop=stage.stop,
            threads=recipe.train.threads,
            part=run.ranks.rank,
            parts=run.ranks.count,
            cut_tokens=not recipe.model.text.reads_padding,
        )
        with contextlib.closing(stream):
            yield from stream


def _report(run: Run, outcome: StepOutcome, *, pairs_per_second: float) -> StepReport:
    return StepReport(
        step=run.step,
        steps=run.recipe.train.steps,
        **outcome._asdict(),
        pairs=run.counts.pairs,
        seconds=run.counts.train_seconds,
        pairs_per_second=pairs_per_second,
        metrics=run.metrics,
        bad=dict(run.counts.bad),
        time=run.ranks.laps.since_mark(),
    )


def _evaluate(run: Run, evaluators: _Evaluators, best: BestBundle | None) -> None:
    """Measure where the run is; the first evaluation of a run from a trained model is what later ones are held to."""

    def numbers() -> dict[str, float]:
        bundle.model.eval()
        numbers = evaluators(bundle, heads)
        run.train_mode()
        return numbers

    with run.ranks.laps.section("evaluation"):
        bundle, heads = run.measured_bundle(), run.measured_heads()
        measured = run.ranks.share(numbers)
    run.metrics = with_changes(measured, run.reference)
    if run.step == 0 and run.recipe.start_from:
        run.reference = measured
    _check_metrics(run)
    with run.ranks.laps.section("saving"):
        run.ranks.share(lambda: best.offer(bundle, heads, measured, run.step) if best else None)


def _logged_start(run: Run) -> dict[str, Any]:
    """The line of `log.jsonl` for what was measured before the first step."""
    return {"step": 0, "pairs": 0, "seconds": 0.0, **run.metrics} | _rounded(run.ranks.laps.since_mark())


def _rounded(time: Mapping[str, float]) -> dict[str, Any]:
    return {"time": {name: round(seconds, 4) for name, seconds in time.items()}}


def _check_metrics(run: Run) -> None:
    settings = run.recipe.train
    measured = {name: value for name, value in run.metrics.items() if not name.endswith(CHANGE)}
    if settings.keep_best:
        check_metric("train.keep_best", settings.keep_best, measured)
    for name in settings.old_tasks:
        check_metric("train.old_tasks", name, measured)


def _forgotten(run: Run) -> str:
    settings = run.recipe.train
    return forgotten(run.metrics, run.reference, old_tasks=settings.old_tasks, limit=settings.max_forgetting)


def _stop_if_forgotten(run: Run) -> None:
    if sentence := _forgotten(run):
        raise TrainingError(f"{sentence} The run is saved at step {run.step}.")


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
