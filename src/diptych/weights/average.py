"""Two models of the same sizes become one: their weights are averaged."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from diptych.config import to_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About


@torch.no_grad()
def check_alpha(alpha: float) -> None:
    """Raises ConfigError for a share that is outside 0 to 1."""
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must lie between 0 and 1: it is the share of the second model. Got {alpha:g}.")


def interpolate(a: Bundle, b: Bundle, alpha: float) -> Bundle:
    """A model whose every weight lies between those of two others.

    With A a pretrained model and B the same after fine-tuning, a mean of both often keeps what A knew and most of what
    B learned. The logit scale is averaged as its logarithm. A ResNet's batch statistics are averaged too, and are then
    not quite those of the averaged weights.

    Source: WiSE-FT, arXiv:2109.01903, section 3.

    Args:
        a: what alpha = 0 gives, to the bit.
        b: what alpha = 1 gives, to the bit.
        alpha: share of b, from 0 to 1.

    Returns:
        A bundle in eval mode that shares no memory with either.

    Raises:
        ConfigError: alpha is outside, or the two differ in sizes, picture recipe or tokenizer.
    """
    check_alpha(alpha)
    if found := _difference(a, b):
        raise ConfigError(f"two models must have the same sizes to be averaged, and they differ in {found}.")
    model = CLIP(a.model.config)
    theirs = b.model.state_dict()
    model.load_state_dict(
        {
            # A count is no weight.
            name: value.lerp(theirs[name].to(value), alpha) if value.is_floating_point() else theirs[name].clone()
            for name, value in a.model.state_dict().items()
        },
        assign=True,
    )
    about = About(
        source=f"{1 - alpha:g} x ({a.about.source or 'a model'}) + {alpha:g} x ({b.about.source or 'a model'})",
        licence=_joined(a.about.licence, b.about.licence, " AND "),
        data=_joined(a.about.data, b.about.data, "; "),
    )
    return Bundle(model=model.eval(), preprocess=a.preprocess, tokenizer=a.tokenizer, about=about)


def _difference(a: Bundle, b: Bundle) -> str:
    ours, theirs = (
        dict(_flat({"model": to_dict(bundle.model.config), "preprocess": to_dict(bundle.preprocess)}))
        for bundle in (a, b)
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return f"{name} ({ours.get(name)} and {theirs.get(name)})"
    return "" if a.tokenizer.fingerprint() == b.tokenizer.fingerprint() else "the tokenizer"


def _flat(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _joined(a: str, b: str, word: str) -> str:
    """What holds for both; nothing where it is not known of one."""
    return a if a == b else f"{a}{word}{b}" if a and b else ""
