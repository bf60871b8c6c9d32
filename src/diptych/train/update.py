"""One batch: forward pass, loss, gradients, and the step of the optimizer; whole or in micro-batches."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.errors import ShapeError, TrainingError
from diptych.model.clip import CLIPOutput
from diptych.pairs.pipeline import Batch
from diptych.train.distributed import Ranks, Spread, clip_gradients
from diptych.train.objectives import Objective, OverBatch, Together, over_batch, per_sample
from diptych.train.optim import clamp_logit_scale
from diptych.train.patches import draw_kept_patches
from diptych.train.run import Run
from diptych.train.seen import Outputs

Forward = Callable[["Inputs", bool], Outputs]  # whether the heads run, too


class StepOutcome(NamedTuple):
    """What one step came to."""

    loss: float  # nats, of its batch
    gradient_norm: float  # before it is clipped
    learning_rate: float
    logit_scale: float  # the factor, after it


class Inputs(NamedTuple):
    """Some pairs of a batch, row by row, as the forward function takes them; it makes of them what the towers take."""

    images: Tensor  # [B, ...]; the trainer's are those of `Batch`
    tokens: Tensor  # [B, L] int64
    kept_patches: Tensor | None  # [B, K] int64, for patch dropout

    def rows(self, rows: slice) -> "Inputs":
        return Inputs(*(None if values is None else values[rows] for values in self))  # pyright: ignore[reportArgumentType]


def train_step(run: Run, batch: Batch, sizes: Sequence[int]) -> StepOutcome:
    """One optimizer step on one batch.

    Args:
        run: whose weights learn from it.
        batch: this process's part of it.
        sizes: pairs of all processes.

    Raises:
        TrainingError: the loss or its gradient is not finite; no parameter has changed.
    """
    settings = run.recipe.train
    value = norm = math.nan
    for factor in run.loss_scale.tries():
        with run.ranks.laps.section("step"):
            value, norm = _loss_and_norm(run, batch, sizes, factor)
        if math.isfinite(norm):
            break
    _must_be_finite(run, "gradient", norm)
    rate = run.schedule(run.step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps)
    with run.ranks.laps.section("optimizer"):
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        run.optimizer.step()
        clamp_logit_scale(run.model)
        run.step += 1
        if run.average:
            run.average.update(run.model, run.step)
        if run.average_of_heads:
            run.average_of_heads.update(run.heads, run.step)
        logit_scale = run.bundle.logit_scale
    return StepOutcome(value, norm, rate, logit_scale)


def _loss_and_norm(run: Run, batch: Batch, sizes: Sequence[int], factor: float) -> tuple[float, float]:
    """Gradients of one batch, clipped; its loss, and their length before."""
    run.optimizer.zero_grad()
    # Every process has a part of the gradients, and `Spread` takes the average where the sum is wanted.
    value = _gradients(run, batch, sizes, scale_by=factor * run.ranks.count)
    parameters = list(run.learner.parameters())
    if factor != 1:
        for gradient in [p.grad for p in parameters if p.grad is not None]:
            gradient.mul_(1 / factor)
    return value, clip_gradients(parameters, run.recipe.train.max_gradient_norm or math.inf).item()


class Losses:
    """The loss of a run's objectives: of the features of a batch, and of the heads pair by pair.

    Args:
        objectives: of the run.
        together: what those over the batch are told.
    """

    def __init__(self, objectives: Sequence[Objective], together: Together) -> None:
        self._over_batch = over_batch(objectives)
        self._per_sample = per_sample(objectives)
        self._together = together
        self.is_over_batch = bool(self._over_batch)

    def of_batch(self, features: CLIPOutput) -> Tensor:
        """[], the same in all processes; its gradients are this process's part."""
        return _added(one.weight * _one_number(one, features, self._together) for one in self._over_batch)

    def of_samples(self, losses: Tensor) -> Tensor:
        """Of some pairs their part of the mean over all pairs of all processes.

        Args:
            losses: [b, K] of the heads, in the order of their objectives.

        Returns:
            [], this process's alone.
        """
        weights = losses.new_tensor([one.weight for one in self._per_sample])
        return (losses @ weights).sum() / sum(self._together.sizes)


