"""What a FastViT is made of. Source: FastViT, arXiv:2303.14189, section 3."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Conv2d, Linear, attend
from diptych.model.convolutions import Branched, ChannelNorm, Kernel, affine, centred

HEAD = 32  # channels of an attention head
LOOK, MIX, PLACE = 7, 3, 7  # positions of one side that an MLP, a mixer and positions look at
_EPSILON = 1e-5  # of the layer norm before attention


class Unit(nn.Module):
    """A convolution, the weights of channels where there are any, and a GELU."""

    def __init__(self, conv: Branched | Conv2d, squeeze: "Squeeze | None" = None) -> None:
        super().__init__()
        self.conv = conv
        self.squeeze = squeeze

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, out, S / stride, S / stride], rounded up."""
        x = self.conv(x)
        return F.gelu(x if self.squeeze is None else self.squeeze(x))


class Squeeze(nn.Module):
    """Each channel times a number that the means of all channels give. Source: arXiv:1709.01507, section 3."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down = Conv2d(width, inner, 1)
        self.up = Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * self.up(F.relu(self.down(means))).sigmoid()


class Mixer(nn.Module):
    """Look around in each channel by itself. What comes of it, less a batch norm, is scaled and added.

    Out of training all of it is one convolution. Source: section 3.1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = Branched(width, width, (MIX, 1), groups=width, has_identity=True)
        self.norm = BatchNorm2d(width)
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        if self.training:
            return x + self.scale[:, None, None] * (self.look(x) - self.norm(x))
        return F.conv2d(x, *self.fused(), 1, MIX // 2, 1, len(self.scale))

    def fused(self) -> Kernel:
        """The one convolution."""
        kernel, bias = self.look.fused()
        gain, shift = affine(self.norm)
        added = kernel - centred(gain, len(gain), MIX)
        same = centred(torch.ones_like(gain), len(gain), MIX)
        return same + self.scale[:, None, None, None] * added, self.scale * (bias - shift)


class Places(Conv2d):
    """A look around in each channel by itself, which tells a position where it is: added, or, fused, with it."""

    def __init__(self, width: int, *, fused: bool) -> None:
        super().__init__(width, width, PLACE, padding=PLACE // 2, groups=width)
        self.is_fused = fused

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[B, width, S, S] to the same."""
        return super().forward(x) if self.is_fused else x + super().forward(x)


class GridMLP(nn.Module):
    """A look around in each channel by itself, then an MLP at each position."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.look = Branched(width, width, (LOOK,), groups=width)
        self.up = Conv2d(width, hidden, 1)
        self.down = Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        return self.down(F.gelu(self.up(self.look(x))))


class GridAttention(nn.Module):
    """Multi-head self-attention among the positions of a grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_projection = Linear(width, 3 * width, bias=False)
        self.out_projection = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        high, wide = x.shape[2:]
        qkv = self.in_projection(x.permute(0, 2, 3, 1).flatten(1, 2)).unflatten(-1, (3, -1, HEAD))  # [B, P, 3, H, E]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # [B, H, P, E] each
        x = attend(query, key, value, is_causal=False).transpose(1, 2).flatten(2)  # [B, P, width]
        return self.out_projection(x).unflatten(1, (high, wide)).permute(0, 3, 1, 2)


class MixerBlock(nn.Module):
    """A mixer, then an MLP, scaled and added."""

    def __init__(self, width: int, hidden: int, *, fused: bool) -> None:
        super().__init__()
        self.mixer = Conv2d(width, width, MIX, padding=MIX // 2, groups=width) if fused else Mixer(width)
        self.mlp = GridMLP(width, hidden)
        self.mlp_scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        x = self.mixer(x)
        return x + self.mlp_scale[:, None, None] * self.mlp(x)


class AttentionBlock(nn.Module):
    """Norm and attention, then an MLP, each scaled and added."""

    def __init__(self, width: int, hidden: int, norm: Literal["batch", "layer"]) -> None:
        super().__init__()
        self.norm = BatchNorm2d(width) if norm == "batch" else ChannelNorm(width, _EPSILON)
        self.attention = GridAttention(width)
        self.attention_scale = nn.Parameter(torch.empty(width))
        self.mlp = GridMLP(width, hidden)
        self.mlp_scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, S, S] to the same."""
        x = x + self.attention_scale[:, None, None] * self.attention(self.norm(x))
        return x + self.mlp_scale[:, None, None] * self.mlp(x)
