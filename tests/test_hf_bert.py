import dataclasses

import pytest

from diptych.config import from_dict
from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.presets import preset
from diptych.weights.hf_bert import ROBERTA, bert_rows, is_bert, read_bert, write_bert


def test_a_section_is_read_and_written_and_a_context_is_as_long_as_there_are_positions():
    for silent, options, length in ((ROBERTA, {"places": "words"}, 510), ({}, {}, 512)):
        config = from_dict(BertTowerConfig, read_bert(silent, **options))
        assert config.context_length == length
        assert from_dict(BertTowerConfig, read_bert(write_bert(config), **options)) == config
        model = dataclasses.replace(preset("tiny-vit"), text=config)
        assert is_bert(model, token_types=config.token_types)
        assert not is_bert(model, pool="mean")
        shorter = dataclasses.replace(config, context_length=77)
        assert not is_bert(dataclasses.replace(model, text=shorter))  # it would come back longer
    assert not is_bert(preset("tiny-vit"))


def test_a_decoder_is_refused():
    with pytest.raises(ConfigError, match=r"text_config\.is_decoder must be False or absent\. Got True"):
        read_bert({"is_decoder": True})


def test_rows_are_those_that_the_tower_has():
    config = BertTowerConfig(token_types=0, pool="dense")
    names = [row.ours for row in bert_rows(config, "x.")]
    assert "text.type_embedding" not in names
    assert next(row.theirs for row in bert_rows(config, "x.") if "dense" in row.ours) == ("x.pooler.dense.{}",)
    assert "text.head.dense.{}" not in [row.ours for row in bert_rows(BertTowerConfig(), "x.")]
