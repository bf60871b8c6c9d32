"""Distillation: what stored features of a larger model add to the loss."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint

from diptych.errors import ShapeError

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
    scale, teacher_scale = logit_scale.float(), float(teacher_logit_scale)
    one_way = [
        _divergence(
            student[side].float(), student[1 - side].float(), scale, teacher[side], teacher[1 - side], teacher_scale
        )
        for side in (0, 1)
    ]
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
    return total / len(rows)


def _divergence_of_tile(
    rows: Tensor, columns: Tensor, scale: Tensor, teacher_rows: Tensor, teacher_columns: Tensor, teacher_scale: float
) -> Tensor:
    ours = log_softmax(scale * rows @ columns.T, dim=1)  # [rows, B]
    theirs = log_softmax(teacher_scale * teacher_rows.float() @ teacher_columns.float().T, dim=1)
    return (theirs.exp() * (theirs - ours)).sum()
