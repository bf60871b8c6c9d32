import dataclasses
import importlib
import math
import os
import subprocess
import sys
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


@torch.no_grad()
def test_a_memory_may_compare_fewer_numbers_than_the_tower_is_wide():
    narrow = dataclasses.replace(SMALL, anchor_width=7)
    model = CLIP(dataclasses.replace(preset("tiny-vit"), text=narrow), generator(0)).eval()
    memory = tower_of(model).head.memory
    assert memory is not None
    assert (memory.query.weight.shape, memory.keys.weight.shape) == ((7, 24), (5, 7))
    text = torch.nn.functional.normalize(torch.randn(3, 24, generator=generator(1)), dim=1)
    asked = text @ memory.query.weight.T + memory.query.bias
    shares = (asked / asked.norm(dim=1, keepdim=True) @ memory.keys.weight.T + memory.keys.bias).softmax(dim=1)
    places = shares @ memory.values
    torch.testing.assert_close(memory(text), places / places.norm(dim=1, keepdim=True))
    saved = (SMALL.cost(32, element=4).forward - narrow.cost(32, element=4).forward) / 2
    assert saved == (24 - 7) * (24 + 5)  # products of the query, and of the keys


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
    with pytest.raises(ConfigError, match=r"text\.anchor_width must be at least 0.* Got -2"):
        dataclasses.replace(SMALL, anchor_width=-2)
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


def test_a_vocabulary_cut_to_english_gives_english_texts_the_same_vectors(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")  # the recipe draws with it
    monkeypatch.syspath_prepend(ROOT / "recipes")
    recipe = importlib.import_module("build_photo")
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
    same = kept[cut.encode(texts)].tolist() == whole.encode(texts).tolist()
    assert same  # so a table of the rows kept gives the same vectors
    assert cut.encode(["犬"])[0, :3].tolist() == [cut.start_token_id, 1, cut.end_token_id]  # an unknown word
    cut.save(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"][0] == [n for n in cut.encode(texts)[0].tolist() if n != cut.pad_token_id]


NOUNS = """  1 This is
  2 the licence.
00000100 03 n 01 thing 0 000 | what there is
00001930 03 n 01 physical_entity 0 001 @ 00000100 n 0000 | an entity that takes up room
00000200 03 n 01 person 0 001 @ 00001930 n 0000 | a human being
00000300 06 n 02 clothing 0 apparel 0 001 @ 00001930 n 0000 | a covering worn by a person
00000400 06 n 01 coat 0 001 @ 00000300 n 0000 | an outer garment with sleeves; "she wore a coat"
00000500 05 n 01 bird 0 001 @ 00001930 n 0000 | an animal with wings
00000600 05 n 01 hen 0 002 @ 00000500 n 0000 %p 00000800 n 0000 | a bird with a comb
00000700 05 n 01 grouse 0 001 @ 00000500 n 0000 | a bird with a comb
00000800 08 n 01 comb 0 001 @ 00001930 n 0000 | a fleshy red crest
00000900 18 n 01 nurse 0 001 @ 00000200 n 0000 | a person who cares
00001000 18 n 01 Ada 0 001 @i 00000200 n 0000 | a woman
"""


@pytest.fixture
def memory_recipe(tmp_path, monkeypatch):
    """recipes/photo_memory.py on a WordNet of a few words."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    recipe = importlib.import_module("photo_memory")
    monkeypatch.setattr(recipe, "WORDNET", tmp_path)
    (tmp_path / "data.noun").write_text(NOUNS)
    lines = [line.split() for line in NOUNS.splitlines()[2:]]
    words = sorted((word, fields[0]) for fields in lines for word in fields[4 : 4 + 2 * int(fields[3]) : 2])
    index = [f"{word.lower()} n 1 1 @ 1 {int(word == 'nurse')} {id_}" for word, id_ in words]
    (tmp_path / "index.noun").write_text("\n".join(index))
    (tmp_path / "cntlist.rev").write_text("nurse%1:18:00:: 1 3\nrun%2:38:00:: 1 9\n")
    return recipe


def test_words_of_the_photo_model_get_their_places_by_rule(memory_recipe):
    tree = memory_recipe.Tree(memory_recipe.read_wordnet(), ["00000400", "00000600"])  # two classes: coat, hen
    assert tree.above["00000600"] == ["00000600", "00000500", "00001930", "00000100"]
    assert memory_recipe.wordnet_licence() == "This is\nthe licence.\n"
    assert tree.wordnet.synsets["00000400"].gloss == "an outer garment with sleeves"  # without the example
    entries = memory_recipe.choose_words(tree, {"comb"})
    chosen = [word for word, _ in entries]
    assert chosen == ["physical entity", "clothing", "apparel", "coat", "bird", "hen", "grouse", "comb", "nurse"]
    assert memory_recipe.choose_words(tree, {"comb"}, most=7)[-1] == ("comb", "00000800")  # before the undrawn
    drawn = {"comb": torch.tensor([0.0, 0.0, 1.0]), "bird": torch.tensor([0.0, 0.0, 1.0])}
    places = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def encode(texts):  # as if all texts were about equally alike
        return torch.nn.functional.normalize(torch.stack([torch.tensor([1.0, len(text) % 7, 3.0]) for text in texts]))

    words = memory_recipe.find_places(tree, entries, encode, encode, places, drawn)
    place = dict(zip(words.words, words.places, strict=True))
    assert torch.equal(place["coat"], places[0])
    assert place["grouse"][1] > place["grouse"][0]  # it is told as the hen is
    assert place["nurse"][0] > place["nurse"][1]  # a person is seen in clothes
    assert 0.5 < place["a drawing of a bird"][2] < 0.8  # 0.8 beside 1 where the text says that it is drawn
    assert 0.2 < place["bird"][2] < 0.3  # and 0.3 beside 1 where a class tells what it looks like
    assert torch.equal(place["comb"], place["a drawing of a comb"])  # no class tells of it
    assert place["comb"][2] > 0.5
    assert place["hen"][2] == place["grouse"][2] == 0
    assert len(words.words) == len(words.ids) == len(words.bonus) == len(entries) + 2
    bonus = dict(zip(words.words, words.bonus.tolist(), strict=True))
    assert (bonus["hen"], bonus["nurse"]) == (0, -1.5)
    assert memory_recipe.compose_sentences(tree, words) == memory_recipe.compose_sentences(tree, words)


def test_the_words_of_the_photo_model_do_not_hang_on_the_order_of_sets(memory_recipe, tmp_path):
    script = (
        "import sys, pathlib, photo_memory as m; m.WORDNET = pathlib.Path(sys.argv[1])\n"
        "tree = m.Tree(m.read_wordnet(), ['00000400', '00000600']); words = m.choose_words(tree, {'comb', 'hen'})\n"
        "rows = [m.tree_vectors(tree, [i for _, i in words]), m.word_vectors(tree, [i for _, i in words])]\n"
        "print(words, [row.tolist() for row in rows])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT / 'recipes'}{os.pathsep}{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]
    assert "grouse" in said[0]
    assert said[0] == said[1]
