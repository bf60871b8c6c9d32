"""train/own_optimizer.py by hand; tests/test_outside.py trains with one."""

from typing import Any

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.train.own_optimizer import memory_of, own_optimizer


class Plain(torch.optim.AdamW):
    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], epsilon: float) -> None:
        super().__init__(groups, betas=betas, eps=epsilon)


class Named(Plain):
    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, betas=betas, epsilon=eps)


def groups_of(*parameters: nn.Parameter) -> list[dict[str, object]]:
    return [{"params": list(parameters), "weight_decay": 0.1, "rate_factor": 0.5}]


def test_it_gets_groups_and_constants_of_the_recipe():
    parameter = nn.Parameter(torch.ones(3))
    made = own_optimizer(f"{__name__}:Plain", groups_of(parameter), betas=(0.5, 0.6), epsilon=1e-3)
    [group] = made.param_groups
    assert (group["betas"], group["eps"], group["rate_factor"], group["weight_decay"]) == ((0.5, 0.6), 1e-3, 0.5, 0.1)
    assert group["params"] == [parameter]


def test_one_that_takes_other_arguments_is_told_how_it_is_called():
    with pytest.raises(ConfigError, match=r":Named is called as \(groups, betas=, epsilon=\), which it does not take:"):
        own_optimizer(f"{__name__}:Named", groups_of(nn.Parameter(torch.ones(3))), betas=(0.5, 0.6), epsilon=1e-3)


def test_its_memory_is_what_a_step_leaves():
    with torch.device("meta"):
        parameters = nn.Parameter(torch.empty(5, 7)), nn.Parameter(torch.empty(3, dtype=torch.float64))
    made = own_optimizer(f"{__name__}:Plain", groups_of(*parameters), betas=(0.5, 0.6), epsilon=1e-3)
    assert memory_of(made) == 2 * (4 * 35 + 8 * 3) + 2 * 4  # two moments, and the step of each parameter
