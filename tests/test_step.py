import math

import pytest
import torch

from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.train.distributed import Ranks, Spread
from diptych.train.loss import clip_loss
from diptych.train.step import Inputs, cached_gradients, draw_kept_patches, whole_gradients

SLICES = [slice(0, 3), slice(3, 4), slice(4, 8)]


@pytest.fixture
def model() -> CLIP:
    return CLIP(preset("tiny-vit"), torch.Generator().manual_seed(0)).double()


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    return Inputs(images, torch.randint(1, 500, (8, 6), generator=generator), torch.arange(8).expand(8, 8))


def gradients(model: CLIP, inputs: Inputs, micro_batches: list[slice] | None, **options) -> tuple[float, list]:
    spread = Spread(model, Ranks(0, 1, torch.device("cpu")), "ddp")
    most: list[int] = []

    def forward(inputs: Inputs):
        most.append(len(inputs.images) * torch.is_grad_enabled())
        return spread(*inputs)

    def loss_of(output):
        return clip_loss(*output[:3])

    model.zero_grad()
    options = {"scale_by": 1.0, "check": lambda loss: None} | options
    if micro_batches is None:
        loss = whole_gradients(spread, forward, inputs, loss_of, **options)
    else:
        loss = cached_gradients(spread, forward, inputs, loss_of, micro_batches=micro_batches, **options)
        assert max(most) == 4  # rows with activations
    return loss, [(name, p.grad.clone()) for name, p in model.named_parameters()]


@pytest.mark.parametrize("scale_by", [1.0, 8.0])
def test_micro_batches_have_the_gradients_of_the_whole_batch(model, inputs, scale_by):
    loss, expected = gradients(model, inputs, None)
    cached_loss, cached = gradients(model, inputs, SLICES, scale_by=scale_by)
    assert cached_loss == pytest.approx(loss, rel=1e-12)
    for (name, ours), (_, theirs) in zip(cached, expected, strict=True):
        torch.testing.assert_close(ours, scale_by * theirs, rtol=1e-9, atol=1e-12, msg=name)


def test_each_micro_batch_by_itself_would_have_other_gradients(model, inputs):
    """The test above could not fail if negatives of other micro-batches made no difference."""
    _, expected = gradients(model, inputs, None)
    by_itself = [gradients(model, inputs.rows(rows), None)[1] for rows in SLICES]
    mean = sum(parts[-1][1] * (rows.stop - rows.start) / 8 for parts, rows in zip(by_itself, SLICES, strict=True))
    assert (mean - expected[-1][1]).abs().max() > 1e-3


def test_the_loss_is_checked_before_any_gradient_is_made(model, inputs):
    def refuse(loss: float) -> None:
        raise ValueError(loss)

    for micro_batches in (None, SLICES):
        with pytest.raises(ValueError, match=r"\d"):
            gradients(model, inputs, micro_batches, check=refuse)
        assert all(p.grad is None for p in model.parameters())


def test_kept_patches_are_each_pictures_own_and_in_order():
    noise = torch.tensor([5, 2**62, 5])
    kept = draw_kept_patches(noise, patches=16, dropout=0.75)
    assert kept.shape == (3, 4)
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[:1], draw_kept_patches(noise[:1], patches=16, dropout=0.75))  # whoever else is there
    assert not torch.equal(kept[0], kept[1])
    assert all(row == sorted(set(row)) for row in kept.tolist())
    many = draw_kept_patches(torch.arange(4000), patches=16, dropout=0.5)
    counts = torch.bincount(many.flatten(), minlength=16)
    assert counts.sum() == 4000 * 8
    assert (counts - 2000).abs().max() < 5 * math.sqrt(4000 / 4)  # five standard deviations of a fair draw
    assert draw_kept_patches(noise, patches=4, dropout=0.99).shape == (3, 1)
