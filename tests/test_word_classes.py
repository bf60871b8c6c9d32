"""Words as classes: counts and weights by hand, each loss against a plain twin, and the rows as a classifier."""

import math

import pytest
import torch

from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.train.objectives import BagOfWords, Classification
from diptych.train.seen import Seen
from diptych.train.word_classes import WordCounts, WordHead, count_words, words_in
from learning import counts, learner_of, seen_of

TOKENS = torch.tensor([[1, 7, 9, 7, 2, 0], [1, 11, 2, 0, 0, 0], [1, 2, 0, 0, 0, 0], [1, 30, 31, 32, 33, 2]])


def head_of(objective: BagOfWords | Classification) -> WordHead:
    model = CLIP(preset("tiny-vit"), generator(0)).double()
    head = learner_of(model, [objective]).heads[objective.kind]
    assert isinstance(head, WordHead)
    return head


def classification_twin(head: WordHead, seen: Seen) -> list[float]:
    """SuperClass, equation 2 and 3, word by word."""
    assert head.rows is not None
    losses = []
    for feature, tokens in zip(seen.image_features.tolist(), seen.tokens.tolist(), strict=True):
        logits = [
            seen.logit_scale.item() * sum(a * b for a, b in zip(feature, row, strict=True)) + bias
            for row, bias in zip(head.rows.tolist(), head.bias.tolist(), strict=True)
        ]
        top = max(logits)
        log_sum = top + math.log(sum(math.exp(logit - top) for logit in logits))
        words = {word: head.weights[word].item() for word in set(tokens)}
        total = sum(words.values())
        losses.append(sum(weight / total * (log_sum - logits[word]) for word, weight in words.items() if weight))
    return losses


def bag_of_words_twin(head: WordHead, seen: Seen) -> list[float]:
    """A logistic loss for each word of the vocabulary, times its weight."""
    assert head.rows is not None
    losses = []
    for feature, tokens in zip(seen.image_features.tolist(), seen.tokens.tolist(), strict=True):
        loss = 0.0
        for word, (row, bias) in enumerate(zip(head.rows.tolist(), head.bias.tolist(), strict=True)):
            logit = seen.logit_scale.item() * sum(a * b for a, b in zip(feature, row, strict=True)) + bias
            chance = 1 / (1 + math.exp(-logit))
            loss -= head.weights[word].item() * math.log(chance if word in tokens else 1 - chance)
        losses.append(loss)
    return losses


@pytest.mark.parametrize(
    ("objective", "twin"), [(Classification(), classification_twin), (BagOfWords(), bag_of_words_twin)]
)
def test_the_loss_of_each_caption_equals_its_plain_twin(objective, twin):
    head = head_of(objective)
    seen = seen_of(4, width=32, tokens=TOKENS)
    losses = head(seen)
    assert losses.tolist() == pytest.approx(twin(head, seen), rel=1e-9)
    assert not torch.allclose(losses[0], losses[1])


def test_a_caption_without_a_word_that_counts_teaches_no_class():
    seen = seen_of(4, width=32, tokens=TOKENS)
    head = head_of(Classification())
    head.weights[2] = 0  # the end token; start and padding have none as it is
    assert head(seen)[2] == 0
    assert head(seen)[1] > 1


def test_weights_and_first_chances_as_worked_by_hand():
    found = WordCounts(9, torch.tensor([9, 0, 4]))
    assert found.weights().tolist() == pytest.approx([0, math.log(10), math.log(2)])
    assert found.log_odds().tolist() == pytest.approx([math.log(9.5 / 0.5), math.log(0.5 / 9.5), math.log(4.5 / 5.5)])


def test_words_are_counted_once_a_text_and_what_is_in_all_texts_counts_nothing():
    texts = ["red red kite", "red boat", "blue boat"]
    tokenizer = Tokenizer.train(texts * 3, vocab_size=530, context_length=8)
    found = count_words(iter(texts), tokenizer, vocab_size=540)
    assert found.texts == 3

    def of(text: str) -> int:
        (word,) = tokenizer.encode([text])[0, 1:2].tolist()
        return int(found.with_word[word])

    assert (of("red"), of("boat"), of("kite")) == (2, 2, 1)
    around = [tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id]
    assert found.weights()[around].tolist() == [0, 0, 0]
    assert found.with_word[530:].tolist() == [0] * 10


def test_counting_goes_on_over_batches(monkeypatch):
    tokenizer = Tokenizer.train(["red kite"] * 3, vocab_size=530, context_length=8)
    whole = count_words(["red kite"] * 5, tokenizer, vocab_size=530)
    monkeypatch.setattr("diptych.train.word_classes._TEXTS_AT_ONCE", 2)
    parts = count_words(["red kite"] * 5, tokenizer, vocab_size=530)
    assert parts.texts == whole.texts == 5
    assert torch.equal(parts.with_word, whole.with_word)


def test_words_in_a_text_are_found_once_however_often_they_come():
    assert words_in(torch.tensor([[3, 1, 3], [0, 0, 0]]), 5).long().tolist() == [[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]]


def test_the_rows_are_a_classifier_whose_names_are_weighted_means():
    head = head_of(Classification())
    seen = seen_of(4, width=32, tokens=TOKENS)
    scores = head.scores(seen, torch.tensor([[1, 7, 9, 2, 0], [1, 11, 2, 0, 0]]))
    assert head.rows is not None
    weights = counts(512).weights().double()
    name = weights[7] * head.rows[7] + weights[9] * head.rows[9] + weights[2] * head.rows[2]
    by_hand = seen.image_features @ name / name.norm()
    torch.testing.assert_close(scores[:, 0], by_hand)
    assert scores.shape == (4, 2)
