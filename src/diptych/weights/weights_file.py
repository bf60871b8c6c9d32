"""Which file holds a model's weights, told by the names in a folder or a repository; nothing is opened.

The config comes first: a file is taken where a config that describes it lies beside it. Both `stored` and `hub` choose
by this, so that a repository opens alike before and after it is downloaded.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from diptych.errors import WeightsError
from diptych.weights.folder import CONFIG, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, WEIGHTS
from diptych.weights.not_weights import check_no_adapter

INDEX = re.compile(r"(.+\.(?:safetensors|bin|msgpack))\.index(?:\.[\w-]+)?\.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
ENDINGS = (".safetensors", *PICKLES, ".msgpack", ".npz")

# Published names, the best first, each with the config that describes it: safetensors before pickles, those of
# transformers before open_clip's. timm's repositories have a model.safetensors that is an image tower alone beside
# open_clip's weights: there it comes after them.
_PUBLISHED = (
    (WEIGHTS, CONFIG),
    (f"{WEIGHTS}.index.json", CONFIG),
    (OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG),
    ("pytorch_model.bin", CONFIG),
    ("pytorch_model.bin.index.json", CONFIG),
    ("open_clip_pytorch_model.bin", OPEN_CLIP_CONFIG),
    (WEIGHTS, OPEN_CLIP_CONFIG),
    ("pytorch_model.bin", OPEN_CLIP_CONFIG),
    ("flax_model.msgpack", CONFIG),
    ("flax_model.msgpack.index.json", CONFIG),
)
_PLAIN = re.compile(r"\w(?:[\w-]|\.(?!\.))*", re.ASCII)  # whatever a repository lists: no separator, no leading dot
_PART = re.compile(r"-\d{5}-of-\d{5}\.")
# What training leaves beside a model, and what adapters are in.
_OTHERS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|adapter_)[\w.-]*")


class ChosenWeights(NamedTuple):
    """A file of weights, or the index of its parts, and the config beside it that describes it."""

    name: str
    config: str
    is_published: bool = True  # whether it has a name that a library publishes under, which tells the config


def choose_weights(
    names: Collection[str], described: Collection[str], *, where: str, asked: str = ""
) -> ChosenWeights | None:
    """The best weights among the files of a folder or a repository.

    Args:
        names: of its files.
        described: those of its configs that are a model's.
        where: for messages.
        asked: the file that is meant, where the user said so.

    Returns:
        None where there are no weights that a config describes.

    Raises:
        WeightsError: there are several, and their names do not tell which is meant; or they are an adapter's, or parts
            without their index.
    """
    if asked:
        return _chosen(asked, described) if asked in names and described else None
    check_no_adapter(names, where)
    for name, config in _PUBLISHED:
        if name in names and config in described:
            return ChosenWeights(name, config)
    if not described:
        return None
    others = sorted(name for name in names if may_hold_weights(name))
    indices = [name for name in others if INDEX.fullmatch(name)]
    if not indices and (parts := [name for name in others if _PART.search(name)]):
        raise WeightsError(
            f"{where} holds parts of weights, such as {parts[0]}, without the index that tells which tensor is where "
            "(*.index.json). Copy or download it too."
        )
    for some in (indices, _of_published_stems(others), others):
        if len(some) > 1:
            raise WeightsError(f"{where} holds {', '.join(some)}. Say which is meant: give that file by its path.")
        if some:
            return _chosen(some[0], described)
    return None


def _of_published_stems(names: Collection[str]) -> list[str]:
    """Weights of another precision, such as model.fp16.safetensors."""
    stems = {name.partition(".")[0] for name, _ in _PUBLISHED}
    return [name for name in names if name.partition(".")[0] in stems]


def may_hold_weights(name: str) -> bool:
    """Whether a file of this name may be weights, or the index of their parts."""
    is_one = name.endswith(ENDINGS) or INDEX.fullmatch(name)
    return bool(is_one) and _PLAIN.fullmatch(name) is not None and not _OTHERS.match(name)


def _chosen(name: str, described: Collection[str]) -> ChosenWeights:
    """With its config by its name; of a name that nobody publishes under, one that is there."""
    likely = OPEN_CLIP_CONFIG if name.startswith("open_clip") else CONFIG
    config = likely if likely in described else next(iter(described))
    return ChosenWeights(name, config, bool(_of_published_stems([name])))
