"""Image-text retrieval both ways: recall@k and median rank, in chunks.

Source: CLIP, arXiv:2103.00020, table 13: "text retrieval" there is the way from a picture to its captions. Letters: N
pictures, M texts, D, Q.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import Interval, best_match_rank, bootstrap_interval

_SCORES_AT_ONCE = 1 << 24  # 64 MiB of them


@dataclass(frozen=True, eq=False)
class Ranking:
    """One way. Ties count against us, as in `best_match_rank`."""

    recall: Mapping[int, float]  # k -> share of queries with a match among the k best
    intervals: Mapping[int, Interval]  # of the recall, over pictures
    median_rank: float  # of the best match, from 1; the mean of the middle two for an even number of queries
    candidates: int
    ranks: Tensor  # [Q] int64, of the best match, from 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the ranks."""
        return {
            "recall": {str(k): share for k, share in self.recall.items()},
            "intervals": {str(k): asdict(interval) for k, interval in self.intervals.items()},
            "median_rank": self.median_rank,
            "queries": len(self.ranks),
            "candidates": self.candidates,
        }


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    image_to_text: Ranking  # "text retrieval" of the paper
    text_to_image: Ranking  # "image retrieval"

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the ranks."""
        return {"image_to_text": self.image_to_text.to_dict(), "text_to_image": self.text_to_image.to_dict()}


@torch.no_grad()
def retrieval(
    image_features: Tensor,
    text_features: Tensor,
    image_of_text: Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    chunk: int | None = None,
    seed: int = 0,
) -> RetrievalResult:
    """Rank all texts for each picture, and all pictures for each text.

    The captions of one picture are not independent: the intervals draw pictures anew, with all their captions.

    Args:
        image_features: [N, D], unit length.
        text_features: [M, D], unit length.
        image_of_text: [M], row of the picture that a text describes; each picture has at least one text.
        ks: how many of the best are looked at. One above the number of candidates is left out.
        chunk: queries at once; by default as many as 64 MiB of scores hold.
        seed: of the intervals.

    Raises:
        ShapeError: the arguments do not fit.
        DataError: a picture has no text, or a text no picture.
    """
    n, m = len(image_features), len(text_features)
    if image_features.ndim != 2 or image_features.shape[1:] != text_features.shape[1:] or image_of_text.shape != (m,):
        raise ShapeError(
            f"image_features {list(image_features.shape)}, text_features {list(text_features.shape)} and image_of_text "
            f"{list(image_of_text.shape)} must be [N, D], [M, D] and [M]."
        )
    owners = image_of_text.to(image_features.device).long()
    if not m or not n or owners.min() < 0 or owners.max() >= n:
        raise DataError(f"image_of_text must hold rows of the {n:,} pictures, for one text at least. Got {m:,} texts.")
    without = n - len(owners.unique())
    if without:
        raise DataError(f"Each picture must have a text. {without:,} of {n:,} have none: leave them out.")
    texts = text_features.to(image_features)
    rows = torch.arange(n, device=owners.device)
    return RetrievalResult(
        image_to_text=_ranking(image_features, texts, rows, owners, rows, ks, chunk, seed),
        text_to_image=_ranking(texts, image_features, owners, rows, owners, ks, chunk, seed),
    )


def _ranking(
    queries: Tensor,
    candidates: Tensor,
    picture_of_query: Tensor,
    picture_of_candidate: Tensor,
    group: Tensor,
    ks: Sequence[int],
    chunk: int | None,
    seed: int,
) -> Ranking:
    size = chunk or max(1, _SCORES_AT_ONCE // len(candidates))
    ranks = torch.cat(
        [
            best_match_rank(part @ candidates.T, pictures[:, None] == picture_of_candidate)
            for part, pictures in zip(queries.split(size), picture_of_query.split(size), strict=True)
        ]
    ).cpu()
    found = {k: ranks <= k for k in ks if k <= len(candidates)}
    return Ranking(
        recall={k: hits.double().mean().item() for k, hits in found.items()},
        intervals={k: bootstrap_interval(hits, seed=seed, group=group.cpu()) for k, hits in found.items()},
        median_rank=float(np.median(ranks.numpy())),
        candidates=len(candidates),
        ranks=ranks,
    )
