import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, XLMRobertaConfig, XLMRobertaModel

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTower, BertTowerConfig
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.weights.adapters import Naming
from diptych.weights.hf_bert import bert_rows

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
BERT = BertTowerConfig(
    context_length=9, vocab_size=50, width=24, layers=2, heads=3, mlp_width=40, positions=12, pool="mean", head="none"
)
ROBERTA = dataclasses.replace(BERT, pad_token_id=1, places="words", token_types=1, layer_norm_eps=1e-5, positions=14)
TOKENS = torch.tensor([[2, 7, 9, 30, 3, 0, 0], [2, 8, 8, 41, 12, 11, 3], [2, 3, 0, 0, 0, 0, 0]])  # 0 is padding


def twins(kind: str):
    shared = SIZES | {"vocab_size": 50, "initializer_range": 0.3}
    if kind == "bert":
        return BertModel(BertConfig(max_position_embeddings=12, **shared)).eval(), BERT, TOKENS
    of = (RobertaConfig, RobertaModel) if kind == "roberta" else (XLMRobertaConfig, XLMRobertaModel)
    tokens = torch.where(TOKENS == 0, 1, TOKENS)
    sizes = shared | {"max_position_embeddings": 14, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
    return of[1](of[0](**sizes)).eval(), ROBERTA, tokens


def tower_with(weights: dict[str, Tensor], config: BertTowerConfig) -> BertTower:
    tower = config.build(24).eval()
    names = [f"text.{name}" for name in tower.state_dict()]
    naming = Naming(rows=bert_rows(config, "", pooler="pooler.dense"))
    ours = naming.to_ours(weights, names)
    assert set(naming.from_ours(ours)) == {name for name in weights if config.pool == "dense" or "pooler" not in name}
    tower.load_state_dict({name.removeprefix("text."): tensor for name, tensor in ours.items()})
    return tower


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@torch.no_grad()
def test_a_tower_equals_transformers(kind):
    twin, config, tokens = twins(kind)
    is_word = (tokens != config.pad_token_id).long()
    output = twin(input_ids=tokens, attention_mask=is_word)
    states = output.last_hidden_state
    for pool, expected in (
        ("mean", torch.stack([row[: is_word[n].sum()].mean(dim=0) for n, row in enumerate(states)])),
        ("first", states[:, 0]),
        ("dense", output.pooler_output),
    ):
        tower = tower_with(twin.state_dict(), dataclasses.replace(config, pool=pool))
        torch.testing.assert_close(tower(tokens), expected, rtol=1e-5, atol=1e-5)
    assert (states[0, 0] - states[1, 0]).abs().max() > 0.1  # the texts are told apart


@torch.no_grad()
def test_a_pad_token_within_a_text_is_neither_seen_nor_counted():
    twin, config, tokens = twins("roberta")
    tokens[1, 3] = 1
    is_word = (tokens != 1).long()
    states = twin(input_ids=tokens, attention_mask=is_word).last_hidden_state
    mean = (states * is_word[..., None]).sum(dim=1) / is_word.sum(dim=1, keepdim=True)
    torch.testing.assert_close(tower_with(twin.state_dict(), config)(tokens), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [BERT, ROBERTA])
@torch.no_grad()
def test_padding_changes_nothing(config):
    text = dataclasses.replace(config, head="mlp", head_width=28)
    model = CLIP(dataclasses.replace(preset("tiny-vit"), text=text), generator(0)).eval()
    tokens = torch.where(TOKENS == 0, config.pad_token_id, TOKENS)
    features = model.encode_text(tokens)
    longer = torch.cat([tokens, torch.full((3, 2), config.pad_token_id)], dim=1)
    torch.testing.assert_close(model.encode_text(longer), features)


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), text=dataclasses.replace(BERT, head="linear"))
    assert from_dict(CLIPConfig, to_dict(config)) == config
    for options, message in (
        ({"heads": 5}, r"text\.heads must divide text\.width\. Got heads=5, width=24"),
        ({"pad_token_id": 50}, r"text\.pad_token_id must be one of 50 tokens\. Got 50"),
        ({"token_types": -1}, r"text\.token_types must be at least 0.* Got -1"),
        ({"places": "letters"}, r"text\.places: .*letters"),
        ({"context_length": 13}, r"text\.context_length must be at most 12, .*positions=12.* Got 13"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(BERT, **options)
    with pytest.raises(ConfigError, match=r"at most 12, .*positions=14.* Got 13"):
        dataclasses.replace(ROBERTA, context_length=13)  # rows 0 and 1 are no positions of words
    with pytest.raises(ConfigError, match=r"embed_dim must be text\.width=24 where text\.head is none\. Got 32"):
        CLIP(dataclasses.replace(preset("tiny-vit"), text=BERT))


def test_all_parameters_are_drawn_from_the_generator():
    text = dataclasses.replace(BERT, head="normed", head_width=28, pool="dense")
    config = dataclasses.replace(preset("tiny-vit"), text=text)
    first, second = CLIP(config, generator(0)), CLIP(config, generator(0))
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert first.text.get_parameter("blocks.0.mlp.up.weight").std().item() == pytest.approx(0.02, rel=0.1)
    assert first.text.get_parameter("position_embedding").std().item() == pytest.approx(0.02, rel=0.2)
