"""What open_clip puts on an encoder of `transformers`: how it is pooled, and the projection."""

from collections.abc import Mapping
from typing import Any

from diptych.errors import ConfigError
from diptych.model.text_head import HeadSizes, Pool
from diptych.weights.adapters import TensorRow
from diptych.weights.tower_layout import Section

HF_NAME = "hf_model_name"  # the key of a text_cfg that says that the tower is one of these


def read_head(
    text: Section, model_cfg: Section, width: int, pools: Mapping[str, Pool], *, silent: Pool
) -> dict[str, Any]:
    """Options of our head from a text_cfg.

    Args:
        text: the section.
        model_cfg: that it stands in; it tells D.
        width: of the encoder.
        pools: of an encoder of the kind, by the library's name.
        silent: what null means for the kind; a text_cfg without the key means the mean.

    Raises:
        ConfigError: there is no such head.
    """
    pool, projection = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    if pool is not None and pool not in pools:
        why = ", which open_clip itself cannot run" if pool == "max_pooler" else ""
        raise ConfigError(f"text_cfg.hf_pooler_type must be one of {', '.join(pools)}. Got {pool!r}{why}.")
    embed_dim = model_cfg.get("embed_dim")
    if projection not in ("linear", "mlp") and (projection is not None or embed_dim != width):
        raise ConfigError(
            f"text_cfg.hf_proj_type must be linear or mlp, or null where embed_dim is {width}, the encoder's width. "
            f"Got {projection!r} and {embed_dim!r}."
        )
    hidden = {"head_width": (width + model_cfg["embed_dim"]) // 2} if projection == "mlp" else {}
    return {"pool": silent if pool is None else pools[pool], "head": projection or "none", **hidden}


def write_head(config: HeadSizes, pools: Mapping[str, Pool]) -> dict[str, Any]:
    """The part of a text_cfg that tells the head.

    Raises:
        ConfigError: open_clip has no such head.
    """
    pool = next((name for name, ours in pools.items() if ours == config.pool), None)
    if pool is None or config.head == "normed" or config.head_bias:
        raise ConfigError(
            "open_clip pools a text tower of transformers by "
            f"{', '.join(pools.values())}, and projects it without a bias or a layer norm. Got pool={config.pool}, "
            f"head={config.head}, head_bias={config.head_bias}: keep it as a bundle."
        )
    return {"hf_pooler_type": pool, "hf_proj_type": None if config.head == "none" else config.head}


def head_rows(config: HeadSizes) -> tuple[TensorRow, ...]:
    """Rows of the projection."""
    if config.head == "mlp":
        return (
            TensorRow(ours="text.head.up.weight", theirs=("proj.0.weight",)),
            TensorRow(ours="text.head.projection.weight", theirs=("proj.2.weight",)),
        )
    return (TensorRow(ours="text.head.projection.weight", theirs=("proj.weight",)),) if config.head == "linear" else ()
