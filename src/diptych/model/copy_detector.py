"""CopyDetector: a small network that tells copies of a picture from other pictures, whatever they show.

Source: CLIP, arXiv:2103.00020, appendix C, which needed one since CLIP's own features are alike where the meaning is.
Letters: B pictures, S their side, D.
"""

from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

_EVEN = 8.0  # grey levels: a picture that varies less is not stretched to vary more


class CopyDetector(nn.Module):
    """Convolutions over a small grey picture; a crop, its mirror image and the picture itself come out near each other.

    No layer looks at other pictures of the batch, as batch normalisation would: a copy in it would be given away.
    """

    side = 64  # px, S: the picture is squeezed to a square
    embed_dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.stages = nn.ModuleList([_Stage(32, 64), _Stage(64, 96), _Stage(96, 160)])
        self.projection = nn.Linear(160 * 4, self.embed_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pictures: [B, S, S], grey from 0 to 255.

        Returns:
            [B, D] float32, unit length.
        """
        x = pictures.float()[:, None]  # [B, 1, S, S]
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / (x.square().mean(dim=(2, 3), keepdim=True).sqrt() + _EVEN)
        x = gelu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        x = nn.functional.adaptive_avg_pool2d(x, 2)  # [B, 160, 2, 2]: what lies in which quarter
        return normalize(self.projection(x.flatten(1)).float(), dim=1)


class _Stage(nn.Module):
    """Half the side, and a residual convolution on it."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
        self.down_norm = nn.GroupNorm(1, wide)
        self.same = nn.Conv2d(wide, wide, 3, padding=1)
        self.same_norm = nn.GroupNorm(1, wide)

    def forward(self, x: Tensor) -> Tensor:
        x = gelu(self.down_norm(self.down(x)))
        return x + gelu(self.same_norm(self.same(x)))
