"""Text towers of BERT's kind in open_clip: an encoder of `transformers`, known by its name, with a head on it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.text_head import Pool
from diptych.weights.adapters import TensorRow
from diptych.weights.hf_bert import bert_rows
from diptych.weights.open_clip_heads import HF_NAME, head_rows, read_head, write_head
from diptych.weights.tower_layout import Section, TowerLayout

_BASE = {"width": 768, "layers": 12, "heads": 12, "mlp_width": 3072}
_LARGE = {"width": 1024, "layers": 24, "heads": 16, "mlp_width": 4096}
_BERT = {"positions": 512, "pad_token_id": 0, "token_types": 2, "layer_norm_eps": 1e-12, "places": "index"}
_ROBERTA = {"positions": 514, "pad_token_id": 1, "token_types": 1, "layer_norm_eps": 1e-5, "places": "words"}
_XLM_R = {**_ROBERTA, "vocab_size": 250_002}
_BIOMED = "microsoft/BiomedNLP-{}-base-uncased-abstract{}"
# By the name that a config gives; the hub renamed some, and configs have either name.
SIZES: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {**_BASE, **_XLM_R},
    "xlm-roberta-large": {**_LARGE, **_XLM_R},
    "FacebookAI/xlm-roberta-base": {**_BASE, **_XLM_R},
    "FacebookAI/xlm-roberta-large": {**_LARGE, **_XLM_R},
    "roberta-base": {**_BASE, **_ROBERTA, "vocab_size": 50_265},
    "roberta-large": {**_LARGE, **_ROBERTA, "vocab_size": 50_265},
    "FacebookAI/roberta-base": {**_BASE, **_ROBERTA, "vocab_size": 50_265},
    "FacebookAI/roberta-large": {**_LARGE, **_ROBERTA, "vocab_size": 50_265},
    "bert-base-uncased": {**_BASE, **_BERT, "vocab_size": 30_522},
    "bert-large-uncased": {**_LARGE, **_BERT, "vocab_size": 30_522},
    "bert-base-cased": {**_BASE, **_BERT, "vocab_size": 28_996},
    "bert-base-multilingual-cased": {**_BASE, **_BERT, "vocab_size": 119_547},
    "google-bert/bert-base-uncased": {**_BASE, **_BERT, "vocab_size": 30_522},
    **{
        _BIOMED.format(name, texts): {**_BASE, **_BERT, "vocab_size": 30_522}
        for name in ("BiomedBERT", "PubMedBERT")
        for texts in ("", "-fulltext")
    },
}
_POOLS: dict[str, Pool] = {"mean_pooler": "mean", "cls_pooler": "dense", "cls_last_hidden_state_pooler": "first"}


def _read(text: Section, model_cfg: Section) -> dict[str, Any]:
    name = text[HF_NAME]
    if name not in SIZES:
        shown = ", ".join(known for known in SIZES if "/" not in known)
        raise ConfigError(
            f"text_cfg.{HF_NAME} must be one that diptych knows the sizes of: "
            f"{shown}, a BiomedBERT or an NLLB. Got {name!r}."
        )
    sizes = SIZES[name]
    return {
        "kind": "bert",
        "context_length": text.get("context_length", 77),
        **sizes,
        **read_head(text, model_cfg, sizes["width"], _POOLS, silent="first" if sizes["places"] == "index" else "mean"),
    }


def _write(config: BertTowerConfig) -> dict[str, Any]:
    return {HF_NAME: name_of(config, SIZES), **write_head(config, _POOLS), "context_length": config.context_length}


def name_of(config: Any, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of an encoder of these sizes.

    Raises:
        ConfigError: there is none.
    """
    plain = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, sizes in known.items():
        if all(plain[key] == value for key, value in sizes.items()) and config.activation == "gelu":
            return name
    raise ConfigError(
        "open_clip knows text towers of transformers by name, and none of those has these sizes. "
        f"Got {config.summary}: keep it as a bundle."
    )


def _rows(config: BertTowerConfig) -> tuple[TensorRow, ...]:
    return (*bert_rows(config, "transformer."), *head_rows(config))


BERT = TowerLayout(
    kind="bert",
    fits=lambda text: text.get(HF_NAME) is not None,
    read=_read,
    write=_write,
    rows=_rows,
    # Some versions made a pooler that they did not ask.
    without_meaning=r"transformer\.(embeddings\.(position_ids|token_type_ids)|pooler\.dense\..*)",
)
