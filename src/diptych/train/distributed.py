"""The processes of a run: who they are, how they talk, and how they hold one model together. torchrun starts them."""

import contextlib
import datetime
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from diptych.errors import DiptychError
from diptych.model.batch_norm import share_batch_statistics
from diptych.torch_runtime import default_device
from diptych.train.compression import Compression, PowerSGD, compress
from diptych.train.laps import Laps
from diptych.train.seen import Outputs

Parallel = Literal["ddp", "fsdp"]
T = TypeVar("T")


class Ranks:
    """All processes of a run, seen from one of them. Every method but `share`'s work is called by all, in one order.

    `laps` sums where this process's time goes; what it spends here on talking counts as "communication". What a GPU
    exchanges does not: it runs beside Python, and counts for the section that waits for its outcome.

    Args:
        rank: number of this process, from 0.
        count: of processes.
        device: what this process computes on.
        store: what all can write to and read from; None for a process by itself.
    """

    def __init__(self, rank: int, count: int, device: torch.device, store: Store | None = None) -> None:
        self.rank = rank
        self.count = count
        self.device = device
        self.store = store
        self.laps = Laps()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, measures and speaks."""
        return self.rank == 0

    def share(self, work: Callable[[], T]) -> T:
        """Done by the first process alone; all get its result.

        Raises:
            DiptychError: the first process's own error, in every process.
        """
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except DiptychError as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def collect(self, value: T) -> list[T]:
        """What each process says, in the order of ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with self.laps.section("communication"):
            dist.all_gather_object(values, value)
        return values

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.count > 1:
            with self._exchange(value):
                dist.all_reduce(value)
        return value

    def gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all processes, in the order of ranks; no gradient goes through.

        Args:
            rows: [sizes[rank], ...].
            sizes: rows of each process.

        Returns:
            [sum of sizes, ...].
        """
        if self.count == 1:
            return rows
        padded = pad(rows, max(sizes))
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._exchange(rows):
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def rows(self, vector: Tensor) -> Tensor:
        """A vector [K] of each process, [processes, K], in the order of ranks; no gradient goes through."""
        return self.gather(vector[None], [1] * self.count)

    def scatter_sum(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The reverse of `gather`: each process gets its own rows of the sum over processes.

        Args:
            rows: [sum of sizes, ...].
            sizes: rows of each process.

        Returns:
            [sizes[rank], ...].
        """
        if self.count == 1:
            return rows
        parts = [pad(part, max(sizes)) for part in rows.split(list(sizes))]
        own = torch.empty_like(parts[0])
        with self._exchange(rows):
            dist.reduce_scatter(own, parts)
        return own[: sizes[self.rank]]

    def pass_on(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Send tensors one place down the ring of processes and receive those from above; shapes are the same in all.

        Returns:
            A function that waits for what was sent to this process, and gives it.
        """
        down, up = (self.rank - 1) % self.count, (self.rank + 1) % self.count
        received = [torch.empty_like(tensor) for tensor in tensors]
        sends = [dist.P2POp(dist.isend, tensor.contiguous(), down) for tensor in tensors]
        receives = [dist.P2POp(dist.irecv, tensor, up) for tensor in received]
        works = dist.batch_isend_irecv([*sends, *receives])

        def wait() -> list[Tensor]:
            with self._exchange(received[0]):
                for work in works:
                    work.wait()
            return received

        return wait

    def second_line(self) -> dist.ProcessGroup | None:
        """A way to talk beside this one, from other threads; None for a process by itself."""
        return cast("dist.ProcessGroup", dist.new_group(backend="gloo")) if self.count > 1 else None

    def _exchange(self, value: Tensor) -> contextlib.AbstractContextManager[None]:
        return self.laps.section("communication") if value.device.type == "cpu" else contextlib.nullcontext()


def launched_rank() -> int:
    """Number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def launched_ranks() -> Iterator[Ranks]:
    """The processes that torchrun started, this one among them; without torchrun, this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1, default_device())
        return
    device = default_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store, rank, _ = next(iter(rendezvous("env://", timeout=datetime.timedelta(minutes=30))))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("collectives", store),
        rank=rank,
        world_size=count,
    )
    try:
        # A connection of its own: one that waits for a collective's partner answers to nobody else.
        yield Ranks(rank, count, device, store.clone())  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        gc.collect()  # of a `Spread` that was closed
        dist.destroy_process_group()


class Spread(nn.Module):
    """One model held by several processes; its forward pass is the model's.

    ddp: each process has all of it, and the gradients are averaged (arXiv:2006.15704). fsdp: each has a share of every
    parameter, and a block's are gathered while it computes (arXiv:2304.11277); the two single numbers, logit scale and
    bias, are held whole, and so is a frozen tower, which needs no gradients and no moments. In training, batch norms
    take the batches of all processes as one.

    Args:
        model: the same in all processes, frozen towers without gradients; with fsdp its parameters become shares, in
            place.
        ranks: the processes.
        parallel: how.
        blocks: the parts of the model whose shares are gathered by themselves.
        compression: of gradients on their way; with ddp alone.
    """

    def __init__(
        self,
        model: nn.Module,
        ranks: Ranks,
        parallel: Parallel,
        blocks: Sequence[nn.Module],
        compression: Compression = "none",
    ) -> None:
        super().__init__()
        self._ranks = ranks
        self._numbers = [p for p in model.parameters() if p.ndim == 0 and p.requires_grad]
        self.power: PowerSGD | None = None  # what of gradients it left out, where it compresses them
        self._module: nn.Module = model
        self._stop_sharing: Callable[[], None] = lambda: None
        if ranks.count > 1:
            share_batch_statistics(model, ranks.rows)
            self._stop_sharing = lambda: share_batch_statistics(model, None)
        if ranks.count > 1 and parallel == "fsdp":
            model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  # fully_shard takes no other
            mesh = init_device_mesh(ranks.device.type, (ranks.count,))
            for block in blocks:
                if any(p.requires_grad for p in block.parameters()):
                    fully_shard(block, mesh=mesh)
            frozen = {p for p in model.parameters() if not p.requires_grad}
            fully_shard(model, mesh=mesh, ignored_params=frozen.union(self._numbers))
        elif ranks.count > 1:
            self._module = DistributedDataParallel(model, gradient_as_bucket_view=True)
            self.power = PowerSGD(model) if compression == "powersgd" else None
            compress(self._module, compression, self.power)

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kept_patches: Tensor | None = None,
        image_features: Tensor | None = None,
        with_heads: bool = True,
    ) -> Outputs:
        """As `Learner.forward`."""
        return self._module(images, tokens, kept_patches, image_features, with_heads)

    def close(self) -> None:
        """Let go of what holds the model together, before the processes part; the model itself stays.

        torch's reducer would hold the connections beyond their end, and would then end them with Python's lock in its
        hand, which their threads may wait for: a deadlock, seen in one of six runs of four processes.
        """
        self._stop_sharing()
        self._module = nn.Identity()

    @contextlib.contextmanager
    def averaging(self, wanted: bool) -> Iterator[None]:
        """Whether a backward pass within is followed by the average over processes; if not, gradients add up."""
        if isinstance(self._module, DistributedDataParallel):
            with contextlib.nullcontext() if wanted else self._module.no_sync():
                yield
        elif isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(wanted)
            yield
            if wanted:
                for number in self._numbers:
                    assert number.grad is not None
                    self._ranks.sum(number.grad).div_(self._ranks.count)
        else:
            yield


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process may hold a share; to be called by all."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """The reverse of `whole`: as `like` is held."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten all gradients by one factor where together they are longer than `max_norm`; their length before, []."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    # Shares and whole tensors do not mix in one call.
    norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch has it
    for gradient in gradients:
        local = cast("DTensor", gradient).to_local() if isinstance(gradient, DTensor) else gradient
        local.mul_(factor)
    return norm


def pad(rows: Tensor, length: int) -> Tensor:
    """[n, ...] to [length, ...], zeros at the end."""
    missing = length - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows.contiguous()
