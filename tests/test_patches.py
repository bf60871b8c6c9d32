import math

import torch

from diptych.train.patches import draw_kept_patches


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
