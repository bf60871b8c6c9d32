import dataclasses

import pytest
import torch
import torch.nn.functional as F

from diptych.errors import ConfigError
from diptych.model.bert_tower import BertTowerConfig
from diptych.model.text_head import TextHead, cut_padding
from diptych.torch_runtime import generator

SIZES = BertTowerConfig(width=6, heads=2, layers=1, vocab_size=9, layer_norm_eps=1e-5)
WORDS = torch.tensor([[True, True, False, False], [True, True, True, True]])
X = torch.randn(2, 4, 6, generator=generator(0))


def head(**options) -> TextHead:
    module = TextHead(dataclasses.replace(SIZES, **options), 5)
    for number, parameter in enumerate(module.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator(number))
    return module


@torch.no_grad()
def test_pools_are_the_mean_of_words_the_first_position_and_that_through_a_layer():
    mean = torch.stack([X[0, :2].mean(dim=0), X[1].mean(dim=0)])
    torch.testing.assert_close(head(pool="mean", head="none")(X, WORDS), mean)
    assert head(pool="first", head="none")(X, WORDS).equal(X[:, 0])
    dense = head(pool="dense", head="none")
    assert dense.dense is not None
    torch.testing.assert_close(dense(X, WORDS), torch.tanh(X[:, 0] @ dense.dense.weight.T + dense.dense.bias))


@torch.no_grad()
def test_heads_are_one_layer_or_two_with_gelu_or_with_a_layer_norm_before():
    shapes = {
        "linear": {"projection.weight": (5, 6)},
        "mlp": {"up.weight": (7, 6), "projection.weight": (5, 7)},
        "normed": {
            "ln.weight": (6,),
            "ln.bias": (6,),
            "up.weight": (7, 6),
            "up.bias": (7,),
            "projection.weight": (5, 7),
        },
    }
    for name, expected in shapes.items():
        module = head(head=name, head_width=0 if name == "linear" else 7)
        weights = module.state_dict()
        assert {key: tuple(value.shape) for key, value in weights.items()} == expected
        y = X[:, 0]
        if name == "normed":
            y = F.layer_norm(y, (6,), weights["ln.weight"], weights["ln.bias"], 1e-5)
            y = y @ weights["up.weight"].T + weights["up.bias"]
        if name == "mlp":
            y = F.gelu(y @ weights["up.weight"].T)
        torch.testing.assert_close(module(X, WORDS), y @ weights["projection.weight"].T)
    assert head(head_bias=True).state_dict()["projection.bias"].shape == (5,)


def test_a_head_that_there_is_not_is_refused():
    for options, message in (
        ({"pool": "max"}, r"text\.pool: .*max.*mean"),
        ({"head": "tanh"}, r"text\.head: .*tanh"),
        ({"head": "mlp"}, r"text\.head_width must be at least 1\. Got 0"),
        (
            {"head_width": 8},
            r"head_width is of the heads mlp and normed.* Got head_width=8, .* with linear",
        ),
        ({"head": "none", "head_bias": True}, r"head_bias of linear.* with none"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(SIZES, **options)


def test_columns_that_are_padding_in_all_texts_are_cut_and_no_others():
    tokens = torch.tensor([[5, 0, 6, 0, 0], [7, 8, 0, 0, 0]])
    assert cut_padding(tokens, 0).tolist() == [[5, 0, 6], [7, 8, 0]]
    assert cut_padding(tokens, 1).equal(tokens)
    assert cut_padding(torch.zeros(2, 4).long(), 0).shape == (2, 1)  # a text of padding alone is one of nothing
    assert cut_padding(torch.zeros(0, 4).long(), 0).shape == (0, 4)
