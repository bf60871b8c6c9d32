import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from torch.nn.functional import normalize

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import recall_at_k
from diptych.measures.retrieval import retrieval


def features(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_recall_both_ways_is_worked_by_hand():
    pictures = torch.eye(3)
    # Texts 0 and 1 describe picture 0; text 1 looks like picture 1. Text 2 is picture 1's, text 3 picture 2's.
    texts = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.7, 0.6], [0.0, 0.5, 0.4]])
    result = retrieval(pictures, texts, torch.tensor([0, 0, 1, 2]), ks=(1, 2, 3, 4))
    # Picture 0: its text 0 is first. Picture 1: text 1 goes before its text 2. Picture 2: text 2 before its text 3.
    assert result.image_to_text.ranks.tolist() == [1, 2, 2]
    assert result.image_to_text.recall == pytest.approx({1: 1 / 3, 2: 1, 3: 1, 4: 1})
    # Text 0: first. Text 1: second behind picture 1. Text 2: first. Text 3: second.
    assert result.text_to_image.ranks.tolist() == [1, 2, 1, 2]
    assert result.text_to_image.recall == {1: 0.5, 2: 1, 3: 1}  # no 4: there are three pictures
    assert (result.image_to_text.median_rank, result.text_to_image.median_rank) == (2, 1.5)


def test_it_equals_recall_on_the_whole_matrix_for_any_chunk():
    images, texts, owners = features(40, 0), features(90, 1), torch.arange(90) % 40
    scores, is_match = images @ texts.T, torch.arange(40)[:, None] == owners
    for chunk in (1, 7, 1000, None):
        result = retrieval(images, texts, owners, chunk=chunk)
        for k in (1, 5, 10):
            assert result.image_to_text.recall[k] == recall_at_k(scores, is_match, k)
            assert result.text_to_image.recall[k] == recall_at_k(scores.T, is_match.T, k)


def test_features_that_are_all_alike_find_nothing():
    result = retrieval(torch.ones(5, 2), torch.ones(5, 2), torch.arange(5), ks=(1, 4))
    assert set(result.image_to_text.recall.values()) | set(result.text_to_image.recall.values()) == {0}
    assert result.image_to_text.median_rank == 5


def test_intervals_draw_a_picture_with_all_its_captions():
    pictures = features(60, 0)
    texts = normalize(pictures + 0.5 * features(60, 1), dim=1)
    once = retrieval(pictures, texts, torch.arange(60), ks=(1,)).text_to_image
    five = retrieval(pictures, texts.repeat(5, 1), torch.arange(60).repeat(5), ks=(1,)).text_to_image
    assert five.recall == once.recall
    widths = [ranking.intervals[1].high - ranking.intervals[1].low for ranking in (once, five)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)  # five times the captions say no more


@hypothesis.settings(max_examples=25, deadline=None)
@given(strategies.integers(2, 12), strategies.integers(0, 5), strategies.randoms(use_true_random=False))
def test_pictures_and_texts_may_come_in_any_order(pictures: int, more: int, random):
    images, texts = features(pictures, 0), features(pictures + more, 1)
    owners = torch.tensor([*range(pictures), *(random.randrange(pictures) for _ in range(more))])
    by_picture, by_text = (torch.tensor(random.sample(range(n), n)) for n in (pictures, pictures + more))
    plain = retrieval(images, texts, owners)
    mixed = retrieval(images[by_picture], texts[by_text], by_picture.argsort()[owners[by_text]])
    assert mixed.image_to_text.ranks.tolist() == plain.image_to_text.ranks[by_picture].tolist()
    assert mixed.text_to_image.ranks.tolist() == plain.text_to_image.ranks[by_text].tolist()


def test_json_has_numbers_and_no_arrays():
    values = retrieval(features(6, 0), features(6, 1), torch.arange(6)).to_dict()
    assert set(values) == {"image_to_text", "text_to_image"}
    assert values["image_to_text"]["recall"].keys() == {"1", "5"}
    assert values["image_to_text"]["queries"] == values["image_to_text"]["candidates"] == 6
    assert 0 <= values["text_to_image"]["intervals"]["5"]["low"] <= values["text_to_image"]["recall"]["5"]


@pytest.mark.parametrize(
    ("texts", "owners", "error", "sentence"),
    [
        (torch.ones(3, 2), torch.arange(2), ShapeError, r"text_features|\[3, 2\] and image_of_text \[2\]"),
        (torch.ones(2, 3), torch.arange(2), ShapeError, r"\[2, 2\], text_features \[2, 3\]"),
        (torch.ones(2, 2), torch.tensor([0, 0]), DataError, "1 of 2 have none"),
        (torch.ones(2, 2), torch.tensor([0, 2]), DataError, "rows of the 2 pictures"),
        (torch.ones(0, 2), torch.tensor([], dtype=torch.int64), DataError, "Got 0 texts"),
    ],
)
def test_misfits_are_named(texts: torch.Tensor, owners: torch.Tensor, error, sentence):
    with pytest.raises(error, match=sentence):
        retrieval(torch.ones(2, 2), texts, owners)


def test_memory_is_that_of_a_chunk(monkeypatch: pytest.MonkeyPatch):
    seen = []
    from diptych.measures import retrieval as module

    plain = module.best_match_rank
    monkeypatch.setattr(module, "best_match_rank", lambda s, m: (seen.append(s.numel()), plain(s, m))[1])
    retrieval(features(50, 0), features(50, 1), torch.arange(50), chunk=8)
    assert max(seen) == 8 * 50
    assert np.sum(seen) == 2 * 50 * 50
