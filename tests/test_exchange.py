import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from diptych.model.clip import CLIPOutput
from diptych.train.distributed import Ranks, launched_ranks
from diptych.train.exchange import sigmoid_loss, softmax_loss
from diptych.train.loss import clip_loss, siglip_loss
from processes import run_ranks

HEADS, EXCHANGES, IDS = ("softmax", "sigmoid"), ("gather", "ring"), (True, False)
CASES = list(itertools.product(HEADS, EXCHANGES, IDS))


def batch(head: str, sizes: list[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The pairs of all processes, float64, and the numbers of their captions; some come several times."""
    generator = torch.Generator().manual_seed(7)
    count = sum(sizes)
    features = [F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
    numbers = [torch.tensor(20.0, dtype=torch.float64)] + [torch.tensor(-5.0, dtype=torch.float64)] * (
        head == "sigmoid"
    )
    return [value.requires_grad_() for value in (*features, *numbers)], torch.arange(count) % 4


def parts(sizes: list[int]) -> list[dict[Any, Any]]:
    """For each case loss and gradients of this process."""
    results: dict[Any, Any] = {}
    with launched_ranks() as ranks:
        own = slice(sum(sizes[: ranks.rank]), sum(sizes[: ranks.rank + 1]))
        for case in CASES:
            head, exchange, with_ids = case
            (images, texts, *numbers), ids = batch(head, sizes)
            leaves = [values.detach()[own].requires_grad_() for values in (images, texts)] + numbers
            output = CLIPOutput(*leaves, *[None] * (4 - len(leaves)))  # pyright: ignore[reportArgumentType]
            loss_of = softmax_loss if head == "softmax" else sigmoid_loss
            loss = loss_of(output, ids[own] if with_ids else None, ranks=ranks, sizes=sizes, exchange=exchange)
            (3 * loss).backward()
            results[case] = [loss.item(), *(leaf.grad.tolist() for leaf in leaves)]
    return results  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("sizes", [[3, 2], [2, 0, 4]], ids=["uneven", "one has none"])
def test_loss_and_gradients_of_the_parts_are_those_of_the_whole(sizes):
    results = run_ranks(parts, len(sizes), sizes)
    for case in CASES:
        head, _, with_ids = case
        leaves, ids = batch(head, sizes)
        loss = (clip_loss if head == "softmax" else siglip_loss)(*leaves, text_ids=ids if with_ids else None)
        (3 * loss).backward()
        got = [result[case] for result in results]
        assert {values[0] for values in got} == {got[0][0]}  # the same in all processes, to the bit
        assert got[0][0] == pytest.approx(loss.item(), rel=1e-12)
        for number, leaf in enumerate(leaves, start=1):
            gradients = [torch.tensor(values[number], dtype=torch.float64) for values in got]
            # Each process has the gradients of its own rows; those of numbers add up.
            rows = [gradient.reshape(-1, 8) if leaf.ndim else gradient[None] for gradient in gradients]
            together = torch.cat(rows) if leaf.ndim else torch.cat(rows).sum()
            torch.testing.assert_close(together, leaf.grad, rtol=1e-11, atol=1e-13)


def test_one_process_has_the_plain_loss_to_the_bit():
    ranks = Ranks(0, 1, torch.device("cpu"))
    for head, shared, loss_of in (("softmax", softmax_loss, clip_loss), ("sigmoid", sigmoid_loss, siglip_loss)):
        leaves, ids = batch(head, [5])
        output = CLIPOutput(*leaves, *[None] * (4 - len(leaves)))  # pyright: ignore[reportArgumentType]
        loss = shared(output, ids, ranks=ranks, sizes=[5], exchange="gather")
        assert torch.equal(loss, loss_of(*leaves, text_ids=ids))
