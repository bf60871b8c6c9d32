"""The loop: batch, loss, step, log, evaluate, save."""

import collections
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.config import from_dict, to_dict, to_toml
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, TrainingError
from diptych.files import folder_lock, remove_leftovers, write_text
from diptych.model.clip import CLIP, CLIPOutput
from diptych.pairs.pipeline import Batch, batches, pair_sources, vocabulary_texts
from diptych.pairs.sources import Pairs
from diptych.runtime import fast_dtype, generator, stop_request
from diptych.train.best import BestBundle, check_metric
from diptych.train.checkpoint import Checkpoint, list_checkpoints, optimizer_tensors, restore_optimizer
from diptych.train.distill import affinity_distillation
from diptych.train.distributed import Ranks, Spread, clip_gradients, launched_ranks, whole
from diptych.train.ema import Average
from diptych.train.exchange import contrastive_loss
from diptych.train.forgetting import CHANGE, forgotten, with_changes
from diptych.train.frozen import FrozenFeatures
from diptych.train.laps import Laps
from diptych.train.log import RunLog
from diptych.train.optim import adamw, clamp_logit_scale, parameter_groups
from diptych.train.phases import fitted, stage_at, stages
from diptych.train.recipe import TrainRecipe, difference
from diptych.train.schedule import learning_rate
from diptych.train.step import Inputs, cached_gradients, draw_kept_patches, whole_gradients
from diptych.train.tensorboard import EventLog, import_tensorboard
from diptych.train.watchdog import Watchdog
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.registry import load

Evaluator = Callable[[Bundle], Mapping[str, float]]

# Samples; the share of bad ones is taken of at least so many, or one of the first ten would stop a run.
_JUDGED_AS = 1000


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


