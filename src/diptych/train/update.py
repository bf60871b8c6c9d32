"""One batch: forward pass, loss, gradients, and the step of the optimizer; whole or in micro-batches."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.errors import TrainingError
from diptych.model.clip import CLIPOutput
from diptych.pairs.pipeline import Batch
from diptych.train.distill import affinity_distillation
from diptych.train.distributed import Spread, clip_gradients
from diptych.train.exchange import contrastive_loss
from diptych.train.optim import clamp_logit_scale
from diptych.train.patches import draw_kept_patches
from diptych.train.run import Run
from diptych.train.schedule import learning_rate

Loss = Callable[[CLIPOutput], Tensor]
Forward = Callable[["Inputs"], CLIPOutput]


class StepOutcome(NamedTuple):
    """What one step came to."""

    loss: float  # nats, of its batch
    gradient_norm: float  # before it is clipped
    learning_rate: float
    logit_scale: float  # the factor, after it


class Inputs(NamedTuple):
    """Some pairs of a batch, row by row, as the forward function takes them; it makes of them what the towers take."""

    images: Tensor  # [B, ...]; the trainer's are uint8 [B, S, S, 3]
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
    rate = learning_rate(
        run.step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
    )
    with run.ranks.laps.section("optimizer"):
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        run.optimizer.step()
        clamp_logit_scale(run.model)
        run.step += 1
        if run.average:
            run.average.update(run.model, run.step)
        logit_scale = run.bundle.logit_scale
    return StepOutcome(value, norm, rate, logit_scale)


def _loss_and_norm(run: Run, batch: Batch, sizes: Sequence[int], factor: float) -> tuple[float, float]:
    """Gradients of one batch, clipped; its loss, and their length before."""
    run.optimizer.zero_grad()
    # Every process has a part of the gradients, and `Spread` takes the average where the sum is wanted.
    value = _gradients(run, batch, sizes, scale_by=factor * run.ranks.count)
    parameters = list(run.model.parameters())
    if factor != 1:
        for gradient in [p.grad for p in parameters if p.grad is not None]:
            gradient.mul_(1 / factor)
    return value, clip_gradients(parameters, run.recipe.train.max_gradient_norm or math.inf).item()


def _gradients(run: Run, batch: Batch, sizes: Sequence[int], *, scale_by: float) -> float:
    settings = run.recipe.train
    text_ids = batch.text_ids.to(run.device) if settings.same_text_is_positive else None

    def loss_of(output: CLIPOutput) -> Tensor:
        loss = contrastive_loss(output, text_ids, ranks=run.ranks, sizes=sizes, exchange=settings.loss_exchange)
        images, texts = batch.teacher_image_features, batch.teacher_text_features
        if images is None or texts is None:
            return loss
        return loss + settings.distillation * affinity_distillation(
            output.image_features,
            output.text_features,
            images.to(run.device),
            texts.to(run.device),
            logit_scale=output.logit_scale,
            teacher_logit_scale=settings.teacher_logit_scale,
        )

    def check(loss: float) -> None:
        _must_be_finite(run, "loss", loss)

    forward = functools.partial(_forward, run)
    with run.ranks.laps.section("inputs"):
        inputs = _inputs(run, batch)
    if not settings.micro_batch_size:
        return whole_gradients(run.spread, forward, inputs, loss_of, scale_by=scale_by, check=check)
    count = math.ceil(max(sizes) / settings.micro_batch_size)  # the same in all processes
    bounds = [round(len(batch.images) * number / count) for number in range(count + 1)]
    return cached_gradients(
        run.spread,
        forward,
        inputs,
        loss_of,
        scale_by=scale_by,
        check=check,
        micro_batches=[slice(*pair) for pair in itertools.pairwise(bounds)],
    )


def _inputs(run: Run, batch: Batch) -> Inputs:
    patches, dropout, kept = run.bundle.model.config.image.patches, run.recipe.train.patch_dropout, None
    if dropout:
        kept = draw_kept_patches(batch.noise, patches=patches, dropout=dropout).to(run.device)
    return Inputs(batch.images.to(run.device), batch.tokens.to(run.device), kept)


def _forward(run: Run, inputs: Inputs) -> CLIPOutput:
    count = len(inputs.images)
    if not count:  # all of this process's samples are bad; it still takes part, with a blank that counts nothing
        side = run.bundle.preprocess.image_size
        blank = inputs.images.new_zeros(1, side, side, 3)
        kept = inputs.kept_patches if inputs.kept_patches is None else inputs.kept_patches.new_zeros(1, 1)
        inputs = Inputs(blank, inputs.tokens.new_zeros(1, inputs.tokens.shape[1] or 1), kept)
    known = run.frozen_features(inputs.images) if run.frozen_features else None
    pixels = run.pixels(inputs.images) if known is None else inputs.images  # which nobody looks at
    with run.autocast():
        output = run.spread(pixels, inputs.tokens, inputs.kept_patches, known)
    if not count:
        output = output._replace(image_features=output.image_features[:0], text_features=output.text_features[:0])
    return output


def _must_be_finite(run: Run, what: str, value: float) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} must be finite, and is {value} at step {run.step + 1}. Start over in another folder with "
            "a lower train.learning_rate or with train.max_gradient_norm=1.0."
        )


def whole_gradients(
    model: Spread, forward: Forward, inputs: Inputs, loss_of: Loss, *, scale_by: float, check: Callable[[float], None]
) -> float:
    """Gradients of a batch in one forward and one backward pass.

    Args:
        model: whose gradients; they are added to what is there.
        forward: inputs to features, through `model`.
        inputs: the pairs of this process.
        loss_of: the loss of features.
        scale_by: the gradients are this many times as large as they are.
        check: is given the loss before the backward pass.

    Returns:
        The loss.
    """
    loss = loss_of(forward(inputs))
    value = loss.item()
    check(value)
    with model.averaging(True):
        (loss if scale_by == 1 else loss * scale_by).backward()
    return value


def cached_gradients(
    model: Spread,
    forward: Forward,
    inputs: Inputs,
    loss_of: Loss,
    *,
    scale_by: float,
    check: Callable[[float], None],
    micro_batches: Sequence[slice],
) -> float:
    """The same gradients by way of micro-batches; all pairs of the batch stay each other's negatives.

    First features alone are computed, of one micro-batch after the other; then the loss of all, and its gradients for
    the features; then each micro-batch again, with those gradients as its own. Activations of one micro-batch are held
    at a time, for one more forward pass.

    Source: GradCache, arXiv:2101.06983, section 3; BASIC, arXiv:2111.10050, section 5.

    Args:
        model: see `whole_gradients`, as for all the others.
        forward: likewise.
        inputs: likewise.
        loss_of: likewise.
        scale_by: likewise.
        check: likewise.
        micro_batches: rows of each, together all rows; as many in every process.
    """
    with torch.no_grad():
        outputs = [forward(inputs.rows(rows)) for rows in micro_batches]
    images, texts = (torch.cat(features) for features in zip(*((o[0], o[1]) for o in outputs), strict=True))
    leaves = CLIPOutput(
        *(None if value is None else value.detach().requires_grad_() for value in (images, texts, *outputs[0][2:]))  # pyright: ignore[reportArgumentType]
    )
    loss = loss_of(leaves)
    value = loss.item()
    check(value)
    (loss * scale_by).backward()
    last = len(micro_batches) - 1
    for number, rows in enumerate(micro_batches):
        with model.averaging(number == last):
            output = forward(inputs.rows(rows))
            given = [leaves.image_features.grad[rows], leaves.text_features.grad[rows]]  # pyright: ignore[reportOptionalSubscript]
            # Scale and bias are not of any pair: their gradients come once, along with the last.
            numbers = [leaf for leaf in leaves[2:] if leaf is not None]
            given += [leaf.grad if number == last else torch.zeros_like(leaf) for leaf in numbers]
            values = [value for value in output if value is not None]
            learning = [value.requires_grad for value in values]  # not of a frozen tower
            torch.autograd.backward(
                list(itertools.compress(values, learning)), list(itertools.compress(given, learning))
            )
    return value
