"""What a frozen image tower makes of pictures that come again is computed once."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

_GROUP = 64  # pictures at most that the tower is given at a time
_MOST_BYTES = 2**30  # of features in memory; further pictures are computed each time


class FrozenFeatures:
    """Features of a tower that does not learn, found again by the pixels of a picture.

    The tower always gets groups of one size, as the last bits of a feature may depend on that: a run that was stopped
    has an empty memory, and yet goes on to the same weights.

    Source: LiT, arXiv:2111.07991, which computes the features of a locked tower before training.

    Args:
        encode: [group, S, S, 3] uint8 to [group, D], unit length.
        batch_size: of most calls; the group is no larger.
        most_bytes: of features that are kept.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], *, batch_size: int, most_bytes: int = _MOST_BYTES) -> None:
        self._encode = encode
        self._group = min(_GROUP, batch_size)
        self._free = most_bytes
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[B, S, S, 3] uint8 to [B, D]."""
        digests = [hashlib.blake2b(picture.numpy().tobytes(), digest_size=16).digest() for picture in images.cpu()]
        found = {digest: self._known[digest] for digest in digests if digest in self._known}
        new = {digest: row for row, digest in enumerate(digests) if digest not in found}
        rows = list(new.values())
        for start in range(0, len(rows), self._group):
            group = rows[start : start + self._group]
            filled = group + group[:1] * (self._group - len(group))
            features = self._encode(images[filled])[: len(group)]  # [group, D]
            found |= {digests[row]: feature for row, feature in zip(group, features, strict=True)}
        for digest in new:
            feature = found[digest].clone()  # not a view that holds all of its group
            if feature.nbytes > self._free:
                break
            self._free -= feature.nbytes
            self._known[digest] = feature
        return torch.stack([found[digest] for digest in digests])
