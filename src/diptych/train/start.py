"""What a recipe takes from the model that it starts from: sizes, picture recipe, vocabulary."""

import re
from collections.abc import Mapping
from typing import Any

from diptych.config import to_dict
from diptych.weights.registry import sizes_of


def with_sizes_of_start(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain data; what it leaves out of the model that it starts from is filled in from the model's files.

    A recipe that tells all three of `model`, `preprocess` and `tokenizer` is left as it is, and nothing is looked up.

    Raises:
        WeightsError: the model's files cannot be read.
    """
    start = data.get("start_from")
    told = [data.get(name) for name in ("model", "preprocess", "tokenizer")]
    if not isinstance(start, str) or not start or all(isinstance(table, Mapping) for table in told):
        return {**data}
    config, preprocess = sizes_of(start)
    theirs = {
        "model": to_dict(config),
        "preprocess": to_dict(preprocess),
        "tokenizer": {"vocab_size": config.text.vocab_size},
    }
    given = {name: data[name] for name in theirs if name in data}
    image_sizes = (_at(given, "preprocess", "image_size"), _at(given, "model", "image", "image_size"))
    if size := next((size for size in image_sizes if size is not None), None):  # one of them means both
        theirs["preprocess"]["image_size"] = theirs["model"]["image"]["image_size"] = size
    return {**data, **_over(theirs, given)}


def _at(table: Any, *names: str) -> Any:
    for name in names:
        table = table.get(name) if isinstance(table, Mapping) else None
    return table


def _over(theirs: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """One table over another; one of another kind takes its place whole."""
    merged = {**theirs}
    for name, value in given.items():
        below = theirs.get(name)
        merged[name] = value
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            kind = below.get("kind")
            if value.get("kind", kind) == kind:
                merged[name] = _over(below, value)
    return merged


def fine_tuning(start_from: str) -> dict[str, Any]:
    """A recipe as plain data that fine-tunes a model on pairs in the folder `pairs`.

    Args:
        start_from: as `diptych.load` takes it.

    Raises:
        ConfigError: there is no such model.
        WeightsError: its files cannot be read.
    """
    name = re.sub(r"[^\w.-]+", "-", start_from.rstrip("/").rpartition("/")[2] or start_from)
    train = {"steps": 1000, "learning_rate": 1e-5, "layer_decay": 0.75, "evaluate_every": 100, "checkpoint_every": 100}
    data = {"sources": [{"path": "pairs"}], "templates": ["{}"]}
    plain: dict[str, Any] = {"name": f"{name}-tuned", "start_from": start_from, "data": data, "train": train}
    return with_sizes_of_start(plain)
