"""Gradients that travel between processes in fewer bytes, as hooks of torch's DDP."""

import zlib
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

Compression = Literal["none", "float16", "bfloat16", "powersgd"]

COLUMNS = 4  # of the two factors that stand for a gradient
ERROR, FACTOR = "compression_error", "compression_factor"


class PowerSGD:
    """Matrices of gradients travel as two factors of four columns each, all else as it is.

    What the factors leave out is added to the next gradient of the same process. The average over processes depends on
    the mean of what they left out alone, so that is what a checkpoint keeps, for any number of processes.

    Source: PowerSGD, arXiv:1905.13727, algorithms 1 and 2, with warm start. torch's own hook keeps its errors by
    buckets of one number of processes, in an order that changes after the first step, and cannot go on from them.

    Args:
        model: as each process has it, whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[Tensor, str] = {
            p: name for name, p in model.named_parameters() if p.requires_grad and _pays(p)
        }
        self._errors = {name: torch.zeros_like(_matrix(p)) for p, name in self._names.items()}
        # By its name, not by chance: the same in all processes.
        self._factors = {name: _random(name, _matrix(p)) for p, name in self._names.items()}

    def tensors(self) -> dict[str, Tensor]:
        """PARAMETER.compression_error and PARAMETER.compression_factor, which each step changes."""
        kept = ((ERROR, self._errors), (FACTOR, self._factors))
        return {f"{name}.{what}": value for what, values in kept for name, value in values.items()}

    def share_errors(self) -> None:
        """Let each process keep the mean of all errors, as a run that goes on has it. To be called by all."""
        for error in self._errors.values():
            dist.all_reduce(error)
            error.div_(dist.get_world_size())

    def hook(self, _: object, bucket: GradBucket) -> Future[Tensor]:
        """What DDP calls with some of the gradients; gives their average.

        They come in their parameters' shapes and memory order without its strides: of a filter in channels_last memory
        the columns are in another order than its own, which is all the same to two factors.
        """
        pairs = list(zip(bucket.parameters(), bucket.gradients(), strict=True))
        plain = [gradient for parameter, gradient in pairs if parameter not in self._names]
        _average(plain)
        names = [self._names[parameter] for parameter, _ in pairs if parameter in self._names]
        gradients = [gradient for parameter, gradient in pairs if parameter in self._names]
        wanted = [
            _matrix(gradient) + self._errors[name] for name, gradient in zip(names, gradients, strict=True)
        ]  # [n, m]
        left = [matrix @ self._factors[name] for name, matrix in zip(names, wanted, strict=True)]  # [n, columns]
        _average(left)
        left = [torch.linalg.qr(columns).Q for columns in left]
        right = [matrix.T @ columns for matrix, columns in zip(wanted, left, strict=True)]  # [m, columns]
        _average(right)
        for name, gradient, matrix, columns, rows in zip(names, gradients, wanted, left, right, strict=True):
            approximate = columns @ rows.T
            gradient.copy_(approximate.view(gradient.shape))
            torch.sub(matrix, approximate, out=self._errors[name])
            self._factors[name].copy_(rows)
        buffer = bucket.buffer()
        done = Future[Tensor](devices=[] if buffer.device.type == "cpu" else [buffer.device])
        done.set_result(buffer)
        return done


def compress(module: DistributedDataParallel, compression: Compression, power: PowerSGD | None) -> None:
    """Let DDP's gradients travel in fewer bytes."""
    if power is not None:
        module.register_comm_hook(None, power.hook)
    elif compression != "none":
        hook = {"float16": fp16_compress_hook, "bfloat16": bf16_compress_hook}[compression]

        def shorten(_: object, bucket: GradBucket) -> Future[Tensor]:
            return hook(dist.group.WORLD, bucket)  # pyright: ignore[reportArgumentType]

        # By another name: torch refuses its own for bfloat16 without NCCL, though gloo sums it as well.
        module.register_comm_hook(None, shorten)


def _pays(parameter: Tensor) -> bool:
    """Whether two factors are less than half of a matrix."""
    rows, columns = _matrix(parameter).shape
    return 2 * COLUMNS * (rows + columns) <= rows * columns


def _matrix(value: Tensor) -> Tensor:
    """[n, ...] to [n, m]."""
    return value.detach().reshape(len(value), -1) if value.ndim else value.detach().reshape(1, 1)


def _random(name: str, matrix: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    drawn = torch.randn(matrix.shape[1], COLUMNS, generator=generator, dtype=torch.float32)
    return drawn.to(matrix)


def _average(values: list[Tensor]) -> None:
    """The mean over processes of each, in place."""
    if not values:
        return
    flat = torch.cat([value.reshape(-1) for value in values])
    dist.all_reduce(flat)
    flat.div_(dist.get_world_size())
    for value, part in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.copy_(part.view(value.shape))
