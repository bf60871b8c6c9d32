import dataclasses

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTower, CoCaTextTowerConfig, QueryPool
from diptych.torch_runtime import generator

IMAGE = CoCaImageTowerConfig(image_size=32, patch_size=8, width=48, layers=2, heads=4, queries=5, pool_heads=3)
TEXT = CoCaTextTowerConfig(context_length=8, vocab_size=60, width=32, layers=2, heads=2)
CONFIG = CLIPConfig(embed_dim=24, image=IMAGE, text=TEXT)


class Words:
    def __init__(self, pad_token_id: int = 0, context_length: int = 8) -> None:
        self.context_length, self.vocab_size, self.end_token_id = context_length, 60, 59
        self.pad_token_id = pad_token_id


@pytest.fixture
def model() -> CLIP:
    model = CLIP(CONFIG, generator(0)).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(1, number)))
    return model


@torch.no_grad()
def test_the_pool_is_torchs_attention_read_at_its_first_query(model):
    pool = model.image.pool
    assert isinstance(pool, QueryPool)
    plain = nn.MultiheadAttention(24, 3, kdim=48, vdim=48, batch_first=True)
    key, value = pool.key_value.weight.chunk(2)
    plain.load_state_dict(
        {
            "q_proj_weight": pool.query.weight,
            "k_proj_weight": key,
            "v_proj_weight": value,
            "in_proj_bias": pool.bias,
            "out_proj.weight": pool.out_projection.weight,
            "out_proj.bias": pool.out_projection.bias,
        }
    )
    x = torch.randn(2, 17, 48, generator=generator(2))
    seen = pool.ln_position(x)
    queries = pool.ln_query(pool.queries).expand(2, -1, -1)
    torch.testing.assert_close(pool(x), plain(queries, seen, seen)[0][:, 0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_text_is_read_with_one_place_of_its_padding_and_no_more(model):
    tokens = torch.tensor([[57, 7, 9, 59, 0, 0, 0, 0]])
    whole = model.encode_text(tokens)
    text = model.text
    assert isinstance(text, CoCaTextTower)

    def moves(place: int) -> bool:
        before = text.position_embedding[place].clone()
        text.position_embedding[place] += 1
        found = not torch.equal(model.encode_text(tokens), whole)
        text.position_embedding[place] = before
        return found

    # Start, two words, end and one place of padding; and the class token, at the last place, that asks.
    assert [moves(place) for place in range(9)] == [True] * 5 + [False] * 3 + [True]


@torch.no_grad()
def test_a_text_equals_its_plain_twin(model):
    text = model.text
    assert isinstance(text, CoCaTextTower)
    for row in ([57, 7, 9, 59, 0, 0, 0, 0], [57, 7, 0, 9, 5, 4, 3, 59]):  # padding within a text hides what follows it
        x = text.token_embedding(torch.tensor(row)) + text.position_embedding[:8]
        x = torch.cat([x, (text.class_embedding + text.position_embedding[8])[None]])
        mask = torch.full((9, 9), -torch.inf).triu(1)
        mask[:, [place + 1 for place, token in enumerate(row) if token == 0]] = -torch.inf
        for block in text.blocks:
            plain = nn.MultiheadAttention(32, 2, batch_first=True)
            attention = block.attention
            plain.load_state_dict(
                {
                    "in_proj_weight": attention.in_projection.weight,
                    "in_proj_bias": attention.in_projection.bias,
                    "out_proj.weight": attention.out_projection.weight,
                    "out_proj.bias": attention.out_projection.bias,
                }
            )
            y = block.ln_attention(x)
            x = x + plain(y, y, y, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_mlp(x))
        feature = nn.functional.normalize(text.ln_final(x[-1]) @ text.projection, dim=0)
        torch.testing.assert_close(model.encode_text(torch.tensor([row]))[0], feature, rtol=0, atol=1e-5)


def test_a_tokenizer_that_pads_otherwise_is_refused():
    TEXT.check_tokenizer(Words())
    with pytest.raises(ConfigError, match=r"the same pad token\. Got 0 and 59"):
        TEXT.check_tokenizer(Words(pad_token_id=59))
    with pytest.raises(ConfigError, match="must pad to the context length"):
        TEXT.check_tokenizer(Words(context_length=7))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"pool_heads must divide embed_dim\. Got pool_heads=3, embed_dim=20"):
        CLIP(CLIPConfig(embed_dim=20, image=IMAGE, text=TEXT))
    with pytest.raises(ConfigError, match="pad_token_id must be an id of the vocabulary"):
        dataclasses.replace(TEXT, pad_token_id=60)
    with pytest.raises(ConfigError, match="patch_size must divide"):
        dataclasses.replace(IMAGE, image_size=33)
    with pytest.raises(ConfigError, match=r"image\.queries must be at least 1"):
        dataclasses.replace(IMAGE, queries=0)
