import dataclasses

import pytest

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.weights.open_clip_heads import head_rows, read_head, write_head

POOLS = {"mean_pooler": "mean", "cls_pooler": "dense"}


def read(embed_dim=24, **text):
    return read_head(text, {"embed_dim": embed_dim}, 32, POOLS, silent="first")  # type: ignore[arg-type]


def test_a_silent_text_cfg_is_the_mean_with_two_layers_as_in_open_clip():
    assert read() == {"pool": "mean", "head": "mlp", "head_width": 28}
    assert read(hf_pooler_type=None, hf_proj_type="linear") == {"pool": "first", "head": "linear"}
    assert read(32, hf_proj_type=None) == {"pool": "mean", "head": "none"}


def test_a_head_that_open_clip_cannot_build_is_refused():
    with pytest.raises(ConfigError, match=r"hf_proj_type must be linear or mlp, .*is 32, .* Got None and 24"):
        read(hf_proj_type=None)
    with pytest.raises(ConfigError, match=r"hf_proj_type must be linear or mlp.* Got 'conv' and 32"):
        read(32, hf_proj_type="conv")
    with pytest.raises(ConfigError, match=r"one of mean_pooler, cls_pooler\. Got 'max_pooler', which open_clip itself"):
        read(hf_pooler_type="max_pooler")


def test_a_head_is_written_as_it_is_read_or_refused():
    config = BertTowerConfig(width=32, heads=4, pool="dense", head="mlp", head_width=28)
    written = write_head(config, POOLS)  # type: ignore[arg-type]
    assert written == {"hf_pooler_type": "cls_pooler", "hf_proj_type": "mlp"}
    assert read(**written) == {"pool": "dense", "head": "mlp", "head_width": 28}
    for options in ({"head": "normed"}, {"pool": "first"}, {"head": "linear", "head_width": 0, "head_bias": True}):
        with pytest.raises(ConfigError, match="without a bias or a layer norm"):
            write_head(dataclasses.replace(config, **options), POOLS)  # type: ignore[arg-type]
    assert [row.theirs for row in head_rows(config)] == [("proj.0.weight",), ("proj.2.weight",)]
    assert head_rows(dataclasses.replace(config, head="none", head_width=0)) == ()