def _one_number(objective: OverBatch, features: CLIPOutput, together: Together) -> Tensor:
    loss = objective.loss(features, together)
    got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    if got != []:
        raise ShapeError(f"{objective.kind} must return one number, a tensor []. Got {got}.")
    if not loss.requires_grad:
        raise ShapeError(f"{objective.kind} must return a loss that depends on the features.")
    return loss


def _added(losses: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, losses)


def _gradients(run: Run, batch: Batch, sizes: Sequence[int], *, scale_by: float) -> float:
    settings = run.recipe.train
    images, texts = batch.teacher_image_features, batch.teacher_text_features
    together = Together(
        text_ids=batch.text_ids.to(run.device) if settings.same_text_is_positive else None,
        ranks=run.ranks,
        sizes=sizes,
        exchange=settings.loss_exchange,
        teacher_image_features=None if images is None else images.to(run.device),
        teacher_text_features=None if texts is None else texts.to(run.device),
    )
    losses = Losses(run.recipe.objectives, together)

    def check(loss: float) -> None:
        _must_be_finite(run, "loss", loss)

    forward = functools.partial(_forward, run)
    with run.ranks.laps.section("inputs"):
        inputs = _inputs(run, batch)
    if not settings.micro_batch_size:
        return whole_gradients(run.spread, forward, inputs, losses, ranks=run.ranks, scale_by=scale_by, check=check)
    count = math.ceil(max(sizes) / settings.micro_batch_size)  # the same in all processes
    bounds = [round(len(batch.images) * number / count) for number in range(count + 1)]
    return cached_gradients(
        run.spread,
        forward,
        inputs,
        losses,
        ranks=run.ranks,
        scale_by=scale_by,
        check=check,
        micro_batches=[slice(*pair) for pair in itertools.pairwise(bounds)],
    )


def _inputs(run: Run, batch: Batch) -> Inputs:
    patches, dropout, kept = run.bundle.model.config.image.patches, run.recipe.train.patch_dropout, None
    if dropout:
        kept = draw_kept_patches(batch.noise, patches=patches, dropout=dropout).to(run.device)
    return Inputs(batch.images.to(run.device), batch.tokens.to(run.device), kept)


def _forward(run: Run, inputs: Inputs, with_heads: bool) -> Outputs:
    count = len(inputs.images)
    if not count:  # all of this process's samples are bad; it still takes part, with a blank that counts nothing
        # To the statistics of a batch even a blank would count; frozen features cannot be of none.
        would_count = run.bundle.model.config.image.needs_whole_batch and "image" not in run.recipe.train.freeze
        rows = 0 if would_count else 1
        blank = inputs.images.new_zeros(rows, *run.bundle.preprocess.shape)
        kept = inputs.kept_patches if inputs.kept_patches is None else inputs.kept_patches.new_zeros(rows, 1)
        inputs = Inputs(blank, inputs.tokens.new_zeros(rows, inputs.tokens.shape[1] or 1), kept)
    known = run.frozen_features(inputs.images) if run.frozen_features else None
    pixels = run.pixels(inputs.images) if known is None else inputs.images  # which nobody looks at
    with run.autocast():
        outputs = run.spread(pixels, inputs.tokens, inputs.kept_patches, known, with_heads)
    return outputs if count else outputs.without_rows()


def _must_be_finite(run: Run, what: str, value: float) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} must be finite, and is {value} at step {run.step + 1}. Start over in another folder with "
            "a lower train.learning_rate or with train.max_gradient_norm=1.0."
        )