def train(
    recipe: TrainRecipe,
    out: Path,
    *,
    evaluators: Mapping[str, Evaluator] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_alarm: Callable[[str], None] | None = None,
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
            `bundle/`; one run at a time. With `train.tensorboard` event files too.
        evaluators: each is given the model as a bundle and returns named finite numbers, logged as `NAME/number`;
            called once before the first step, then as the recipe says, and at the end. In a run from a trained model
            `NAME/number_change` tells how far each went since the start.
        on_progress: called after each step.
        on_alarm: called when another process died or stands still, in the one that found it, with a sentence; this
            process then ends with exit code 1, as no Python code can end a wait for others.

    Raises:
        ConfigError: `out` holds a run of another recipe or of other data, or another process works in it; or
            `start_from` holds a model of other sizes; or the recipe names a metric that no evaluator gives.
        DataError: a source cannot be read, `out` cannot be written, or too many samples are bad.
        MissingExtraError: grain is not installed, or `train.tensorboard` asks for what is not.
        TrainingError: the loss or its gradient is not finite, or the run forgot more than the recipe bears; it is then
            saved.
        WeightsError: the newest checkpoint is damaged, or `start_from` cannot be read.
    """
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(launched_ranks())
        _check_ranks(recipe, ranks)
        if recipe.train.tensorboard:
            import_tensorboard()  # what is missing is missed now

        def claim() -> Path | None:
            stack.enter_context(folder_lock(out))
            remove_leftovers(out)
            remove_leftovers(out / "checkpoints")
            return next(reversed(list_checkpoints(out / "checkpoints")), None)

        newest = ranks.share(claim)
        sources = pair_sources(recipe.data)
        run = _Run(recipe, sources, _saved(newest, out, recipe, sources), ranks)
        stack.callback(lambda: run.spread.close())  # of the last phase
        ranks.share(lambda: write_text(out / "recipe.toml", to_toml(recipe)))
        watchdog = Watchdog(
            ranks, out / "stall", seconds=recipe.train.stall_seconds, on_alarm=on_alarm or (lambda _: None)
        )
        with watchdog:
            try:
                _go_on(run, out, evaluators or {}, on_progress, watchdog)
                bundle = run.measured_bundle()
                bundle.model.eval()
                finished = run.step == recipe.train.steps
                if finished:
                    watchdog.at("save", run.step)
                    with ranks.laps.section("saving"):
                        ranks.share(lambda: bundle.save(out / "bundle"))
            except RuntimeError as error:
                if ranks.count > 1 and _is_of_exchange(error):
                    watchdog.wait_for_verdict()
                raise
        return TrainResult(bundle, run.step, finished, run.metrics, run.counts.plain())


def _check_ranks(recipe: TrainRecipe, ranks: Ranks) -> None:
    if recipe.train.batch_size % ranks.count:
        raise ConfigError(
            "train.batch_size must be a multiple of the number of processes, which share it. "
            f"Got {recipe.train.batch_size} pairs for {ranks.count} processes."
        )
    if ranks.count > 1 and recipe.train.distillation:
        raise ConfigError(
            "train.distillation must be 0 where several processes train: the teacher's softmax is over a whole batch. "
            f"Got {recipe.train.distillation} and {ranks.count} processes."
        )
    if ranks.count > 1 and recipe.model.image.needs_whole_batch:
        raise ConfigError(
            f"model.image must be a vision transformer where several processes train: a {recipe.model.image.kind} "
            f"tower needs the whole batch in one, as batch norm does. Got {ranks.count} processes."
        )


def _is_of_exchange(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which name it.
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "connection" in str(error).lower()


def _saved(newest: Path | None, out: Path, recipe: TrainRecipe, sources: Sequence[Pairs]) -> Checkpoint | None:
    if newest is None:
        return None
    checkpoint = Checkpoint.load(newest)
    cure = "Choose another folder, or remove this one to start over."
    try:
        began_as = to_dict(from_dict(TrainRecipe, checkpoint.recipe))  # options that came since have their defaults
    except ConfigError as error:
        raise ConfigError(f"{out} holds a run that another version of diptych began. {error} {cure}") from None
    if change := difference(began_as, to_dict(recipe)):
        raise ConfigError(f"{out} holds a run of another recipe ({change}). {cure}")
    for source, fingerprint in zip(sources, checkpoint.data, strict=True):
        if source.fingerprint() != fingerprint:
            raise ConfigError(f"{out} holds a run of other data: the pairs of {source.path} were changed. {cure}")
    return checkpoint


class _Run:
    """What changes from step to step, from scratch or from a checkpoint."""

    def __init__(self, recipe: TrainRecipe, sources: Sequence[Pairs], saved: Checkpoint | None, ranks: Ranks) -> None:
        self.recipe = recipe
        self.sources = sources
        self.ranks = ranks
        self.data = [source.fingerprint() for source in sources]  # as it was at the start
        self.step = saved.step if saved else 0  # updates done
        self.metrics: Mapping[str, float] = saved.metrics if saved else {}
        self.reference: Mapping[str, float] = saved.reference if saved else {}
        self.counts = _Counts(saved.counts if saved else {}, ranks.laps)
        self.device = ranks.device
        # From the checkpoint: a second measurement may come to another type, and to other weights.
        self.precision = saved.precision if saved else ranks.share(lambda: _precision(recipe, self.device))
        self.loss_scale = _LossScale(saved.loss_scale if saved else {}, wanted=self.precision == "float16")
        self._hold(saved)

    def _hold(self, saved: Checkpoint | None) -> None:
        """Build what has the sizes of the phase that the next step belongs to."""
        recipe, settings = self.recipe, self.recipe.train
        stage = stage_at(recipe, self.step)
        saved = fitted(saved, stage.image_size) if saved else None
        self.bundle = saved.bundle if saved else _first_bundle(recipe, self.sources, self.ranks, stage.image_size)
        if saved or recipe.start_from:
            # Mapped weights lie where the file has them; the last bits of a product depend on where its factors begin.
            weights = {name: value.clone() for name, value in self.bundle.model.state_dict().items()}
            self.bundle.model.load_state_dict(weights, assign=True)
        self.model: CLIP = self.bundle.model.to(device=self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for tower in self._frozen():
            tower.requires_grad_(False)
        self.train_mode()
        self.model.recompute_blocks(settings.activation_checkpointing)
        if settings.compile:
            for block in self.model.blocks():
                block.compile()
        self.spread = Spread(self.model, self.ranks, settings.parallel)
        self.optimizer = adamw(
            parameter_groups(self.model, weight_decay=settings.weight_decay, layer_decay=settings.layer_decay),
            betas=(settings.beta1, settings.beta2),
            epsilon=settings.epsilon,
            state=settings.optimizer_state,
        )
        if saved:
            restore_optimizer(self.model, self.optimizer, saved.optimizer)
        # Of pictures that come again; what differs at each visit would fill the memory for nothing.
        self.frozen_features = None
        if "image" in settings.freeze and recipe.data.augment.is_fixed and not settings.patch_dropout:
            size = settings.micro_batch_size or settings.batch_size // self.ranks.count
            self.frozen_features = FrozenFeatures(self._encode_image, batch_size=size)
        decay = settings.ema_decay
        self.average = Average(self.model, decay, saved.average if saved else None) if decay else None

    def enter_phase(self) -> bool:
        """Take on the image size of the next step; whether it is another one. To be called by all processes.

        It goes by way of a checkpoint in memory, so that a run that was stopped between two phases goes on as this one.
        """
        if stage_at(self.recipe, self.step).image_size == self.bundle.preprocess.image_size:
            return False
        saved = self.checkpoint()
        self.spread.close()
        self._hold(saved)
        return True

    def train_mode(self) -> None:
        """What differs in training is on, but in frozen towers and for frozen batch statistics."""
        self.model.train()
        for tower in self._frozen():
            tower.eval()
        if self.recipe.train.freeze_batch_statistics:
            self.model.freeze_batch_statistics()

    def _frozen(self) -> list[torch.nn.Module]:
        return [getattr(self.model, name) for name in self.recipe.train.freeze]

    def update(self, batch: Batch, sizes: Sequence[int]) -> "_Update":
        """One optimizer step on one batch.

        Args:
            batch: this process's part of it.
            sizes: pairs of all processes.

        Raises:
            TrainingError: the loss or its gradient is not finite; no parameter has changed.
        """
        settings = self.recipe.train
        value = norm = math.nan
        for factor in self.loss_scale.tries():
            with self.ranks.laps.section("step"):
                value, norm = self._loss_and_norm(batch, sizes, factor)
            if math.isfinite(norm):
                break
        self._must_be_finite("gradient", norm)
        rate = learning_rate(
            self.step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
        )
        with self.ranks.laps.section("optimizer"):
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["rate_factor"]
            self.optimizer.step()
            clamp_logit_scale(self.model)
            self.step += 1
            if self.average:
                self.average.update(self.model, self.step)
            logit_scale = self.bundle.logit_scale
        return _Update(value, norm, rate, logit_scale)

    def _loss_and_norm(self, batch: Batch, sizes: Sequence[int], factor: float) -> tuple[float, float]:
        """Gradients of one batch, clipped; its loss, and their length before."""
        self.optimizer.zero_grad()
        # Every process has a part of the gradients, and `Spread` takes the average where the sum is wanted.
        value = self._gradients(batch, sizes, scale_by=factor * self.ranks.count)
        parameters = list(self.model.parameters())
        if factor != 1:
            for gradient in [p.grad for p in parameters if p.grad is not None]:
                gradient.mul_(1 / factor)
        return value, clip_gradients(parameters, self.recipe.train.max_gradient_norm or math.inf).item()

    def _gradients(self, batch: Batch, sizes: Sequence[int], *, scale_by: float) -> float:
        settings = self.recipe.train
        text_ids = batch.text_ids.to(self.device) if settings.same_text_is_positive else None

        def loss_of(output: CLIPOutput) -> Tensor:
            loss = contrastive_loss(output, text_ids, ranks=self.ranks, sizes=sizes, exchange=settings.loss_exchange)
            images, texts = batch.teacher_image_features, batch.teacher_text_features
            if images is None or texts is None:
                return loss
            return loss + settings.distillation * affinity_distillation(
                output.image_features,
                output.text_features,
                images.to(self.device),
                texts.to(self.device),
                logit_scale=output.logit_scale,
                teacher_logit_scale=settings.teacher_logit_scale,
            )

        def check(loss: float) -> None:
            self._must_be_finite("loss", loss)

        with self.ranks.laps.section("inputs"):
            inputs = self._inputs(batch)
        if not settings.micro_batch_size:
            return whole_gradients(self.spread, self._forward, inputs, loss_of, scale_by=scale_by, check=check)
        count = math.ceil(max(sizes) / settings.micro_batch_size)  # the same in all processes
        bounds = [round(len(batch.images) * number / count) for number in range(count + 1)]
        return cached_gradients(
            self.spread,
            self._forward,
            inputs,
            loss_of,
            scale_by=scale_by,
            check=check,
            micro_batches=[slice(*pair) for pair in itertools.pairwise(bounds)],
        )

    def _inputs(self, batch: Batch) -> Inputs:
        patches, dropout, kept = self.bundle.model.config.image.patches, self.recipe.train.patch_dropout, None
        if dropout:
            kept = draw_kept_patches(batch.noise, patches=patches, dropout=dropout).to(self.device)
        return Inputs(batch.images.to(self.device), batch.tokens.to(self.device), kept)

    def _forward(self, inputs: Inputs) -> CLIPOutput:
        count = len(inputs.images)
        if not count:  # all of this process's samples are bad; it still takes part, with a blank that counts nothing
            side = self.bundle.preprocess.image_size
            blank = inputs.images.new_zeros(1, side, side, 3)
            kept = inputs.kept_patches if inputs.kept_patches is None else inputs.kept_patches.new_zeros(1, 1)
            inputs = Inputs(blank, inputs.tokens.new_zeros(1, inputs.tokens.shape[1] or 1), kept)
        known = self.frozen_features(inputs.images) if self.frozen_features else None
        pixels = self._pixels(inputs.images) if known is None else inputs.images  # which nobody looks at
        with self._autocast():
            output = self.spread(pixels, inputs.tokens, inputs.kept_patches, known)
        if not count:
            output = output._replace(image_features=output.image_features[:0], text_features=output.text_features[:0])
        return output

    def _pixels(self, images: Tensor) -> Tensor:
        return self.bundle.preprocess.normalise(images).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _encode_image(self, images: Tensor) -> Tensor:
        with self._autocast():
            return self.model.encode_image(self._pixels(images))

    def _must_be_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} must be finite, and is {value} at step {self.step + 1}. Start over in another folder with "
                "a lower train.learning_rate or with train.max_gradient_norm=1.0."
            )

    def whole_bundle(self) -> Bundle:
        """The bundle, where processes hold shares put together; to be called by all."""
        if self.ranks.count == 1 or self.recipe.train.parallel == "ddp":
            return self.bundle
        model = CLIP(self.bundle.model.config)
        model.load_state_dict({name: whole(value) for name, value in self.model.state_dict().items()}, assign=True)
        return dataclasses.replace(self.bundle, model=model.train())

    def measured_bundle(self) -> Bundle:
        """What evaluators are given and the run ends with: the average of the weights where one is kept."""
        return self.average.bundle(self.bundle) if self.average else self.whole_bundle()

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            bundle=self.whole_bundle(),
            optimizer=optimizer_tensors(self.model, self.optimizer),
            counts=self.counts.plain(),
            metrics=self.metrics,
            recipe=to_dict(self.recipe),
            precision=self.precision,
            data=self.data,
            loss_scale=self.loss_scale.plain(),
            reference=self.reference,
            average=self.average.tensors() if self.average else {},
        )


class _LossScale:
    """The factor on the loss that keeps float16 gradients from vanishing; 1 for the other types.

    It is halved where the gradients overflow, and the batch is taken again; after 2,000 steps without, it is doubled
    (arXiv:1710.03740, section 3.2; numbers as torch's GradScaler has them, which leaves the batch out).
    """

    def __init__(self, saved: Mapping[str, float], *, wanted: bool) -> None:
        self._factor = saved.get("factor", 2.0**16 if wanted else 1.0)
        self._steps = int(saved.get("steps", 0))  # since the factor changed
        self._wanted = wanted

    def tries(self) -> Iterator[float]:
        """Factors for one batch, until one fits."""
        self._steps += 1
        if self._wanted and self._steps > 2000:
            self._factor, self._steps = 2 * self._factor, 1
        yield self._factor
        while self._factor > 1:
            self._factor, self._steps = self._factor / 2, 1
            yield self._factor

    def plain(self) -> dict[str, float]:
        return {"factor": self._factor, "steps": self._steps} if self._wanted else {}


class _Update(NamedTuple):
    loss: float
    gradient_norm: float
    learning_rate: float
    logit_scale: float  # after it


def _go_on(
    run: _Run,
    out: Path,
    evaluators: Mapping[str, Evaluator],
    on_progress: Callable[[Progress], None] | None,
    watchdog: Watchdog,
) -> None:
    """From the step where the run is to its last one, or to a stop request."""
    settings, ranks, laps = run.recipe.train, run.ranks, run.ranks.laps
    stream = _stream(run)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(stream))
        logs: list[RunLog | EventLog] = []
        if ranks.is_first:
            logs.append(stack.enter_context(contextlib.closing(RunLog(out / "log.jsonl", resume_step=run.step))))
        if ranks.is_first and settings.tensorboard:
            logs.append(stack.enter_context(contextlib.closing(EventLog(out, resume_step=run.step))))
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
            parts = ranks.collect((len(batch.images), batch.truncated, dict(batch.bad)))
            run.counts.add(parts, max_bad=run.recipe.data.max_bad)
            sizes = [size for size, _, _ in parts]
            update = run.update(batch, sizes)
            lap = time.perf_counter() - lap_start
            run.counts.train_seconds += lap
            is_last = run.step == settings.steps
            evaluates = is_last or _is_due(run.step, settings.evaluate_every)
            if evaluates:
                watchdog.at("evaluate", run.step)
                _evaluate(run, evaluators, best)
            progress = Progress(
                step=run.step,
                steps=settings.steps,
                **update._asdict(),
                pairs=run.counts.pairs,
                seconds=run.counts.train_seconds,
                pairs_per_second=sum(sizes) / lap,
                metrics=run.metrics,
                bad=dict(run.counts.bad),
                time=laps.since_mark(),
            )
            if evaluates or _is_due(run.step, settings.log_every):
                for log in logs:
                    log.write(**progress.logged(with_metrics=evaluates))
                laps.mark()
            if on_progress and ranks.is_first:
                on_progress(progress)
            stops = is_last or bool(_forgotten(run)) or any(ranks.collect(stop_requested()))
            if stops or _is_due(run.step, settings.checkpoint_every):
                watchdog.at("save", run.step)
                with laps.section("saving"):
                    checkpoint = run.checkpoint()
                    ranks.share(lambda: checkpoint.save(out / "checkpoints", keep=settings.keep_checkpoints))  # noqa: B023
            if stops:
                _stop_if_forgotten(run)
                break
            watchdog.at("data", run.step + 1)
            lap_start = time.perf_counter()


def _stream(run: _Run) -> Generator[Batch]:
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


def _first_bundle(recipe: TrainRecipe, sources: Sequence[Pairs], ranks: Ranks, image_size: int) -> Bundle:
    about = About(
        source=f"diptych recipe {recipe.name}", licence=recipe.licence, data=recipe.about_data, recipe=to_toml(recipe)
    )
    if recipe.start_from:
        return dataclasses.replace(_loaded(recipe, image_size), about=about)
    tokenizer = ranks.share(lambda: _new_tokenizer(recipe, sources))
    preprocess = dataclasses.replace(recipe.preprocess, image_size=image_size)
    image = dataclasses.replace(recipe.model.image, image_size=image_size)
    model = CLIP(dataclasses.replace(recipe.model, image=image), generator(recipe.seed))
    return Bundle(model=model, preprocess=preprocess, tokenizer=tokenizer, about=about)


def _loaded(recipe: TrainRecipe, image_size: int) -> Bundle:
    bundle = load(recipe.start_from, image_size=image_size)
    theirs = {"model": to_dict(bundle.model.config), "preprocess": to_dict(bundle.preprocess)}
    ours = {"model": to_dict(recipe.model), "preprocess": to_dict(recipe.preprocess)}
    for sizes in (theirs, ours):
        sizes["model"]["text"].pop("end_token_id", None)  # a fact of the vocabulary, which comes with the bundle
        sizes["model"]["image"]["image_size"] = sizes["preprocess"]["image_size"] = image_size  # of the first phase
    if change := difference(theirs, ours):
        raise ConfigError(
            f"model and preprocess must be those of start_from={recipe.start_from}, but for the image size: {change}."
        )
    bundle.model.float()
    return bundle


def _new_tokenizer(recipe: TrainRecipe, sources: Sequence[Pairs]) -> Tokenizer:
    return Tokenizer.train(
        vocabulary_texts(sources, recipe.data),
        vocab_size=recipe.tokenizer.vocab_size,
        context_length=recipe.model.text.context_length,
    )


def _precision(recipe: TrainRecipe, device: torch.device) -> str:
    auto = recipe.train.precision == "auto"
    return str(fast_dtype(device)).removeprefix("torch.") if auto else recipe.train.precision


def _evaluate(run: _Run, evaluators: Mapping[str, Evaluator], best: BestBundle | None) -> None:
    """Measure where the run is; the first evaluation of a run from a trained model is what later ones are held to."""

    def numbers() -> dict[str, float]:
        bundle.model.eval()
        numbers = {
            f"{name}/{number}": value
            for name, evaluator in evaluators.items()
            for number, value in evaluator(bundle).items()
        }
        run.train_mode()
        return numbers

    with run.ranks.laps.section("evaluation"):
        bundle = run.measured_bundle()
        measured = run.ranks.share(numbers)
    run.metrics = with_changes(measured, run.reference)
    if run.step == 0 and run.recipe.start_from:
        run.reference = measured
    _check_metrics(run)
    with run.ranks.laps.section("saving"):
        run.ranks.share(lambda: best.offer(bundle, measured, run.step) if best else None)


def _logged_start(run: _Run) -> dict[str, Any]:
    """The line of `log.jsonl` for what was measured before the first step."""
    return {"step": 0, "pairs": 0, "seconds": 0.0, **run.metrics} | _rounded(run.ranks.laps.since_mark())


def _rounded(time: Mapping[str, float]) -> dict[str, Any]:
    return {"time": {name: round(seconds, 4) for name, seconds in time.items()}}


def _check_metrics(run: _Run) -> None:
    settings = run.recipe.train
    measured = {name: value for name, value in run.metrics.items() if not name.endswith(CHANGE)}
    if settings.keep_best:
        check_metric("train.keep_best", settings.keep_best, measured)
    for name in settings.old_tasks:
        check_metric("train.old_tasks", name, measured)


def _forgotten(run: _Run) -> str:
    settings = run.recipe.train
    return forgotten(run.metrics, run.reference, old_tasks=settings.old_tasks, limit=settings.max_forgetting)


def _stop_if_forgotten(run: _Run) -> None:
    if sentence := _forgotten(run):
        raise TrainingError(f"{sentence} The run is saved at step {run.step}.")


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Counts:
    """What a run counted, across its restarts."""

    def __init__(self, saved: Mapping[str, Any], laps: Laps) -> None:
        self._laps = laps
        laps.go_on_from(saved.get("time", {}))
        self.pairs: int = saved.get("pairs", 0)  # pairs learned from
        self.truncated: int = saved.get("truncated", 0)
        self.train_seconds: float = saved.get("train_seconds", 0.0)
        self.bad = collections.Counter(saved.get("bad", {}))

    def add(self, parts: Sequence[tuple[int, int, Mapping[str, int]]], *, max_bad: float) -> None:
        """Count one batch.

        Args:
            parts: of each process pairs, truncated texts, and bad samples by cause.
            max_bad: share of bad samples that is borne.

        Raises:
            DataError: too many samples are bad, in all or in this batch.
        """
        pairs = sum(size for size, _, _ in parts)
        self.pairs += pairs
        for _, truncated, bad in parts:
            self.truncated += truncated
            self.bad.update(bad)
        bad, drawn = self.bad.total(), self.pairs + self.bad.total()
        causes = ", ".join(f"{cause} {count:,}" for cause, count in self.bad.most_common())
        if bad > max_bad * max(drawn, _JUDGED_AS):
            raise DataError(
                f"at most {max_bad:.2%} of the samples may be bad (data.max_bad). {bad:,} of {drawn:,} are: {causes}. "
                "Mend the shards, or raise the limit."
            )
        if pairs < 2:
            raise DataError(
                f"a batch must have at least two good samples, and one has {pairs}. Bad so far: {causes}. "
                "Mend the shards, or raise train.batch_size."
            )

    def plain(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "truncated": self.truncated,
            "train_seconds": round(self.train_seconds, 2),
            "bad": dict(self.bad),
            "time": {name: round(seconds, 2) for name, seconds in self._laps.seconds().items()},
        }
