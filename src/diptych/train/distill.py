"""Distillation: what stored features of a larger model add to the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint

from diptych.errors import ShapeError
from diptych.model.clip import CLIPOutput
from diptych.train.distributed import Ranks
from diptych.train.loss import with_gradients

_ROWS = 1024  # of a similarity matrix, held at once


def affinity_distillation(
    image_features: Tensor,
    text_features: Tensor,
    teacher_image_features: Tensor,
    teacher_text_features: Tensor,
    *,
    logit_scale: Tensor,
    teacher_logit_scale: float,
) -> Tensor:
    """How far the student's softmax over a batch's texts (and pictures) is from the teacher's.

    Mean over rows of KL(teacher || student), and of image-to-text and text-to-image. The widths of student and teacher
    may differ: only similarities within each are compared. Tiles of the matrices are held, and are computed anew in the
    backward pass. Source: MobileCLIP, arXiv:2311.17049, section 4.

    Args:
        image_features: [B, D], unit length, of the student.
        text_features: [B, D], unit length.
        teacher_image_features: [B, E], unit length.
        teacher_text_features: [B, E], unit length.
        logit_scale: [], the factor itself, not its logarithm.
        teacher_logit_scale: of the teacher; lower makes its softmax flatter.

    Returns:
        [], in nats; 0 where both softmaxes agree. No gradient goes to the teacher's features.

    Raises:
        ShapeError: the four differ in B, or two of one model in width.
    """
    student, teacher = (image_features, text_features), (teacher_image_features, teacher_text_features)
    if (
        student[0].shape != student[1].shape
        or teacher[0].shape != teacher[1].shape
        or len({*map(len, student + teacher)}) > 1
    ):
        shapes = [list(features.shape) for features in (*student, *teacher)]
        raise ShapeError(
            f"image_features {shapes[0]}, text_features {shapes[1]}, teacher_image_features {shapes[2]} and "
            f"teacher_text_features {shapes[3]} must have the same B, and one width for each model."
        )
    return _both_ways(student, student, teacher, teacher, logit_scale, teacher_logit_scale, pairs=len(image_features))


def shared_distillation(
    output: CLIPOutput,
    teacher_image_features: Tensor | None,
    teacher_text_features: Tensor | None,
    *,
    teacher_logit_scale: float,
    ranks: Ranks,
    sizes: Sequence[int],
) -> Tensor:
    """`affinity_distillation` of the pairs of all processes; each process gets the features of all.

    Args:
        output: features of this process's pairs, [b, D].
        teacher_image_features: [b, E], unit length; None where there is no pair.
        teacher_text_features: likewise.
        teacher_logit_scale: of the teacher.
        ranks: the processes; all must call.
        sizes: pairs of each process; 0 is allowed.

    Returns:
        [], in nats, the same in all processes. Its gradients are this process's part, as of `contrastive_loss`.
    """
    inputs = output[:3]
    teacher = [inputs[0].new_zeros(0, 0) if f is None else f for f in (teacher_image_features, teacher_text_features)]
    if ranks.count == 1:
        return affinity_distillation(
            *inputs[:2], teacher[0], teacher[1], logit_scale=inputs[2], teacher_logit_scale=teacher_logit_scale
        )
    width = max(ranks.collect(teacher[0].shape[1]))
    kind = _precise(inputs[0])
    teacher = [features.to(kind) if len(features) else kind.new_zeros(0, width) for features in teacher]
    own = [value.detach().requires_grad_() for value in inputs]
    every = [ranks.gather(value.detach(), sizes).requires_grad_() for value in own[:2]]
    every_teacher = [ranks.gather(value, sizes) for value in teacher]
    learners = [*own, *every]
    loss, gradients = own[2].new_zeros(()), [torch.zeros_like(value) for value in learners]
    if sizes[ranks.rank]:
        part = _both_ways(own[:2], every, teacher, every_teacher, own[2], teacher_logit_scale, pairs=sum(sizes))
        loss, gradients = part.detach(), list(torch.autograd.grad(part, learners))
    images, texts, scale, *others = gradients
    others = [ranks.scatter_sum(value, sizes) for value in others]
    return with_gradients(ranks.sum(loss.clone()), inputs, (images + others[0], texts + others[1], scale))


def _both_ways(
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    teacher_rows: Sequence[Tensor],
    teacher_columns: Sequence[Tensor],
    logit_scale: Tensor,
    teacher_logit_scale: float,
    *,
    pairs: int,
) -> Tensor:
    """Of pictures and of texts as rows, the mean of both."""
    scale, teacher_scale = _precise(logit_scale), float(teacher_logit_scale)
    one_way = [
        _divergence(
            _precise(rows[side]), _precise(columns[1 - side]), scale,
            teacher_rows[side], teacher_columns[1 - side], teacher_scale,
        ) / pairs
        for side in (0, 1)
    ]  # fmt: skip
    return torch.stack(one_way).mean()


def _divergence(
    rows: Tensor, columns: Tensor, scale: Tensor, teacher_rows: Tensor, teacher_columns: Tensor, teacher_scale: float
) -> Tensor:
    total = rows.new_zeros(())
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        total = total + checkpoint(  # pyright: ignore[reportOperatorIssue]
            _divergence_of_tile,
            rows[part], columns, scale, teacher_rows[part].detach(), teacher_columns.detach(), teacher_scale,
            use_reentrant=False,
        )  # fmt: skip
    return total


def _divergence_of_tile(
    rows: Tensor, columns: Tensor, scale: Tensor, teacher_rows: Tensor, teacher_columns: Tensor, teacher_scale: float
) -> Tensor:
    ours = log_softmax(scale * rows @ columns.T, dim=1)  # [rows, B]
    theirs = log_softmax(teacher_scale * teacher_rows.to(ours) @ teacher_columns.to(ours).T, dim=1)
    return (theirs.exp() * (theirs - ours)).sum()


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