def whole_gradients(
    model: Spread,
    forward: Forward,
    inputs: Inputs,
    losses: Losses,
    *,
    ranks: Ranks,
    scale_by: float,
    check: Callable[[float], None],
) -> float:
    """Gradients of a batch in one forward and one backward pass.

    Args:
        model: whose gradients; they are added to what is there.
        forward: inputs to features and losses of heads, through `model`.
        inputs: the pairs of this process.
        losses: the loss of those.
        ranks: the processes; all must call.
        scale_by: the gradients are this many times as large as they are.
        check: is given the loss before the backward pass.

    Returns:
        The loss, of all processes.
    """
    outputs = forward(inputs, True)
    loss = None if outputs.features is None else losses.of_batch(outputs.features)
    value = 0.0 if loss is None else loss.item()
    if outputs.losses is not None:
        own = losses.of_samples(outputs.losses)
        value += ranks.sum(own.detach().clone()).item()
        loss = own if loss is None else loss + own
    assert loss is not None
    check(value)
    with model.averaging(True):
        (loss if scale_by == 1 else loss * scale_by).backward()
    return value


def cached_gradients(
    model: Spread,
    forward: Forward,
    inputs: Inputs,
    losses: Losses,
    *,
    ranks: Ranks,
    scale_by: float,
    check: Callable[[float], None],
    micro_batches: Sequence[slice],
) -> float:
    """The same gradients by way of micro-batches; all pairs of the batch stay each other's negatives.

    First features alone are computed, of one micro-batch after the other; then the loss of all, and its gradients for
    the features; then each micro-batch again, with those gradients as its own. Activations of one micro-batch are held
    at a time, for one more forward pass. Heads look at one pair at a time, so theirs is the second pass alone; where
    there are only heads, there is no first.

    Source: GradCache, arXiv:2101.06983, section 3; BASIC, arXiv:2111.10050, section 5.

    Args:
        model: see `whole_gradients`, as for all the others.
        forward: likewise.
        inputs: likewise.
        losses: likewise.
        ranks: likewise.
        scale_by: likewise.
        check: is given the loss of the features before any backward pass, and where there are heads the loss of all
            at the end.
        micro_batches: rows of each, together all rows; as many in every process.
    """
    value, leaves = 0.0, None
    if losses.is_over_batch:
        with torch.no_grad():
            leaves = _leaves([forward(inputs.rows(rows), False).features for rows in micro_batches])
        loss = losses.of_batch(leaves)
        value = loss.item()
        check(value)
        (loss * scale_by).backward()
    last, of_heads = len(micro_batches) - 1, None
    for number, rows in enumerate(micro_batches):
        with model.averaging(number == last):
            outputs = forward(inputs.rows(rows), True)
            values: list[Tensor] = []
            given: list[Tensor] = []
            if leaves is not None and outputs.features is not None:
                values, given = _to_go_back(outputs.features, leaves, rows, is_last=number == last)
            if outputs.losses is not None:
                own = losses.of_samples(outputs.losses)
                of_heads = own.detach() if of_heads is None else of_heads + own.detach()
                values.append(own)
                given.append(torch.full_like(own, scale_by))
            torch.autograd.backward(values, given)
    if of_heads is not None:
        value += ranks.sum(of_heads).item()
        check(value)
    return value


def _leaves(parts: Sequence[CLIPOutput | None]) -> CLIPOutput:
    """The features of all micro-batches, as what gradients are taken for."""
    outputs = [part for part in parts if part is not None]
    images, texts = (torch.cat(features) for features in zip(*((o[0], o[1]) for o in outputs), strict=True))
    return CLIPOutput(
        *(None if value is None else value.detach().requires_grad_() for value in (images, texts, *outputs[0][2:]))  # pyright: ignore[reportArgumentType]
    )


def _to_go_back(
    output: CLIPOutput, leaves: CLIPOutput, rows: slice, *, is_last: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """What of a micro-batch learns, and the gradient of each."""
    given = [leaves.image_features.grad[rows], leaves.text_features.grad[rows]]  # pyright: ignore[reportOptionalSubscript]
    # Scale and bias are not of any pair: their gradients come once, along with the last.
    numbers = [leaf for leaf in leaves[2:] if leaf is not None]
    given += [leaf.grad if is_last else torch.zeros_like(leaf) for leaf in numbers]
    values = [value for value in output if value is not None]
    learning = [value.requires_grad for value in values]  # not of a frozen tower
    return list(itertools.compress(values, learning)), list(itertools.compress(given, learning))
