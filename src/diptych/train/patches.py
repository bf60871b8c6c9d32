"""Patch dropout: which patches of a picture the image tower looks at.

Source: FLIP, arXiv:2212.00794.
"""

import torch
from torch import Tensor


def count_kept_patches(patches: int, dropout: float) -> int:
    """Patches less the share that is dropped, rounded, and at least 1."""
    return max(1, round(patches * (1 - dropout)))


def draw_kept_patches(noise: Tensor, *, patches: int, dropout: float) -> Tensor:
    """Which patches of each picture are looked at; a function of its own number alone.

    Args:
        noise: [B] int64.
        patches: P.
        dropout: share of the patches that are not looked at.

    Returns:
        [B, K] int64, in ascending order.
    """
    kept = count_kept_patches(patches, dropout)
    generator = torch.Generator()
    rows = [torch.randperm(patches, generator=generator.manual_seed(seed))[:kept] for seed in noise.tolist()]
    return torch.stack(rows).sort(dim=1).values
