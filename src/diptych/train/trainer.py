"""The loop: batch, loss, step, log, evaluate, save."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diptych.config import to_dict, to_toml
from diptych.data.pipeline import Batch, batches, captions_of, pair_sources
from diptych.data.prompts import fill
from diptych.data.shards import ShardSet
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, TrainingError
from diptych.files import folder_lock, remove_leftovers, write_text
from diptych.model.clip import CLIP
from diptych.runtime import default_device, fast_dtype, generator, stop_request
from diptych.train.checkpoint import Checkpoint, list_checkpoints, optimizer_tensors, restore_optimizer
from diptych.train.log import RunLog
from diptych.train.loss import clip_loss
from diptych.train.optim import clamp_logit_scale, parameter_groups
from diptych.train.recipe import TrainRecipe, difference
from diptych.train.schedule import learning_rate
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About

Evaluator = Callable[[Bundle], Mapping[str, float]]

_JUDGED_AS = (
    1000  # samples; the share of bad ones is taken of at least so many, or one of the first ten would stop a run
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is; given to `on_progress` after every step."""

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

    def logged(self, *, with_metrics: bool) -> dict[str, float]:
        """One line of `log.jsonl`."""
        names = ("step", "pairs", "seconds", "loss", "gradient_norm", "learning_rate", "logit_scale")
        return {name: getattr(self, name) for name in names} | (dict(self.metrics) if with_metrics else {})


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    bundle: Bundle
    step: int
    finished: bool  # False: stopped by a signal, and saved
    metrics: Mapping[str, float]  # of the last evaluation
    counts: Mapping[str, Any]  # pairs, bad ones by cause, truncated texts, seconds of training


