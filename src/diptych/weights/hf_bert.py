"""The text encoders of BERT's kind in `transformers`: their names and sizes, whatever model they stand in."""

from typing import Any

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.clip import CLIPConfig
from diptych.weights.adapters import TensorRow
from diptych.weights.model_layout import Section, Table, check_says, read_tower, write_tower

BERT: Table = (
    ("vocab_size", "vocab_size", 30_522),
    ("width", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("mlp_width", "intermediate_size", 3072),
    ("positions", "max_position_embeddings", 512),
    ("pad_token_id", "pad_token_id", 0),
    ("token_types", "type_vocab_size", 2),
    ("activation", "hidden_act", "gelu"),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
)
ROBERTA = {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}  # what these types are silent about
# What early versions of the library could do otherwise.
_MUST = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
# ours, and theirs behind "encoder.layer.N."
_PARTS = (
    ("attention.out_projection", "attention.output.dense"),
    ("ln_attention", "attention.output.LayerNorm"),
    ("mlp.up", "intermediate.dense"),
    ("mlp.down", "output.dense"),
    ("ln_mlp", "output.LayerNorm"),
)


def bert_rows(config: BertTowerConfig, prefix: str, *, pooler: str = "pooler.dense") -> tuple[TensorRow, ...]:
    """Rows of the encoder; those of the head are the library's own.

    Args:
        config: of the tower.
        prefix: what stands before the names, e.g. "text_model.".
        pooler: the layer that the pool "dense" has, behind the prefix.
    """
    layer, embeddings = f"{prefix}encoder.layer.{{}}.", f"{prefix}embeddings."
    heads = tuple(f"{layer}attention.self.{part}.{{}}" for part in ("query", "key", "value"))
    types = TensorRow(ours="text.type_embedding", theirs=(f"{embeddings}token_type_embeddings.weight",))
    dense = TensorRow(ours="text.head.dense.{}", theirs=(f"{prefix}{pooler}.{{}}",))
    return (
        TensorRow(ours="text.token_embedding.weight", theirs=(f"{embeddings}word_embeddings.weight",)),
        TensorRow(ours="text.position_embedding", theirs=(f"{embeddings}position_embeddings.weight",)),
        *((types,) if config.token_types else ()),
        TensorRow(ours="text.ln_embedding.{}", theirs=(f"{embeddings}LayerNorm.{{}}",)),
        TensorRow(ours="text.blocks.{}.attention.in_projection.{}", theirs=heads),
        *(
            TensorRow(ours=f"text.blocks.{{}}.{ours}.{{}}", theirs=(f"{layer}{theirs}.{{}}",))
            for ours, theirs in _PARTS
        ),
        *((dense,) if config.pool == "dense" else ()),
    )


def read_bert(found: Section, **options: Any) -> dict[str, Any]:
    """Options of our tower from a section; the context is as long as there are positions.

    Args:
        found: the section; what a type is silent about otherwise than BERT stands in it.
        options: further ones of the tower: places and head.

    Raises:
        ConfigError: it describes another tower.
    """
    check_says("text_config", found, _MUST)
    sizes = {"kind": "bert", **read_tower(found, BERT), **options}
    positions, padding = sizes["positions"], sizes["pad_token_id"]
    if not isinstance(positions, int) or not isinstance(padding, int):
        raise ConfigError(
            "text_config.max_position_embeddings and pad_token_id must be whole numbers. "
            f"Got {positions!r} and {padding!r}."
        )
    return {"context_length": positions - (padding + 1 if sizes.get("places") == "words" else 0), **sizes}


def is_bert(config: CLIPConfig, **options: Any) -> bool:
    """Whether the text tower is of this kind, has these options, and a context as long as `read_bert` makes it."""
    text = config.text
    if not isinstance(text, BertTowerConfig) or any(getattr(text, name) != value for name, value in options.items()):
        return False
    return text.context_length == text.positions - (text.pad_token_id + 1 if text.places == "words" else 0)


def write_bert(config: BertTowerConfig) -> dict[str, Any]:
    """A section from our tower."""
    return write_tower(config, BERT)
