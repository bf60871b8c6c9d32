import math

import pytest
import torch
from torch.nn.functional import kl_div, normalize

import diptych.train.distill as distill
from diptych.errors import ShapeError
from diptych.train.distill import affinity_distillation


def unit(seed: int, rows: int, width: int, dtype=torch.float32) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1)


def plain_twin(images, texts, teacher_images, teacher_texts, scale, teacher_scale):
    ours, theirs = scale * images @ texts.T, teacher_scale * teacher_images @ teacher_texts.T
    one_way = [
        kl_div(mine.log_softmax(1), yours.log_softmax(1), log_target=True, reduction="batchmean")
        for mine, yours in ((ours, theirs), (ours.T, theirs.T))
    ]
    return sum(one_way) / 2


def test_affinity_of_two_pairs_by_hand():
    eye = torch.eye(2)
    # The teacher is undecided (1/2, 1/2); the student gives its own text e/(e+1).
    own = math.e / (math.e + 1)
    by_hand = 0.5 * math.log(0.5 / own) + 0.5 * math.log(0.5 / (1 - own))
    loss = affinity_distillation(eye, eye, eye, eye, logit_scale=torch.tensor(1.0), teacher_logit_scale=0.0)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("rows", [1024, 3])
def test_affinity_equals_its_plain_twin_and_so_do_its_gradients(monkeypatch, rows):
    monkeypatch.setattr(distill, "_ROWS", rows)
    student = [unit(0, 8, 6).requires_grad_(), unit(1, 8, 6).requires_grad_(), torch.tensor(7.0, requires_grad=True)]
    teacher = [unit(2, 8, 10), unit(3, 8, 10)]
    loss = affinity_distillation(*student[:2], *teacher, logit_scale=student[2], teacher_logit_scale=20.0)
    twin = plain_twin(*student[:2], *teacher, student[2], 20.0)
    torch.testing.assert_close(loss, twin)
    for ours, theirs in zip(torch.autograd.grad(loss, student), torch.autograd.grad(twin, student), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_student_like_its_teacher_has_nothing_to_learn():
    images, texts = unit(0, 6, 4).requires_grad_(), unit(1, 6, 4)
    loss = affinity_distillation(images, texts, images, texts, logit_scale=torch.tensor(5.0), teacher_logit_scale=5.0)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, images)  # none through the teacher's side
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_features_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"teacher_text_features \[2, 5\] must have the same B"):
        affinity_distillation(
            torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(2, 5), torch.zeros(2, 5),
            logit_scale=torch.tensor(1.0), teacher_logit_scale=1.0,
        )  # fmt: skip
