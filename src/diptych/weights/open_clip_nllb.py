"""Text towers of NLLB in open_clip (NLLB-CLIP): its encoder, known by its name, with a head on it."""

from typing import Any

from diptych.errors import ConfigError
from diptych.model.nllb_tower import NLLBTowerConfig
from diptych.model.text_head import Pool
from diptych.weights.adapters import TensorRow
from diptych.weights.open_clip_heads import HF_NAME, head_rows, read_head, write_head
from diptych.weights.tower_layout import Section, TowerLayout

SIZES: dict[str, dict[str, Any]] = {
    "facebook/nllb-200-distilled-600M": {"width": 1024, "layers": 12, "heads": 16, "mlp_width": 4096},
    "facebook/nllb-200-distilled-1.3B": {"width": 1024, "layers": 24, "heads": 16, "mlp_width": 8192},
    "facebook/nllb-200-1.3B": {"width": 1024, "layers": 24, "heads": 16, "mlp_width": 8192},
    "facebook/nllb-200-3.3B": {"width": 2048, "layers": 24, "heads": 16, "mlp_width": 8192},
}
_SHARED: dict[str, Any] = {"vocab_size": 256_206, "pad_token_id": 1, "layer_norm_eps": 1e-5, "activation": "relu"}
# Its encoder has no layer of its own for the first token.
_POOLS: dict[str, Pool] = {"cls_pooler": "first", "mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}


def _read(text: Section, model_cfg: Section) -> dict[str, Any]:
    name = text[HF_NAME]
    if name not in SIZES:
        raise ConfigError(f"text_cfg.{HF_NAME} must be one of {', '.join(SIZES)}. Got {name!r}.")
    return {
        "kind": "nllb",
        "context_length": text.get("context_length", 77),
        **_SHARED,
        **SIZES[name],
        **read_head(text, model_cfg, SIZES[name]["width"], _POOLS, silent="first"),
    }


def _write(config: NLLBTowerConfig) -> dict[str, Any]:
    for name, sizes in SIZES.items():
        if all(getattr(config, key) == value for key, value in (_SHARED | sizes).items()):
            return {HF_NAME: name, **write_head(config, _POOLS), "context_length": config.context_length}
    raise ConfigError(
        f"open_clip knows text towers of NLLB by name, {', '.join(SIZES)}. Got {config.summary}: keep it as a bundle."
    )


def _rows(config: NLLBTowerConfig) -> tuple[TensorRow, ...]:
    layer, attention = "transformer.layers.{}.", "transformer.layers.{}.self_attn."
    parts = (
        ("ln_attention", "self_attn_layer_norm"),
        ("attention.out_projection", "self_attn.out_proj"),
        ("ln_mlp", "final_layer_norm"),
        ("mlp.up", "fc1"),
        ("mlp.down", "fc2"),
    )
    return (
        TensorRow(ours="text.token_embedding.weight", theirs=("transformer.embed_tokens.weight",)),
        TensorRow(
            ours="text.blocks.{}.attention.in_projection.{}",
            theirs=tuple(f"{attention}{part}_proj.{{}}" for part in "qkv"),
        ),
        *(TensorRow(ours=f"text.blocks.{{}}.{ours}.{{}}", theirs=(f"{layer}{theirs}.{{}}",)) for ours, theirs in parts),
        TensorRow(ours="text.ln_final.{}", theirs=("transformer.layer_norm.{}",)),
        *head_rows(config),
    )


NLLB = TowerLayout(
    kind="nllb",
    fits=lambda text: "nllb" in str(text.get(HF_NAME)),
    read=_read,
    write=_write,
    rows=_rows,
    without_meaning=r"transformer\.embed_positions\.weights",  # waves
)
