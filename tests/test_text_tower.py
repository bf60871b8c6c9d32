import dataclasses

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.blocks import Block
from diptych.model.text_tower import TextTower, TextTowerConfig
from diptych.torch_runtime import generator

END = 99  # the highest id, as in the released vocabulary
CONFIG = TextTowerConfig(context_length=10, vocab_size=100, width=64, layers=3, heads=4)


def make_tower(config: TextTowerConfig = CONFIG) -> TextTower:
    tower = TextTower(config, 32)
    tower.reset_parameters(generator(0))
    return tower


def test_tokens_after_the_end_change_nothing_and_those_before_do():
    tower = make_tower()
    text = torch.tensor([[98, 5, 6, 7, END, 0, 0, 0, 0, 0]])
    after, before = text.clone(), text.clone()
    after[0, 5:] = torch.tensor([1, 2, 3, 4, 5])
    before[0, 1] = 8
    torch.testing.assert_close(tower(after), tower(text), rtol=0, atol=1e-5)
    assert (tower(before) - tower(text)).abs().max() > 1e-3


def test_a_text_without_its_padding_has_the_same_feature():
    tower = make_tower()
    text = torch.tensor([[98, 5, 6, 7, END, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(tower(text[:, :5]), tower(text), rtol=0, atol=1e-5)


@pytest.mark.parametrize("end_token_id", [None, END])
def test_padding_with_the_end_token_is_padding(end_token_id):
    tower = make_tower(dataclasses.replace(CONFIG, end_token_id=end_token_id))
    zeros = torch.tensor([[98, 5, 6, END, 0, 0, 0]])
    torch.testing.assert_close(tower(torch.tensor([[98, 5, 6, END, END, END, END]])), tower(zeros), rtol=0, atol=1e-5)


def test_a_named_end_token_is_read_where_it_first_comes_though_others_are_higher():
    tower = make_tower(dataclasses.replace(CONFIG, end_token_id=2))
    text = torch.tensor([[98, 5, 2, 50, 2], [98, 5, 6, 7, 2]])
    feature = tower(text)
    torch.testing.assert_close(feature[:1], tower(text[:1, :3]), rtol=0, atol=1e-5)
    by_highest = make_tower()(text)  # the same weights, read at 98, the start
    assert (by_highest - feature).abs().amax(dim=1).min() > 1e-3
    torch.testing.assert_close(by_highest[0], by_highest[1], rtol=0, atol=1e-5)


def test_initial_spreads_follow_the_released_code():
    tower = make_tower()
    residual = 64**-0.5 * 6**-0.5  # three layers write to the residual stream twice each
    block = tower.blocks[2]
    assert isinstance(block, Block)
    for weight, std in (
        (tower.token_embedding.weight, 0.02),
        (tower.position_embedding, 0.01),
        (block.attention.in_projection.weight, 64**-0.5),
        (block.attention.out_projection.weight, residual),
        (block.mlp.up.weight, 128**-0.5),
        (block.mlp.down.weight, residual),
        (tower.projection, 64**-0.5),
    ):
        assert weight.std().item() == pytest.approx(std, rel=3 / weight.numel() ** 0.5)
    assert not block.attention.in_projection.bias.any()
    assert block.mlp.up.bias.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 5}, r"text\.heads must divide text\.width\. Got heads=5, width=64"),
        ({"context_length": 0}, r"text\.context_length must be at least 1"),
        ({"end_token_id": 100}, r"text\.end_token_id must be an id.*Got end_token_id=100, vocab_size=100"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **wrong)


@torch.no_grad()
def test_where_positions_are_not_causal_the_padding_counts_and_nothing_is_packed():
    config = TextTowerConfig(context_length=8, vocab_size=60, width=24, layers=2, heads=2, is_causal=False)
    tower = TextTower(config, 20)
    tower.reset_parameters(generator(0))
    tokens = torch.tensor([[57, 7, 59, 0, 0, 0, 0, 0], [57, 7, 59, 0, 0, 0, 0, 3]])
    first, second = tower(tokens)
    assert not torch.allclose(first, second, atol=1e-4)
    tower.packs = True
    torch.testing.assert_close(tower.train()(tokens), torch.stack([first, second]))
    assert config.reads_padding
    assert not dataclasses.replace(config, is_causal=True).reads_padding
