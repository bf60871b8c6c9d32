"""How much a picture shows of a deny list, and the threshold for it, from labelled examples."""

import math
from dataclasses import dataclass

import numpy as np

from diptych.errors import ConfigError, DataError

_MARGIN = 1e-5  # by which a score may differ when a picture is encoded in another batch


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where pictures are denied, and what that did on the examples it was chosen on."""

    value: float  # a picture whose score is at least this is denied
    caught: float  # share of the examples to deny that are
    false: float  # share of the examples to keep that are denied
    denied: int  # examples to deny
    kept: int  # examples to keep


def deny_scores(image_features: np.ndarray, text_features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much each picture shows of a deny list.

    Args:
        image_features: [N, D], unit length.
        text_features: [C, D], unit length, one row a concept.

    Returns:
        [N] the highest cosine, and [N] int64, of which concept.
    """
    cosines = image_features @ text_features.T  # [N, C]
    return cosines.max(axis=1), cosines.argmax(axis=1)


def deny_threshold(denied: np.ndarray, kept: np.ndarray, *, max_false: float = 0.01) -> Threshold:
    """The lowest threshold that denies at most a share of the pictures to keep.

    Chosen and measured on the same examples, `caught` and `false` flatter; a few hundred of each kind make it little.

    Args:
        denied: [A] scores of examples to deny.
        kept: [B] scores of examples to keep.
        max_false: largest share of these that may be denied.

    Raises:
        ConfigError: max_false is not in [0, 1).
        DataError: there are no examples of a kind, or too few to keep for so small a share.
    """
    if not 0 <= max_false < 1:
        raise ConfigError(f"max_false must be at least 0 and below 1. Got {max_false}.")
    if not len(denied) or not len(kept):
        raise DataError(f"a threshold needs examples of both kinds. Got {len(denied)} to deny and {len(kept)} to keep.")
    allowed = math.floor(max_false * len(kept) + 1e-9)
    if max_false > 0 and allowed == 0:
        raise DataError(
            f"a share of {max_false:g} needs at least {math.ceil(1 / max_false)} examples to keep. Got {len(kept)}: "
            "add some, or raise max_false."
        )
    value = float(np.sort(kept)[::-1][allowed]) + _MARGIN  # a tie is kept
    return Threshold(
        value=value,
        caught=float((denied >= value).mean()),
        false=float((kept >= value).mean()),
        denied=len(denied),
        kept=len(kept),
    )
