import dataclasses
import importlib.util
import math
from pathlib import Path

import pytest
import tokenizers
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from diptych.config import from_dict, to_dict
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.model.sentence_tower import SentenceTower, SentenceTowerConfig
from diptych.torch_runtime import generator

ROOT = Path(__file__).parent.parent
SMALL = SentenceTowerConfig(
    context_length=9, vocab_size=50, width=24, layers=2, heads=3, mlp_width=40, head_width=30, anchors=5
)
TOKENS = torch.tensor([[2, 7, 9, 30, 3, 0, 0], [2, 8, 8, 41, 12, 11, 3], [2, 3, 0, 0, 0, 0, 0]])  # 0 is padding


@pytest.fixture
def model() -> CLIP:
    return CLIP(dataclasses.replace(preset("tiny-vit"), text=SMALL), generator(0)).eval()


def tower_of(model: CLIP) -> SentenceTower:
    assert isinstance(model.text, SentenceTower)
    return model.text


def their_weights(twin: BertModel) -> dict[str, Tensor]:
    """BERT's state dict in our names; the type of a text is always the first one and joins the positions."""
    theirs = twin.state_dict()
    ours = {
        "token_embedding.weight": theirs["embeddings.word_embeddings.weight"],
        "position_embedding": theirs["embeddings.position_embeddings.weight"]
        + theirs["embeddings.token_type_embeddings.weight"][0],
        "ln_embedding.weight": theirs["embeddings.LayerNorm.weight"],
        "ln_embedding.bias": theirs["embeddings.LayerNorm.bias"],
    }
    for layer in range(2):
        for kind in ("weight", "bias"):
            block, their_block = f"blocks.{layer}", f"encoder.layer.{layer}"
            heads = [theirs[f"{their_block}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"{block}.attention.in_projection.{kind}"] = torch.cat(heads)
            for part, their_part in (
                ("attention.out_projection", "attention.output.dense"),
                ("ln_attention", "attention.output.LayerNorm"),
                ("mlp.up", "intermediate.dense"),
                ("mlp.down", "output.dense"),
                ("ln_mlp", "output.LayerNorm"),
            ):
                ours[f"{block}.{part}.{kind}"] = theirs[f"{their_block}.{their_part}.{kind}"]
    return ours


@torch.no_grad()
def test_a_trunk_equals_bert_with_its_mean_over_words(model):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(vocab_size=50, max_position_embeddings=9, initializer_range=0.3, **sizes)
    twin = BertModel(config, add_pooling_layer=False).eval()
    tower = tower_of(model)
    missing = tower.load_state_dict(their_weights(twin), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("head.") for name in missing.missing_keys)
    is_word = (TOKENS != 0).long()
    states = twin(input_ids=TOKENS, attention_mask=is_word).last_hidden_state
    mean = torch.stack([row[: is_word[number].sum()].mean(dim=0) for number, row in enumerate(states)])
    torch.testing.assert_close(tower.trunk(TOKENS), mean, rtol=1e-5, atol=1e-5)
    assert (mean[0] - mean[1]).abs().max() > 0.1  # the texts are told apart


@torch.no_grad()
def test_padding_changes_nothing_and_each_word_something(model):
    features = model.encode_text(TOKENS)
    longer = torch.cat([TOKENS, torch.zeros(3, 2).long()], dim=1)
    torch.testing.assert_close(model.encode_text(longer), features)
    alone = torch.cat([model.encode_text(row[row != 0][None]) for row in TOKENS])
    torch.testing.assert_close(alone, features)
    other = TOKENS.clone()
    other[1, 5] = 12  # behind the others: it is seen all the same
    assert (model.encode_text(other) - features)[1].abs().max() > 1e-3


@torch.no_grad()
def test_the_head_does_not_see_the_length_of_a_sentence_vector(model):
    head, vectors = tower_of(model).head, torch.randn(2, 24, generator=generator(1))
    torch.testing.assert_close(head(vectors), head(5 * vectors))


@torch.no_grad()
def test_the_memory_gives_the_place_of_the_nearest_words(model):
    memory = tower_of(model).head.memory
    assert memory is not None
    memory.query.weight.copy_(torch.eye(24))
    memory.query.bias.zero_()
    memory.keys.weight.copy_(torch.eye(5, 24) * math.log(4))  # a cosine of 1 rather than 0 counts four times as much
    memory.keys.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -100.0]))  # the last one, never
    memory.values.copy_(torch.eye(5, 32))
    place = memory(torch.eye(24)[:1])[0]
    expected = torch.tensor([4.0, 1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(place[:5], expected / expected.norm())
    assert place[5:].abs().max() == 0


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), text=SMALL)
    assert from_dict(CLIPConfig, to_dict(config)) == config
    assert (SentenceTowerConfig().mlp_width, SentenceTowerConfig().head_width) == (1536, 0)
    plain = dataclasses.replace(SMALL, head_width=0, anchors=0)
    names = CLIP(dataclasses.replace(config, text=plain)).text.state_dict()
    assert [name for name in names if name.startswith("head.")] == ["head.projection.weight", "head.projection.bias"]
    with pytest.raises(ConfigError, match=r"text\.heads must divide text\.width\. Got heads=5, width=24"):
        dataclasses.replace(SMALL, heads=5)
    with pytest.raises(ConfigError, match=r"text\.anchors must be at least 0.* Got -1"):
        dataclasses.replace(SMALL, anchors=-1)
    with pytest.raises(ConfigError, match=r"text\.pad_token_id must be one of 50 tokens\. Got 50"):
        dataclasses.replace(SMALL, pad_token_id=50)


def test_all_parameters_are_drawn_from_the_generator_and_reached_by_the_gradient(model):
    second = CLIP(model.config, generator(0))
    assert all(map(torch.equal, model.parameters(), second.parameters()))
    model.train().encode_text(TOKENS).sum().backward()
    missing = [name for name, parameter in tower_of(model).named_parameters() if parameter.grad is None]
    assert missing == []
    spread = tower_of(model).blocks[0].get_parameter("mlp.up.weight").std().item()
    assert spread == pytest.approx(0.02, rel=0.1)


def test_a_vocabulary_cut_to_english_gives_english_texts_the_same_vectors(tmp_path):
    pytest.importorskip("resvg_py")  # the recipe draws with it
    spec = importlib.util.spec_from_file_location("build_photo", ROOT / "recipes" / "build_photo.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    words = [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "я",
        "a",
        "##я",
        "cat",
        "##s",
        "é",
        "2",
        "!",
        "犬",
    ]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    whole = Tokenizer(backend, context_length=9)
    cut, kept = recipe.cut_vocabulary(whole)
    assert [words[n] for n in kept.tolist()] == [w for w in words if w not in ("[unused0]", "я", "##я", "犬")]
    texts = ["a cats 2!", "é cat", "", "dog [SEP]"]
    assert kept[cut.encode(texts)].equal(whole.encode(texts))  # so a table of the rows kept gives the same vectors
    assert cut.encode(["犬"])[0, :3].tolist() == [cut.start_token_id, 1, cut.end_token_id]  # an unknown word
    cut.save(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"][0] == [n for n in cut.encode(texts)[0].tolist() if n != cut.pad_token_id]
