"""What convolutional towers share: parallel branches whose sum is one convolution, and a layer norm over channels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Conv2d

Kernel = tuple[Tensor, Tensor]  # of one convolution: [out, channels / groups, k, k] and [out]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position, of [B, C, H, W]."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__(channels, eps=epsilon)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Branched(nn.Module):
    """Parallel convolutions with a batch norm each, and their sum.

    Out of training the sum is computed as one convolution, whose kernel comes from theirs: the same up to rounding.
    Source: RepVGG, arXiv:2101.03697, section 3.3.

    Args:
        channels: that go in.
        out: that come out.
        kernels: positions of one side that each branch looks at; odd, the largest first.
        stride: of all branches.
        groups: 1, or channels, for a look at each by itself.
        has_identity: whether a branch is a batch norm alone.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernels: Sequence[int],
        *,
        stride: int = 1,
        groups: int = 1,
        has_identity: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.kernel = stride, groups, kernels[0]
        self.branches = nn.ModuleList(Branch(channels, out, kernel, stride, groups) for kernel in kernels)
        self.identity = BatchNorm2d(channels) if has_identity else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, out, S / stride, S / stride], rounded up."""
        if not self.training:
            return F.conv2d(x, *self.fused(), self.stride, self.kernel // 2, 1, self.groups)
        parts = [branch(x) for branch in self.branches]
        if self.identity is not None:
            parts.append(self.identity(x))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return whole

    def fused(self) -> Kernel:
        """The one convolution that all branches are."""
        parts = [branch.fused(self.kernel) for branch in self.branches if isinstance(branch, Branch)]
        if self.identity is not None:
            gain, shift = affine(self.identity)
            parts.append((centred(gain, self.groups, self.kernel), shift))
        return _total([part[0] for part in parts]), _total([part[1] for part in parts])


class Branch(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, out, S / stride, S / stride], rounded up."""
        return self.norm(self.conv(x))

    def fused(self, kernel: int) -> Kernel:
        """As one convolution, with zeros around it for a larger kernel."""
        gain, shift = affine(self.norm)
        rest = (kernel - self.conv.kernel_size[0]) // 2
        weight = self.conv.weight * gain[:, None, None, None]
        # onnxruntime takes a pad before a convolution for one of its input, a pad of nothing before its kernel too.
        return F.pad(weight, (rest, rest, rest, rest)) if rest else weight, shift


def branched(
    channels: int,
    out: int,
    kernels: Sequence[int],
    *,
    stride: int = 1,
    groups: int = 1,
    has_identity: bool = False,
    fused: bool,
) -> Branched | Conv2d:
    """Parallel branches, or the one convolution that they were fused to for good; see `Branched`."""
    if not fused:
        return Branched(channels, out, kernels, stride=stride, groups=groups, has_identity=has_identity)
    return Conv2d(channels, out, kernels[0], stride=stride, padding=kernels[0] // 2, groups=groups)


def affine(norm: BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and shift, [C] each, of a batch norm that uses the statistics that it has."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - norm.running_mean * gain


def centred(gain: Tensor, groups: int, kernel: int) -> Tensor:
    """The kernel of a convolution that multiplies each channel by a number, [C, C / groups, k, k]."""
    inner = len(gain) // groups
    same = torch.eye(inner, dtype=gain.dtype, device=gain.device).repeat(groups, 1) * gain[:, None]  # [C, C / groups]
    rest = kernel // 2
    return F.pad(same[:, :, None, None], (rest, rest, rest, rest))


def _total(parts: list[Tensor]) -> Tensor:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole
