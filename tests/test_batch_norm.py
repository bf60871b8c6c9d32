import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diptych.model.batch_norm import BatchNorm2d


def meeting(count: int) -> Callable[[int, Tensor], Tensor]:
    """What processes exchange, among threads."""
    there: list[Tensor | None] = [None] * count
    barrier = threading.Barrier(count, timeout=30)

    def exchange(rank: int, vector: Tensor) -> Tensor:
        there[rank] = vector
        barrier.wait()
        rows = torch.stack([row for row in there if row is not None])
        barrier.wait()
        return rows

    return exchange


def apart(parts: list[Tensor], outer: list[Tensor], norm: nn.BatchNorm2d) -> list[tuple[BatchNorm2d, Tensor, Tensor]]:
    """Each part in a thread of its own with a copy of `norm`: the copy, what came out, and the gradient of the part."""
    exchange, results = meeting(len(parts)), {}

    def work(rank: int) -> None:
        own = BatchNorm2d(norm.num_features).to(norm.weight.dtype)
        own.load_state_dict(norm.state_dict())
        own.exchange = lambda vector: exchange(rank, vector)
        x = parts[rank].clone().requires_grad_()
        y = own(x)
        y.backward(outer[rank])
        assert x.grad is not None
        results[rank] = own, y.detach(), x.grad

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results[rank] for rank in range(len(parts))]


@pytest.mark.parametrize("sizes", [(3, 5), (0, 4, 1), (6, 0)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_batches_of_several_processes_count_as_one(sizes, dtype, bound):
    generator = torch.Generator().manual_seed(0)
    # A mean far from 0, in which a square of the sum would lose all digits of float32.
    x = torch.randn(sum(sizes), 4, 5, 3, generator=generator, dtype=dtype) + 300 * torch.arange(4)[:, None, None]
    outer = torch.randn(x.shape, generator=generator, dtype=dtype)
    norm = nn.BatchNorm2d(4).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 2, generator=generator)
    nn.init.uniform_(norm.bias, generator=generator)
    results = apart(list(x.split(sizes)), list(outer.split(sizes)), norm)
    x.requires_grad_()
    y = norm(x)
    y.backward(outer)
    assert x.grad is not None
    torch.testing.assert_close(torch.cat([result[1] for result in results]), y.detach(), rtol=bound, atol=10 * bound)
    torch.testing.assert_close(torch.cat([result[2] for result in results]), x.grad, rtol=bound, atol=10 * bound)
    for name in ("weight", "bias"):
        part = sum(getattr(own, name).grad for own, _, _ in results)
        torch.testing.assert_close(part, getattr(norm, name).grad, rtol=10 * bound, atol=100 * bound)
    for own, _, _ in results:
        torch.testing.assert_close(dict(own.named_buffers()), dict(norm.named_buffers()), rtol=bound, atol=bound)


def test_gradients_are_those_of_differences():
    norm = BatchNorm2d(2).double()
    nn.init.uniform_(norm.weight)
    norm.exchange = lambda vector: torch.stack([vector, torch.zeros_like(vector)])  # the other has nothing
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))


def test_numbers_of_half_precision_are_summed_in_float32_and_memory_order_stays():
    norm = BatchNorm2d(3)
    norm.exchange = lambda vector: vector[None]
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16  # pyright: ignore[reportOptionalMemberAccess]
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, nn.BatchNorm2d(3)(x.float()).bfloat16())
    assert all(buffer.dtype in (torch.float32, torch.int64) for buffer in norm.buffers())


def test_nothing_is_exchanged_in_evaluation_nor_without_others():
    def fail(vector: Tensor) -> Tensor:
        raise AssertionError(vector)

    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    norm, plain = BatchNorm2d(3), nn.BatchNorm2d(3)
    assert torch.equal(norm(x), plain(x))
    norm.exchange = fail
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    assert norm.state_dict().keys() == plain.state_dict().keys()
