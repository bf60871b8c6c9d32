"""Contrastive losses: features in, a scalar out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import ShapeError


def clip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, *, text_ids: Tensor | None = None
) -> Tensor:
    """Softmax contrastive loss, the mean of image-to-text and text-to-image.

    Row i of both inputs is one pair; the other B - 1 rows are its negatives, except those with the same text id:
    they are positives too, and the target is spread evenly over all positives of a row.
    Source: CLIP, arXiv:2103.00020, section 2.3 and figure 3; several positives: SupCon, arXiv:2004.11362.

    Args:
        image_features: [B, D], unit length.
        text_features: [B, D], unit length.
        logit_scale: [], the factor itself, not its logarithm.
        text_ids: [B] integers, equal for rows with the same caption; without it every row is its own.

    Returns:
        [], in nats. Chance level is log B; the least is 0, or with n positives in a row log n for that row.

    Raises:
        ShapeError: the two batches differ in B or D, or `text_ids` is not [B].

    >>> features = torch.eye(4)
    >>> round(clip_loss(features, features, torch.tensor(0.0)).item(), 4)  # chance: log 4
    1.3863
    """
    if image_features.ndim != 2 or image_features.shape != text_features.shape:
        raise ShapeError(
            f"image_features {list(image_features.shape)} and text_features {list(text_features.shape)} "
            "must be paired row by row, both [B, D]."
        )
    if text_ids is not None and text_ids.shape != image_features.shape[:1]:
        raise ShapeError(f"text_ids must be [B] = [{len(image_features)}]. Got {list(text_ids.shape)}.")
    logits_per_image = logit_scale * image_features @ text_features.T  # [B, B]
    if text_ids is None:
        target = torch.arange(len(image_features), device=image_features.device)  # [B], the diagonal
    else:
        positives = (text_ids[:, None] == text_ids).to(logits_per_image.dtype)  # [B, B], symmetric
        target = positives / positives.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits_per_image, target) + F.cross_entropy(logits_per_image.T, target)) / 2
