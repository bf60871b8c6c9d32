"""Which tensors of a file are the model's: names of wrappers are taken off, and the state dict is found.

Training code puts a model into other modules and its state dict into other dicts. Where it lies is told by names that
any CLIP has, not by a list of what wrappers are called.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diptych.errors import WeightsError

# Of DistributedDataParallel, torch.compile, FSDP and recomputed blocks, and TinyCLIP's three parts of a model; no other
# has parts of these names.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_image_encoder|_text_encoder"
    r"|_logit_scale)\."
)
# The first layer of an image tower, by library: one a model. Towers of timm are known here to be refused by their name.
_ANCHORS = (
    "visual.conv1.weight",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.convolution.weight",
    "visual.trunk.patch_embed.proj.weight",
    "visual.trunk.stem.0.weight",
)
_DEEPEST = 3  # dicts in dicts


def find_state_dict(data: Any, path: Path, *, chosen: str | None = None) -> dict[str, Tensor]:
    """The model's tensors in what a file holds, without what wrappers put before their names.

    Args:
        data: tensors by name, or dicts of such by name, as training code keeps them.
        path: where from, for messages.
        chosen: which of several models is meant, by the name that the message tells.

    Raises:
        WeightsError: there is none, or there are several and none of them is chosen.
    """
    dicts = dict(_dicts(data))
    if not dicts:
        raise WeightsError(f"{path} must hold a state dict, tensors by name. Got {type(data).__name__}.")
    found = {
        ".".join(filter(None, (place, prefix.rstrip(".")))): _under(tensors, prefix)
        for place, tensors in dicts.items()
        for prefix in _prefixes(tensors)
    }
    if not found:  # of another kind of model, which is told by its names
        found = {place: tensors for place, tensors in dicts.items() if place in ("", "state_dict")} or dicts
    if "" in found and chosen is None and len(dicts) == len(found) == 1:
        return found[""]
    names = [name or "." for name in found]
    if chosen is not None:
        if chosen not in names:
            raise WeightsError(f"{path} holds the models {', '.join(names)}. Got state_dict={chosen!r}: choose one.")
        return found["" if chosen == "." else chosen]
    if len(found) > 1:
        raise WeightsError(
            f"{path} holds {len(found)} models: {', '.join(names)}. Say which is meant, e.g. state_dict={names[0]!r}; "
            "an average (ema) is usually the better one."
        )
    return next(iter(found.values()))


def _dicts(data: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Dicts that hold tensors themselves, by their place; wrappers' names are off, where that leaves names apart."""
    if not isinstance(data, Mapping) or depth > _DEEPEST:
        return
    tensors = {str(name): value for name, value in data.items() if isinstance(value, Tensor)}
    if tensors:
        plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
        yield place, plain if len(plain) == len(tensors) else tensors
    for name, value in data.items():
        part = "" if name == "module" else str(name)
        yield from _dicts(value, ".".join(filter(None, (place, part))), depth + 1)


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """What stands before the names of each model."""
    ends = (name.removesuffix(anchor) for name in tensors for anchor in _ANCHORS if name.endswith(anchor))
    return sorted({prefix for prefix in ends if not prefix or prefix.endswith(".")})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    others = tuple(other for other in _prefixes(tensors) if other and not prefix.startswith(other))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not (others and name.startswith(others))
    }
