import pytest
import torch

from diptych.data.tokenizer import Tokenizer
from diptych.errors import DataError
from diptych.eval.task_result import Scoring
from test_tasks import task


class Model:
    def __init__(self):
        self.tokenizer = Tokenizer.train(["a photo of a cat"] * 9, vocab_size=600, context_length=6)
        self.batches = []

    def encode_texts(self, texts, *, truncate=False):
        self.batches.append(list(texts))
        return torch.ones(len(self.tokenizer.encode(texts, truncate=truncate)), 2)


def test_captions_go_through_the_template_are_cut_and_counted():
    model = Model()
    scoring = Scoring(model, task(), ("a {}",), 2, 0)
    texts = ["cat", "photo of a photo of a cat", "photo"]
    assert scoring.texts(texts).shape == (3, 2)
    assert model.batches == [["a cat", "a photo of a photo of a cat"], ["a photo"]]
    assert scoring.too_long(texts) == 1


def test_captions_take_one_template():
    with pytest.raises(DataError, match=r"one prompt template. Got 2"):
        Scoring(Model(), task(), ("a {}", "the {}"), 2, 0).texts(["cat"])
