"""An optimizer that a recipe names from outside the package: made, and weighed before a run."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.outside import check_call, named


def own_optimizer(
    name: str, groups: Sequence[dict[str, object]], *, betas: tuple[float, float], epsilon: float
) -> torch.optim.Optimizer:
    """The optimizer of `train.optimizer="module:name"`, made as `NAME(groups, betas=, epsilon=)`.

    Args:
        name: of the option.
        groups: of `parameter_groups`; it must keep them, with all their keys.
        betas: of the recipe.
        epsilon: likewise.

    Raises:
        ConfigError: it cannot be imported, is called otherwise, or gives something else.
    """
    options: dict[str, Any] = {"betas": betas, "epsilon": epsilon}
    function = named(name, "train.optimizer")
    check_call(function, name, "(groups, betas=, epsilon=)", list(groups), **options)
    made = function(list(groups), **options)
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"{name} must return a torch.optim.Optimizer. Got {type(made).__name__}.")
    if not all("rate_factor" in group for group in made.param_groups):
        raise ConfigError(f"{name} must keep the groups that it is given, with their rate_factor. Hand them on whole.")
    return made


def memory_of(optimizer: torch.optim.Optimizer) -> int | None:
    """Bytes that an optimizer keeps beside its parameters, found by a step.

    Args:
        optimizer: of parameters on the meta device; it gets gradients there.

    Returns:
        None where its step looks at numbers, of which there are none.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            assert isinstance(parameter, nn.Parameter)
            parameter.grad = torch.empty_like(parameter)
    try:
        optimizer.step()
    except Exception:  # code of others may raise anything
        return None
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
