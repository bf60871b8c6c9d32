"""The recipe of the text side that knows many languages: words, tokens, where a tower begins."""

import itertools
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import diptych
from diptych.classify import class_weights
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.tokenizer import Tokenizer
from diptych.model.sentence_tower import SentenceTower, SentenceTowerConfig
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from recipe_modules import imported


@pytest.fixture(scope="module")
def recipe() -> Iterator[types.ModuleType]:
    with imported("pictogram_languages") as module:
        yield module


@pytest.fixture
def tokenizer(recipe: types.ModuleType) -> Tokenizer:
    english = recipe.Words(names=[("cat", 0), ("catfish", 1), ("dog", 2)], tones=[], keywords=[("pet", (0, 2))])
    chinese = recipe.Words(names=[("猫", 0), ("鯰魚", 1), ("狗", 2)], tones=[], keywords=[])
    return recipe.learn_tokenizer({"en": english, "zh": chinese}, ["cat bowl"])


def pool(recipe: types.ModuleType, texts: list[tuple[str, int]], tokenizer: Tokenizer, **facts: Any) -> Any:
    return recipe.Pool.of(texts, tokenizer, **({"share": 1.0, "language": "en", "is_plain": True} | facts))


def test_a_beginning_of_a_word_is_marked_and_a_chinese_letter_stands_alone(recipe: types.ModuleType):
    split = recipe.rules({}, []).pre_tokenizer.pre_tokenize_str
    clean = recipe.rules({}, []).normalizer.normalize_str
    assert [word for word, _ in split(clean("  A Cat's  猫咪 くるま 42!"))] == [
        "▁a", "▁cat", "'", "s", "猫", "咪", "▁くるま", "▁4", "2", "!",
    ]  # fmt: skip


def test_a_script_that_was_never_learned_is_told_and_a_known_one_is_not(tokenizer: Tokenizer):
    assert tokenizer.unread(["CAT", "猫 狗"]) == []
    (whole, part) = tokenizer.unread(["ᚠᚢᚦ", "猫 ᚠᚢᚦ"])
    assert whole.is_whole
    assert (part.words, part.unknown) == (2, 1)


def test_the_same_words_make_the_same_tokenizer(recipe: types.ModuleType, tokenizer: Tokenizer):
    words = recipe.Words(names=[("cat", 0), ("catfish", 1), ("dog", 2)], tones=[], keywords=[("pet", (0, 2))])
    chinese = recipe.Words(names=[("猫", 0), ("鯰魚", 1), ("狗", 2)], tones=[], keywords=[])
    again = recipe.learn_tokenizer({"en": words, "zh": chinese}, ["cat bowl"])
    assert again.fingerprint() == tokenizer.fingerprint()


def test_a_tower_begins_as_a_bag_and_knows_words_of_one_emoji_alone(recipe: types.ModuleType, tokenizer: Tokenizer):
    places = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator(0)), dim=1)
    config = SentenceTowerConfig(
        context_length=32, vocab_size=tokenizer.vocab_size, width=8, layers=1, heads=2, head_width=8, anchors=3
    )
    with torch.device("cpu"):
        text = SentenceTower(config, 16)
    text.reset_parameters(generator(0))
    named = [("cat", 0), ("dog", 2), ("猫", 0), ("狗", 2), ("鯰魚", 1)]
    recipe.begin(text, [pool(recipe, named, tokenizer)], places)
    tokens = torch.from_numpy(tokenizer.encode([name for name, _ in named]))
    features, likeness = recipe.placed(text, recipe.as_bag(text, tokens))
    torch.testing.assert_close(features, text(tokens))  # the block changes nothing yet
    assert likeness.argmax(dim=1).tolist() == [row for _, row in named]


def test_texts_of_a_batch_are_about_as_long_as_one_another_and_come_by_their_shares(
    recipe: types.ModuleType, tokenizer: Tokenizer
):
    short = pool(recipe, [("cat", 0), ("dog", 2)], tokenizer, share=3.0)
    long = pool(recipe, [("cat cat cat cat cat cat", 1)], tokenizer, language="nl")
    course = recipe.Course(steps=1, learning_rate=1e-3, as_bag=0.0, english=1.0, others=1.0)
    alone = recipe.Course(steps=1, learning_rate=1e-3, as_bag=0.0, english=1.0, others=0.0)
    batches = recipe.batches([short, long], course, 0)
    drawn = [next(batches) for _ in range(recipe.AT_ONCE)]
    assert sum(int((rows == 1).sum()) for _, rows in drawn) / (recipe.AT_ONCE * recipe.BATCH_SIZE) == pytest.approx(
        0.25, abs=0.02
    )
    assert sum((tokens != 0).sum(dim=1).unique().numel() > 1 for tokens, _ in drawn) <= 2  # of three lengths
    again = next(recipe.batches([short, long], course, 0))
    assert np.array_equal(again[0].numpy(), drawn[0][0].numpy())
    assert all((rows != 1).all() for _, rows in itertools.islice(recipe.batches([short, long], alone, 0), 8))


def test_the_model_that_ships_is_about_as_sure_as_it_is_right(recipe: types.ModuleType):
    clip, data = diptych.load("diptych-pictogram"), read_labelled(data_path(HELD_OUT))
    assert clip.logit_scale == pytest.approx(recipe.LOGIT_SCALE)
    some = range(0, len(data), 4)
    features = clip.encode_images([data.image_bytes(row) for row in some])
    logits = clip.logit_scale * features @ class_weights(clip, data.classnames, ["{}"]).T
    right = (logits.argmax(axis=1) == np.array(data.targets)[list(some)]).mean()
    sure = torch.from_numpy(logits).softmax(dim=1).amax(dim=1).mean().item()
    assert sure == pytest.approx(right, abs=0.07)
