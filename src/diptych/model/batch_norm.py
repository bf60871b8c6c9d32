"""BatchNorm2d, whose batch may lie in several processes."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

# A vector [K], a process's own, to the vectors of all, [processes, K], in the order of ranks. All must call.
Exchange = Callable[[Tensor], Tensor]

_SAMPLES_AND_POSITIONS = (0, 2, 3)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm; with `exchange` the statistics are those of all processes' batches as one.

    A process may have no picture, [0, C, H, W]. Variances are put together from means and sums of squares about them,
    which loses no digits where a mean is far from 0 (Chan et al., 1979, equation 2.1).
    """

    exchange: Exchange | None = None  # in training; None: the batch is this process's own

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        if self.exchange is None or not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        y, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.exchange, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
        return y


def share_batch_statistics(model: nn.Module, exchange: Exchange | None) -> None:
    """Let batch norms take the batches of several processes as one in training; None: each process its own."""
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.exchange = exchange


class _Normalise(torch.autograd.Function):
    """Gradients of gain and bias are this process's part, as those of any layer; that of the input is complete."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, exchange: Exchange, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = _precise(x)
        own_count = values.new_full((1,), x.numel() // x.shape[1])
        own_mean = values.sum(dim=_SAMPLES_AND_POSITIONS) / own_count.clamp(min=1)
        own_squares = (values - _to_channels(own_mean)).square_().sum(dim=_SAMPLES_AND_POSITIONS)
        rows = exchange(torch.cat([own_mean, own_squares, own_count]))  # [processes, 2 C + 1]
        means, squares, counts = rows.split([x.shape[1], x.shape[1], 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(dim=0) / count  # [C]
        variance = (squares + counts * (means - mean).square()).sum(dim=0) / count
        inverse = (variance + epsilon).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.exchange = exchange
        y = (values - _to_channels(mean)).mul_(_to_channels(inverse * weight)).add_(_to_channels(bias))
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = _precise(cast("Tensor", gradients[0]))
        normal = (_precise(x) - _to_channels(mean)).mul_(_to_channels(inverse))
        for_bias = gradient.sum(dim=_SAMPLES_AND_POSITIONS)  # [C]
        for_weight = (gradient * normal).sum(dim=_SAMPLES_AND_POSITIONS)
        along_bias, along_weight = ctx.exchange(torch.cat([for_bias, for_weight])).sum(dim=0).div_(count).chunk(2)
        rest = gradient - _to_channels(along_bias) - normal.mul_(_to_channels(along_weight))
        rest = rest.mul_(_to_channels(inverse * weight))
        return rest.to(x.dtype), for_weight.to(weight.dtype), for_bias.to(weight.dtype), None, None


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _to_channels(vector: Tensor) -> Tensor:
    return vector[:, None, None]
