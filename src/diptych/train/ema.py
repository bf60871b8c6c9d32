"""An average of the weights over the steps, which is often better than the weights of any one."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from diptych.errors import WeightsError
from diptych.model.clip import CLIP
from diptych.train.distributed import share_of, whole
from diptych.weights.bundle import Bundle


class Average:
    """Exponential moving average of a model's weights and batch statistics, in the type that they have: float32.

    The first steps count less: the decay is at most (1 + step) / (10 + step), or what the weights were by chance would
    stay in the average for 1 / (1 - decay) steps. Where each process holds a share of the weights, it holds the same
    share of their average.

    Source: Polyak and Juditsky, 1992, for the average; TensorFlow's ExponentialMovingAverage for the first steps.

    Args:
        model: as it is held for training.
        decay: share of the average that stays, of one step.
        saved: whole tensors, as `tensors` gave them; None starts from the model's weights.

    Raises:
        WeightsError: what was saved is of another model.
    """

    def __init__(self, model: nn.Module, decay: float, saved: Mapping[str, Tensor] | None = None) -> None:
        self._decay = decay
        self._values: dict[str, Tensor] = {}
        for name, value in model.state_dict().items():
            if saved is None:
                self._values[name] = value.detach().clone()
                continue
            if name not in saved or saved[name].shape != value.shape:
                raise WeightsError(f"the average of the weights must hold {name} {list(value.shape)}. Is it damaged?")
            like = torch.empty_like(value)  # on its device and in its memory order
            self._values[name] = like.copy_(share_of(saved[name], like))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after an update.

        Args:
            model: the same as before.
            step: updates done, from 1.
        """
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            ours, theirs = _held(self._values[name]), _held(value)
            if ours.is_floating_point():
                ours.lerp_(theirs, weight)
            else:  # a count
                ours.copy_(theirs)

    def held(self) -> dict[str, Tensor]:
        """The average as this process holds it: the tensors that `update` changes."""
        return self._values

    def tensors(self) -> dict[str, Tensor]:
        """The average, whole tensors by name; to be called by all processes."""
        return {name: whole(value) for name, value in self._values.items()}

    def bundle(self, like: Bundle) -> Bundle:
        """A bundle with these weights, everything else as in `like`; to be called by all processes."""
        model = CLIP(like.model.config)
        model.load_state_dict(self.tensors(), assign=True)
        return dataclasses.replace(like, model=model)


def _held(value: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return cast("DTensor", value).to_local() if isinstance(value, DTensor) else value
