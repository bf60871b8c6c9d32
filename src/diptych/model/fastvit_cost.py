"""What a FastViT costs in training, part by part."""

import math

from diptych.model.cost import FLOAT, layer_norm_bytes
from diptych.model.fastvit_blocks import HEAD, LOOK, MIX, PLACE


class Count:
    """A FastViT, counted while it grows; see `diptych.model.cost` for what is counted.

    Args:
        side: of the picture, in pixels.
        element: bytes of one number in matrix products.
        fused: whether its branches are one convolution.
    """

    def __init__(self, side: int, element: int, *, fused: bool) -> None:
        self.side = side  # of the grid that comes next
        self.flops = 0
        self.kept = 0  # bytes
        self._element = element
        self._fused = fused
        self._is_float = True  # what comes next is float32, and each convolution keeps a copy in its own type

    def unit(
        self, channels: int, out: int, kernels: tuple[int, ...], *, stride: int = 1, groups: int = 1, squeezed: int = 0
    ) -> None:
        """One more `Unit`; `squeezed` channels within its `Squeeze`, 0 for none."""
        if self._fused:
            kernels = kernels[:1]
        self.kept += self._read(channels * self.side**2, times=len(kernels))
        self.side = math.ceil(self.side / stride)
        numbers = out * self.side**2
        self.flops += 2 * channels // groups * sum(kernel**2 for kernel in kernels) * numbers
        # What batch norms read, what is squeezed, and what the activation reads.
        norms = 0 if self._fused else len(kernels)
        self.kept += self._element * numbers * (norms + bool(squeezed) + 1)
        if squeezed:
            self.flops += 4 * out * squeezed
            self.kept += self._element * (2 * out + squeezed)
        self._is_float = False

    def mixer(self, width: int) -> None:
        """One more `Mixer`."""
        numbers = width * self.side**2
        if self._fused:
            self.flops += 2 * MIX**2 * numbers
            self.kept += self._read(numbers)
            self._is_float = False
            return
        self.flops += 2 * (MIX**2 + 1) * numbers
        # What the branches read, and the batch norms behind them; then what is scaled.
        self.kept += self._read(numbers, times=2) + 2 * self._element * numbers + self._own * numbers
        if self._is_float and self._element < FLOAT:  # a batch norm alone takes it as it is
            self.kept += FLOAT * numbers
        self._is_float = True

    def places(self, width: int) -> None:
        """One more `Places`."""
        numbers = width * self.side**2
        self.flops += 2 * PLACE**2 * numbers
        self.kept += self._read(numbers)

    def attention(self, width: int, *, norm: str) -> None:
        """One more attention, its norm and what is scaled included."""
        positions = self.side**2
        self.flops += 8 * positions * width**2 + 4 * positions**2 * width
        self.kept += positions * (layer_norm_bytes(width) if norm == "layer" else self._own * width)
        # Input, query, key and value, output, and what is scaled; one float a head of the fused attention.
        self.kept += positions * (6 * self._element * width + FLOAT * width // HEAD)
        self._is_float = True

    def mlp(self, width: int, hidden: int) -> None:
        """One more `GridMLP`, and what is scaled."""
        positions = self.side**2
        self.flops += 2 * positions * width * (LOOK**2 + 2 * hidden)
        self.kept += self._read(width * positions) + self._element * positions * (3 * width + 2 * hidden)
        self._is_float = True

    @property
    def _own(self) -> int:
        """Bytes of one number of what comes next."""
        return FLOAT if self._is_float else self._element

    def _read(self, numbers: int, *, times: int = 1) -> int:
        """Bytes that convolutions of the same numbers keep of them."""
        has_copies = self._is_float and self._element < FLOAT
        return self._element * numbers * (times if has_copies else 1)
