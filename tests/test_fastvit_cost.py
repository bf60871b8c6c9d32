import torch
from torch.utils.flop_counter import FlopCounterMode

from diptych.model.fastvit_cost import Count
from diptych.model.fastvit_tower import FastViTTowerConfig


def test_a_count_grows_part_by_part_as_worked_by_hand():
    count = Count(32, 4, fused=False)
    count.unit(3, 8, (3, 1), stride=2)
    assert count.side == 16
    assert count.flops == 2 * 3 * 8 * (9 + 1) * 256
    assert count.kept == 4 * (3 * 1024 + 3 * 8 * 256)  # pixels; what two batch norms and the activation read
    count.mixer(8)
    assert count.flops == 2 * 3 * 8 * 10 * 256 + 2 * 8 * 10 * 256
    assert count.kept == 4 * (3 * 1024 + 3 * 8 * 256 + 4 * 8 * 256)


def test_a_fused_tower_costs_as_much_as_one_that_does_not_learn():
    wanted = FastViTTowerConfig(image_size=64, widths=(8, 32), layers=(1, 1), squeezed_stages=1)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        wanted.build(16).eval()(torch.zeros(1, 3, 64, 64))
    fused = FastViTTowerConfig(image_size=64, widths=(8, 32), layers=(1, 1), squeezed_stages=1, fused=True)
    assert fused.cost(16, element=4).forward == counter.get_total_flops() < wanted.cost(16, element=4).forward
