"""The loop: batch, loss, step, log, evaluate, save."""

import collections
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.config import to_dict, to_toml
from diptych.data.pairs import Pairs
from diptych.data.pipeline import Batch, batches, pair_sources, vocabulary_texts
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, TrainingError
from diptych.files import folder_lock, remove_leftovers, write_text
from diptych.model.blocks import Block, Stack
from diptych.model.clip import CLIP, CLIPOutput
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.runtime import fast_dtype, generator, stop_request
from diptych.train.checkpoint import Checkpoint, list_checkpoints, optimizer_tensors, restore_optimizer
from diptych.train.distill import affinity_distillation
from diptych.train.distributed import Ranks, Spread, clip_gradients, launched_ranks, whole
from diptych.train.exchange import contrastive_loss
from diptych.train.log import RunLog
from diptych.train.optim import adamw, clamp_logit_scale, parameter_groups
from diptych.train.recipe import TrainRecipe, difference
from diptych.train.schedule import learning_rate
from diptych.train.step import Inputs, cached_gradients, draw_kept_patches, whole_gradients
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
        out: gets `recipe.toml`, `log.jsonl`, `checkpoints/` and at the end `bundle/`; one run at a time.
        evaluators: each is given the model as a bundle and returns named finite numbers, logged as `NAME/number`;
            called once before the first step, then as the recipe says, and at the end.
        on_progress: called after each step.
        on_alarm: called when another process died or stands still, in the one that found it, with a sentence; this
            process then ends with exit code 1, as no Python code can end a wait for others.

    Raises:
        ConfigError: `out` holds a run of another recipe or of other data, or another process works in it; or
            `start_from` holds a model of other sizes.
        DataError: a source cannot be read, `out` cannot be written, or too many samples are bad.
        TrainingError: the loss or its gradient is not finite.
        WeightsError: the newest checkpoint is damaged, or `start_from` cannot be read.
    """
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(launched_ranks())
        _check_ranks(recipe, ranks)

        def claim() -> Path | None:
            stack.enter_context(folder_lock(out))
            remove_leftovers(out)
            remove_leftovers(out / "checkpoints")
            return next(reversed(list_checkpoints(out / "checkpoints")), None)

        newest = ranks.share(claim)
        sources = pair_sources(recipe.data)
        run = _Run(recipe, sources, _saved(newest, out, recipe, sources), ranks)
        stack.callback(run.spread.close)
        ranks.share(lambda: write_text(out / "recipe.toml", to_toml(recipe)))
        watchdog = Watchdog(
            ranks, out / "stall", seconds=recipe.train.stall_seconds, on_alarm=on_alarm or (lambda _: None)
        )
        with watchdog:
            try:
                _go_on(run, out, evaluators or {}, on_progress, watchdog)
                bundle = run.whole_bundle()
                bundle.model.eval()
                finished = run.step == recipe.train.steps
                if finished:
                    watchdog.at("save", run.step)
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
    if ranks.count > 1 and isinstance(recipe.model.image, ResNetTowerConfig):
        raise ConfigError(
            "model.image must be a vision transformer where several processes train: a ResNet's batch norm needs the "
            f"whole batch in one. Got a ResNet and {ranks.count} processes."
        )


def _is_of_exchange(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which name it.
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "connection" in str(error).lower()


def _saved(newest: Path | None, out: Path, recipe: TrainRecipe, sources: Sequence[Pairs]) -> Checkpoint | None:
    if newest is None:
        return None
    checkpoint = Checkpoint.load(newest)
    cure = "Choose another folder, or remove this one to start over."
    if change := difference(checkpoint.recipe, to_dict(recipe)):
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
        self.bundle = saved.bundle if saved else _first_bundle(recipe, sources, ranks)
        if saved or recipe.start_from:
            # Mapped weights lie where the file has them; the last bits of a product depend on where its factors begin.
            weights = {name: value.clone() for name, value in self.bundle.model.state_dict().items()}
            self.bundle.model.load_state_dict(weights, assign=True)
        self.metrics: Mapping[str, float] = saved.metrics if saved else {}
        self.counts = _Counts(saved.counts if saved else {})
        self.device = ranks.device
        # From the checkpoint: a second measurement may come to another type, and to other weights.
        self.precision = saved.precision if saved else ranks.share(lambda: _precision(recipe, self.device))
        self.model: CLIP = self.bundle.model.to(device=self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for tower in self._frozen():
            tower.requires_grad_(False)
        self.train_mode()
        for module in self.model.modules():
            if isinstance(module, Stack):
                module.recomputes = recipe.train.activation_checkpointing
            if isinstance(module, Block) and recipe.train.compile:
                module.compile()
        self.spread = Spread(self.model, ranks, recipe.train.parallel)
        self.loss_scale = _LossScale(saved.loss_scale if saved else {}, wanted=self.precision == "float16")
        self.optimizer = adamw(
            parameter_groups(self.model, weight_decay=recipe.train.weight_decay),
            betas=(recipe.train.beta1, recipe.train.beta2),
            epsilon=recipe.train.epsilon,
            state=recipe.train.optimizer_state,
        )
        if saved:
            restore_optimizer(self.model, self.optimizer, saved.optimizer)

    def train_mode(self) -> None:
        """What differs in training is on, but in frozen towers: their batch statistics stay as well."""
        self.model.train()
        for tower in self._frozen():
            tower.eval()

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
            self.optimizer.zero_grad()
            # Every process has a part of the gradients, and `Spread` takes the average where the sum is wanted.
            value = self._gradients(batch, sizes, scale_by=factor * self.ranks.count)
            parameters = list(self.model.parameters())
            if factor != 1:
                for gradient in [p.grad for p in parameters if p.grad is not None]:
                    gradient.mul_(1 / factor)
            norm = clip_gradients(parameters, settings.max_gradient_norm or math.inf).item()
            if math.isfinite(norm):
                break
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
        image, dropout, kept = self.recipe.model.image, self.recipe.train.patch_dropout, None
        if dropout and isinstance(image, ImageTowerConfig | SigLIPImageTowerConfig):
            kept = draw_kept_patches(batch.noise, patches=image.patches, dropout=dropout).to(self.device)
        return Inputs(batch.images.to(self.device), batch.tokens.to(self.device), kept)

    def _forward(self, inputs: Inputs) -> CLIPOutput:
        count = len(inputs.images)
        if not count:  # all of this process's samples are bad; it still takes part, with a blank that counts nothing
            side = self.recipe.preprocess.image_size
            blank = inputs.images.new_zeros(1, side, side, 3)
            kept = inputs.kept_patches if inputs.kept_patches is None else inputs.kept_patches.new_zeros(1, 1)
            inputs = Inputs(blank, inputs.tokens.new_zeros(1, inputs.tokens.shape[1] or 1), kept)
        pixels = self.recipe.preprocess.normalise(inputs.images).contiguous(memory_format=torch.channels_last)
        dtype = getattr(torch, self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            output = self.spread(pixels, inputs.tokens, inputs.kept_patches)
        if not count:
            output = output._replace(image_features=output.image_features[:0], text_features=output.text_features[:0])
        return output

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
        model = CLIP(self.recipe.model)
        model.load_state_dict({name: whole(value) for name, value in self.model.state_dict().items()}, assign=True)
        return dataclasses.replace(self.bundle, model=model.train())

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


def _go_on(
    run: _Run,
    out: Path,
    evaluators: Mapping[str, Evaluator],
    on_progress: Callable[[Progress], None] | None,
    watchdog: Watchdog,
) -> None:
    """From the step where the run is to its last one, or to a stop request."""
    settings, ranks = run.recipe.train, run.ranks
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
        part=ranks.rank,
        parts=ranks.count,
        cut_tokens=not isinstance(run.recipe.model.text, SigLIPTextTowerConfig),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(stream))
        log = None
        if ranks.is_first:
            log = stack.enter_context(contextlib.closing(RunLog(out / "log.jsonl", resume_step=run.step)))
        stop_requested = stack.enter_context(stop_request())
        if run.step == 0:  # an evaluator that cannot run says so now, not after an hour
            run.metrics = _evaluate(run, evaluators)
        is_first_step = True
        lap_start = time.perf_counter()
        watchdog.at("data", run.step + 1)
        for batch in stream:
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
                run.metrics = _evaluate(run, evaluators)
            progress = Progress(
                step=run.step,
                steps=settings.steps,
                **update._asdict(),
                logit_scale=run.bundle.logit_scale,
                pairs=run.counts.pairs,
                seconds=run.counts.train_seconds,
                pairs_per_second=sum(sizes) / lap,
                metrics=run.metrics,
            )
            if log and (evaluates or _is_due(run.step, settings.log_every)):
                log.write(**progress.logged(with_metrics=evaluates))
            if on_progress and ranks.is_first:
                on_progress(progress)
            stops = is_last or any(ranks.collect(stop_requested()))
            if stops or _is_due(run.step, settings.checkpoint_every):
                watchdog.at("save", run.step)
                checkpoint = run.checkpoint()
                ranks.share(lambda: checkpoint.save(out / "checkpoints", keep=settings.keep_checkpoints))  # noqa: B023
            if stops:
                break
            watchdog.at("data", run.step + 1)
            lap_start = time.perf_counter()


def _first_bundle(recipe: TrainRecipe, sources: Sequence[Pairs], ranks: Ranks) -> Bundle:
    about = About(
        source=f"diptych recipe {recipe.name}", licence=recipe.licence, data=recipe.about_data, recipe=to_toml(recipe)
    )
    if recipe.start_from:
        return dataclasses.replace(_loaded(recipe), about=about)
    tokenizer = ranks.share(lambda: _new_tokenizer(recipe, sources))
    model = CLIP(recipe.model, generator(recipe.seed))
    return Bundle(model=model, preprocess=recipe.preprocess, tokenizer=tokenizer, about=about)


def _loaded(recipe: TrainRecipe) -> Bundle:
    bundle = load(recipe.start_from, image_size=recipe.model.image.image_size)
    theirs = {"model": to_dict(bundle.model.config), "preprocess": to_dict(bundle.preprocess)}
    ours = {"model": to_dict(recipe.model), "preprocess": to_dict(recipe.preprocess)}
    for sizes in (theirs, ours):
        sizes["model"]["text"].pop("end_token_id", None)  # a fact of the vocabulary, which comes with the bundle
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


def _evaluate(run: _Run, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    bundle = run.whole_bundle()

    def numbers() -> dict[str, float]:
        bundle.model.eval()
        numbers = {
            f"{name}/{number}": value
            for name, evaluator in evaluators.items()
            for number, value in evaluator(bundle).items()
        }
        run.train_mode()
        return numbers

    return run.ranks.share(numbers)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Counts:
    """What a run counted, across its restarts."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
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
        }
