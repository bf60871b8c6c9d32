import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import ShapeError
from diptych.train import loss as loss_module
from diptych.train.loss import clip_loss


def pair_by_pair_loss(images: Tensor, texts: Tensor, scale: Tensor, text_ids: list[int] | None = None) -> Tensor:
    """The plain twin: for each row and each column, the mean of -log p over its positives."""
    ids = range(len(images)) if text_ids is None else text_ids
    terms = []
    for rows, columns in ((images, texts), (texts, images)):
        for i, row in enumerate(rows):
            weights = [torch.exp(scale * row.dot(column)) for column in columns]
            positives = [j for j in range(len(columns)) if ids[j] == ids[i]]
            log_shares = [torch.log(weights[j] / sum(weights)) for j in positives]
            terms.append(-sum(log_shares) / len(positives))
    return sum(terms) / len(terms)


@pytest.fixture
def features() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64)) for _ in range(2))
    return images.requires_grad_(), texts.requires_grad_(), torch.tensor(7.0, dtype=torch.float64, requires_grad=True)


def test_two_pairs_worked_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # the first is wrong, the second right
    # Times 2, the logits are [[0, 0], [2, 2]]: rows give log 2 each; columns give log(e^0 + e^2) - 0 and - 2.
    per_image = math.log(2)
    per_text = math.log(1 + math.exp(2)) - 1
    assert clip_loss(images, texts, 2.0).item() == pytest.approx((per_image + per_text) / 2)


def test_chance_is_log_of_the_batch_with_or_without_positives(features):
    images, texts, _ = features
    for text_ids in (None, torch.tensor([0, 0, 1, 2, 2, 2])):
        assert clip_loss(images, texts, 0.0, text_ids=text_ids).item() == pytest.approx(math.log(6))


def test_the_least_of_rows_with_n_positives_is_log_n():
    features = torch.eye(2).repeat_interleave(3, dim=0)  # two texts, three times each
    text_ids = torch.tensor([0, 0, 0, 1, 1, 1])
    assert clip_loss(features, features, 100.0, text_ids=text_ids).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("text_ids", [None, [0, 1, 2, 3, 4, 5], [4, 1, 4, 2, 1, 4], [3, 3, 3, 3, 3, 3]])
def test_loss_and_gradients_equal_those_of_the_plain_twin(features, text_ids):
    loss = clip_loss(*features, text_ids=None if text_ids is None else torch.tensor(text_ids))
    twin = pair_by_pair_loss(*features, text_ids)
    torch.testing.assert_close(loss, twin)
    torch.testing.assert_close(torch.autograd.grad(loss, features), torch.autograd.grad(twin, features))


def test_texts_that_all_differ_make_the_diagonal_the_target(features):
    ids = torch.tensor([7, 3, 5, 1, 0, 2])
    torch.testing.assert_close(clip_loss(*features, text_ids=ids), clip_loss(*features))


def test_rows_with_one_and_the_same_text_feature_need_no_ids(features):
    """So ids matter where one caption comes in several templates."""
    images, texts, scale = features
    ids = torch.tensor([0, 1, 0, 2, 0, 1])
    same = texts.detach()[ids].requires_grad_()
    with_ids, without = clip_loss(images, same, scale, text_ids=ids), clip_loss(images, same, scale)
    torch.testing.assert_close(with_ids, without)
    image_gradients, text_gradients = zip(
        *(torch.autograd.grad(loss, (images, same)) for loss in (with_ids, without)), strict=True
    )
    torch.testing.assert_close(*image_gradients)
    per_text = [torch.zeros(3, 4, dtype=torch.float64).index_add(0, ids, gradient) for gradient in text_gradients]
    torch.testing.assert_close(*per_text)


def test_images_and_texts_may_trade_places(features):
    images, texts, scale = features
    ids = torch.tensor([0, 1, 0, 1, 2, 3])
    for text_ids in (None, ids):
        swapped = clip_loss(texts, images, scale, text_ids=text_ids)
        torch.testing.assert_close(clip_loss(images, texts, scale, text_ids=text_ids), swapped)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (
            (3, 8),
            (4, 8),
            r"image_features \[3, 8\] and text_features \[4, 8\] must be paired row by row, both \[B, D\]",
        ),
        ((3, 8), (3, 4), r"image_features \[3, 8\] and text_features \[3, 4\] must be paired"),
        ((8,), (8,), r"image_features \[8\] and text_features \[8\] must be paired"),
    ],
)
def test_unpaired_batches_are_named(images, texts, message):
    with pytest.raises(ShapeError, match=message):
        clip_loss(torch.zeros(images), torch.zeros(texts), 1.0)


def test_text_ids_of_another_batch_are_named():
    with pytest.raises(ShapeError, match=r"text_ids must be \[B\] = \[3\]. Got \[4\]"):
        clip_loss(torch.zeros(3, 8), torch.zeros(3, 8), 1.0, text_ids=torch.arange(4))


def test_the_example_of_the_docstring_holds():
    results = doctest.testmod(loss_module, extraglobs={"torch": torch})
    assert results.attempted > 0
    assert results.failed == 0
