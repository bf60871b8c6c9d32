import dataclasses

import pytest
import torch
from transformers import M2M100Config, M2M100Model

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.nllb_tower import NLLBTowerConfig
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.weights.adapters import Naming
from diptych.weights.open_clip_nllb import NLLB
from hf_standins import drawn

SMALL = NLLBTowerConfig(
    context_length=9, vocab_size=50, width=24, layers=2, heads=3, mlp_width=40, pool="mean", head="none"
)
TOKENS = torch.tensor([[4, 7, 9, 30, 2, 1, 1], [4, 8, 8, 41, 12, 11, 2], [5, 2, 1, 1, 1, 1, 1]])  # 1 is padding


@torch.no_grad()
def test_a_tower_equals_transformers():
    sizes = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 40, "vocab_size": 50}
    small = {"decoder_layers": 1, "decoder_ffn_dim": 8, "decoder_attention_heads": 3, "max_position_embeddings": 12}
    twin = drawn(M2M100Model(M2M100Config(**sizes, **small, pad_token_id=1)).encoder)
    is_word = (TOKENS != 1).long()
    states = twin(input_ids=TOKENS, attention_mask=is_word).last_hidden_state
    mean = torch.stack([row[: is_word[n].sum()].mean(dim=0) for n, row in enumerate(states)])
    weights = {f"transformer.{name}": tensor for name, tensor in twin.state_dict().items()}
    for pool, expected in (("mean", mean), ("first", states[:, 0])):
        config = dataclasses.replace(SMALL, pool=pool)
        tower = config.build(24).eval()
        naming = Naming(rows=NLLB.rows(config))
        ours = naming.to_ours(weights, [f"text.{name}" for name in tower.state_dict()])
        assert set(naming.from_ours(ours)) == set(weights)
        tower.load_state_dict({name.removeprefix("text."): tensor for name, tensor in ours.items()})
        torch.testing.assert_close(tower(TOKENS), expected, rtol=1e-5, atol=1e-5)
    assert (states[0, 0] - states[1, 0]).abs().max() > 0.1  # the texts are told apart


@torch.no_grad()
def test_padding_changes_nothing_and_the_language_something():
    config = dataclasses.replace(preset("tiny-vit"), text=dataclasses.replace(SMALL, head="linear"))
    model = CLIP(config, generator(0)).eval()
    features = model.encode_text(TOKENS)
    longer = torch.cat([TOKENS, torch.ones(3, 2).long()], dim=1)
    torch.testing.assert_close(model.encode_text(longer), features)
    other = torch.cat([torch.full((3, 1), 6), TOKENS[:, 1:]], dim=1)
    assert (model.encode_text(other) - features).abs().max() > 1e-3


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), text=dataclasses.replace(SMALL, head="linear"))
    assert from_dict(CLIPConfig, to_dict(config)) == config
    for options, message in (
        ({"width": 27}, r"text\.width must be even and at least 4.* Got 27"),
        ({"pad_token_id": 50}, r"text\.pad_token_id must be one of 50 tokens\. Got 50"),
        ({"heads": 5}, r"text\.heads must divide text\.width"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(SMALL, **options)
    with pytest.raises(ConfigError, match=r"embed_dim must be text\.width=24 where text\.head is none\. Got 32"):
        CLIP(dataclasses.replace(config, text=SMALL))


def test_all_parameters_are_drawn_from_the_generator():
    config = dataclasses.replace(preset("tiny-vit"), text=dataclasses.replace(SMALL, head="linear"))
    first, second = CLIP(config, generator(0)), CLIP(config, generator(0))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert first.text.get_parameter("token_embedding.weight").std().item() == pytest.approx(24**-0.5, rel=0.1)