def train(
    recipe: TrainRecipe,
    out: Path,
    *,
    evaluators: Mapping[str, Evaluator] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train one model; go on from the newest checkpoint when `out` holds one of the same recipe.

    A run that was killed at any moment and started again ends with the same weights, bit for bit, as one that was not
    (same machine, same number of torch threads). SIGINT and SIGTERM end it after the step in hand, saved. On the way
    `data.max_bad`, `train.threads` and how often it is saved may change.

    Args:
        recipe: everything that decides the run.
        out: gets `recipe.toml`, `log.jsonl`, `checkpoints/` and at the end `bundle/`; one run at a time.
        evaluators: each is given the model as a bundle and returns named finite numbers, logged as `NAME/number`;
            called once before the first step, then as the recipe says, and at the end.
        on_progress: called after each step.

    Raises:
        ConfigError: `out` holds a run of another recipe or of other data, or another process works in it.
        DataError: a source cannot be read, `out` cannot be written, or too many samples are bad.
        TrainingError: the loss or its gradient is not finite.
        WeightsError: the newest checkpoint is damaged.
    """
    with folder_lock(out):
        remove_leftovers(out)
        remove_leftovers(out / "checkpoints")
        sources = pair_sources(recipe.data)
        run = _Run(recipe, sources, _newest_checkpoint(out, recipe, sources))
        write_text(out / "recipe.toml", to_toml(recipe))
        _go_on(run, out, evaluators or {}, on_progress)
        run.model.eval()
        finished = run.step == recipe.train.steps
        if finished:
            run.bundle.save(out / "bundle")
        return TrainResult(run.bundle, run.step, finished, run.metrics, run.counts.plain())


def _newest_checkpoint(out: Path, recipe: TrainRecipe, sources: Sequence[ShardSet]) -> Checkpoint | None:
    saved = list_checkpoints(out / "checkpoints")
    if not saved:
        return None
    checkpoint = Checkpoint.load(saved[-1])
    cure = "Choose another folder, or remove this one to start over."
    if change := difference(checkpoint.recipe, to_dict(recipe)):
        raise ConfigError(f"{out} holds a run of another recipe ({change}). {cure}")
    for source, fingerprint in zip(sources, checkpoint.data, strict=True):
        if source.fingerprint() != fingerprint:
            raise ConfigError(f"{out} holds a run of other data: the shards of {source.path} were changed. {cure}")
    return checkpoint


class _Run:
    """What changes from step to step, from scratch or from a checkpoint."""

    def __init__(self, recipe: TrainRecipe, sources: Sequence[ShardSet], saved: Checkpoint | None) -> None:
        self.recipe = recipe
        self.sources = sources
        self.data = [source.fingerprint() for source in sources]  # as it was at the start
        self.step = saved.step if saved else 0  # updates done
        self.bundle = saved.bundle if saved else _new_bundle(recipe, sources)
        self.metrics: Mapping[str, float] = saved.metrics if saved else {}
        self.counts = _Counts(saved.counts if saved else {})
        self.device = default_device()
        # From the checkpoint: a second measurement may come to another type, and to other weights.
        self.precision = saved.precision if saved else _precision(recipe, self.device)
        self.model: CLIP = self.bundle.model.to(device=self.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, weight_decay=recipe.train.weight_decay),
            betas=(recipe.train.beta1, recipe.train.beta2),
            eps=recipe.train.epsilon,
            fused=True,
        )
        if saved:
            restore_optimizer(self.model, self.optimizer, saved.optimizer)

    def update(self, batch: Batch) -> "_Update":
        """One optimizer step on one batch.

        Raises:
            TrainingError: the loss or its gradient is not finite; no parameter has changed.
        """
        settings = self.recipe.train
        loss = self._loss(batch)
        value = loss.item()
        self._must_be_finite("loss", value)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.max_gradient_norm or math.inf).item()
        self._must_be_finite("gradient", norm)
        rate = learning_rate(
            self.step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        clamp_logit_scale(self.model)
        self.step += 1
        return _Update(value, norm, rate)

    def _loss(self, batch: Batch) -> torch.Tensor:
        pixels = self.recipe.preprocess.normalise(batch.images.to(self.device))
        tokens = batch.tokens.to(self.device)
        # On a CPU the plain attention kernel is the faster one for texts of about 16 tokens, and about even with the
        # fused one at 8 and 32 (benchmarks/attention.py).
        short = self.device.type == "cpu" and tokens.shape[1] <= 32
        with (
            sdpa_kernel(SDPBackend.MATH) if short else contextlib.nullcontext(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            output = self.model(pixels.contiguous(memory_format=torch.channels_last), tokens)
        text_ids = batch.text_ids.to(self.device) if self.recipe.train.same_text_is_positive else None
        return clip_loss(output.image_features, output.text_features, output.logit_scale, text_ids=text_ids)

    def _must_be_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} must be finite, and is {value} at step {self.step + 1}. Start over in another folder with "
                "a lower train.learning_rate or with train.max_gradient_norm=1.0."
            )

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            bundle=self.bundle,
            optimizer=optimizer_tensors(self.model, self.optimizer),
            counts=self.counts.plain(),
            metrics=self.metrics,
            recipe=to_dict(self.recipe),
            precision=self.precision,
            data=self.data,
        )


class _Update(NamedTuple):
    loss: float
    gradient_norm: float
    learning_rate: float


def _go_on(
    run: _Run, out: Path, evaluators: Mapping[str, Evaluator], on_progress: Callable[[Progress], None] | None
) -> None:
    """From the step where the run is to its last one, or to a stop request."""
    settings = run.recipe.train
    stream = batches(
        run.sources,
        run.recipe.data,
        preprocess=run.recipe.preprocess,
        tokenizer=run.bundle.tokenizer,
        batch_size=settings.batch_size,
        seed=run.recipe.seed,
        start=run.step,
        stop=settings.steps,
        threads=settings.threads,
    )
    log = RunLog(out / "log.jsonl", resume_step=run.step)
    with contextlib.closing(stream), contextlib.closing(log), stop_request() as stop_requested:
        if run.step == 0:  # an evaluator that cannot run says so now, not after an hour
            run.metrics = _evaluate(run.bundle, evaluators)
        lap_start = time.perf_counter()
        for batch in stream:
            run.counts.add(batch, max_bad=run.recipe.data.max_bad)
            update = run.update(batch)
            lap = time.perf_counter() - lap_start
            run.counts.train_seconds += lap
            is_last = run.step == settings.steps
            evaluates = is_last or _is_due(run.step, settings.evaluate_every)
            if evaluates:
                run.metrics = _evaluate(run.bundle, evaluators)
            progress = Progress(
                step=run.step,
                steps=settings.steps,
                **update._asdict(),
                logit_scale=run.bundle.logit_scale,
                pairs=run.counts.pairs,
                seconds=run.counts.train_seconds,
                pairs_per_second=len(batch.images) / lap,
                metrics=run.metrics,
            )
            if evaluates or _is_due(run.step, settings.log_every):
                log.write(**progress.logged(with_metrics=evaluates))
            if on_progress:
                on_progress(progress)
            stops = is_last or stop_requested()
            if stops or _is_due(run.step, settings.checkpoint_every):
                run.checkpoint().save(out / "checkpoints", keep=settings.keep_checkpoints)
            if stops:
                break
            lap_start = time.perf_counter()


def _new_bundle(recipe: TrainRecipe, sources: Sequence[ShardSet]) -> Bundle:
    texts = (
        text
        for source in sources
        for index in range(len(source))
        for caption in _captions_or_none(source, index)
        for text in fill(recipe.data.templates, caption)
    )
    tokenizer = Tokenizer.train(
        texts, vocab_size=recipe.tokenizer.vocab_size, context_length=recipe.model.text.context_length
    )
    about = About(
        source=f"diptych recipe {recipe.name}", licence=recipe.licence, data=recipe.about_data, recipe=to_toml(recipe)
    )
    model = CLIP(recipe.model, generator(recipe.seed))
    return Bundle(model=model, preprocess=recipe.preprocess, tokenizer=tokenizer, about=about)


def _captions_or_none(source: ShardSet, index: int) -> list[str]:
    sample = source[index]
    try:
        return captions_of(sample)
    except DataError:  # counted when the sample is drawn
        return []


def _precision(recipe: TrainRecipe, device: torch.device) -> str:
    auto = recipe.train.precision == "auto"
    return str(fast_dtype(device)).removeprefix("torch.") if auto else recipe.train.precision


def _evaluate(bundle: Bundle, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    bundle.model.eval()
    numbers = {
        f"{name}/{number}": value
        for name, evaluator in evaluators.items()
        for number, value in evaluator(bundle).items()
    }
    bundle.model.train()
    return numbers


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Counts:
    """What a run counted, across its restarts."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.pairs: int = saved.get("pairs", 0)  # pairs learned from
        self.truncated: int = saved.get("truncated", 0)
        self.train_seconds: float = saved.get("train_seconds", 0.0)
        self.bad = collections.Counter(saved.get("bad", {}))

    def add(self, batch: Batch, *, max_bad: float) -> None:
        """Count one batch.

        Raises:
            DataError: too many samples are bad, in all or in this batch.
        """
        self.pairs += len(batch.images)
        self.truncated += batch.truncated
        self.bad.update(batch.bad)
        bad, drawn = self.bad.total(), self.pairs + self.bad.total()
        causes = ", ".join(f"{cause} {count:,}" for cause, count in self.bad.most_common())
        if bad > max_bad * max(drawn, _JUDGED_AS):
            raise DataError(
                f"at most {max_bad:.2%} of the samples may be bad (data.max_bad). {bad:,} of {drawn:,} are: {causes}. "
                "Mend the shards, or raise the limit."
            )
        if len(batch.images) < 2:
            raise DataError(
                f"a batch must have at least two good samples, and one has {len(batch.images)}. Bad so far: {causes}. "
                "Mend the shards, or raise train.batch_size."
            )

    def plain(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "truncated": self.truncated,
            "train_seconds": round(self.train_seconds, 2),
            "bad": dict(self.bad),
        }
