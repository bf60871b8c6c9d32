"""The contrastive loss of a batch that several processes share: each has its own pairs, all are negatives of all.

Each process works on its own pictures against all texts, and no process holds the matrix of logits.

gather: every process gets all texts; the gradients of the texts go back by a sum over processes.
ring: the texts of one process at a time travel round the ring, and their gradients with them, so that no process ever
holds those of all; a second round replaces the second pass over what was gathered.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from diptych.model.clip import CLIPOutput
from diptych.train.distributed import Ranks, pad
from diptych.train.loss import LogitBlock, LogSums, Targets, clip_loss, match, siglip_loss, with_gradients

Exchange = Literal["gather", "ring"]


def softmax_loss(
    output: CLIPOutput, text_ids: Tensor | None, *, ranks: Ranks, sizes: Sequence[int], exchange: Exchange
) -> Tensor:
    """`clip_loss` of the pairs of all processes.

    Args:
        output: features of this process's pairs, [b, D].
        text_ids: [b] integers, equal for equal captions, also of different processes.
        ranks: the processes; all must call.
        sizes: pairs of each process; 0 is allowed.
        exchange: how the texts get to the pictures.

    Returns:
        [], in nats, the same in all processes. Its gradients are this process's part: for its features they are
        complete, for scale and bias they add up over processes.
    """
    images, texts, scale, _ = output
    if ranks.count == 1:
        return clip_loss(images, texts, scale, text_ids=text_ids)
    shared = _Shared(output, text_ids, ranks, sizes)
    loss, gradients = shared.gathered_softmax() if exchange == "gather" else shared.ring_softmax()
    return with_gradients(ranks.sum(loss), (images, texts, scale), gradients)


def sigmoid_loss(
    output: CLIPOutput, text_ids: Tensor | None, *, ranks: Ranks, sizes: Sequence[int], exchange: Exchange
) -> Tensor:
    """`siglip_loss` of the pairs of all processes; see `softmax_loss`."""
    images, texts, scale, bias = output
    assert bias is not None
    if ranks.count == 1:
        return siglip_loss(images, texts, scale, bias, text_ids=text_ids)
    shared = _Shared(output, text_ids, ranks, sizes)
    loss, gradients = shared.gathered_sigmoid() if exchange == "gather" else shared.ring_sigmoid()
    return with_gradients(ranks.sum(loss), (images, texts, scale, bias), gradients)


def of_all(output: CLIPOutput, ranks: Ranks, sizes: Sequence[int]) -> CLIPOutput:
    """The pairs of all processes, for a loss that every process computes whole.

    Gradients are this process's part, as `softmax_loss` has it: its own rows alone are learned from, by the whole loss;
    scale and bias get their share of it.

    Args:
        output: features of this process's pairs, [b, D].
        ranks: the processes; all must call.
        sizes: pairs of each process; 0 is allowed.

    Returns:
        Features [B, D], in the order of ranks.
    """
    if ranks.count == 1:
        return output
    start = sum(sizes[: ranks.rank])
    stop = start + sizes[ranks.rank]

    def joined(own: Tensor) -> Tensor:
        rows = ranks.gather(own.detach(), sizes)
        return torch.cat([rows[:start], own, rows[stop:]])

    def shared(number: Tensor) -> Tensor:
        return number.detach() + (number - number.detach()) / ranks.count

    images, texts, scale, bias = output
    return CLIPOutput(joined(images), joined(texts), shared(scale), None if bias is None else shared(bias))


_Parts = tuple[Tensor, tuple[Tensor, ...]]  # of the loss, and gradients of what it depends on


class _Shared:
    """The pairs of this process, and what they are to find in those of all."""

    def __init__(self, output: CLIPOutput, text_ids: Tensor | None, ranks: Ranks, sizes: Sequence[int]) -> None:
        self._ranks = ranks
        self._sizes = sizes
        self._images, self._texts = output.image_features.detach(), output.text_features.detach()
        self._scale = output.logit_scale.detach().to(self._images.dtype)
        self._bias = None if output.logit_bias is None else output.logit_bias.detach().to(self._images.dtype)
        ends = list(itertools.accumulate(sizes))
        self._rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        device = self._images.device
        ids = torch.arange(ends[-1], device=device) if text_ids is None else ranks.gather(text_ids, sizes)
        self._all_images, self._all_texts = match(ids, ids, dtype=self._images.dtype)
        self._own = self._rows[ranks.rank]

    def gathered_softmax(self) -> _Parts:
        block = self._block(self._ranks.gather(self._texts, self._sizes), self._all_texts)
        by_image, by_text = block.softmax_sums()
        by_text = self._merged(by_text)
        loss = by_image.loss(self._all_images.rows(self._own)) + self._own_rows(by_text).loss(
            self._all_texts.rows(self._own)
        )
        images, texts, scale = block.softmax_gradients(by_image, by_text)
        return loss, (images, self._ranks.scatter_sum(texts, self._sizes), scale)

    def gathered_sigmoid(self) -> _Parts:
        assert self._bias is not None
        block = self._block(self._ranks.gather(self._texts, self._sizes), self._all_texts)
        loss, (images, texts, scale, bias) = block.sigmoid_loss(self._bias, batch=sum(self._sizes))
        return loss, (images, self._ranks.scatter_sum(texts, self._sizes), scale, bias)

    def ring_softmax(self) -> _Parts:
        by_image: LogSums | None = None

        def add_sums(block: LogitBlock, travelled: list[Tensor], size: int) -> None:
            nonlocal by_image
            ours, theirs = block.softmax_sums()
            by_image = ours if by_image is None else by_image.merge(ours)
            so_far = LogSums(*(values[:size] for values in travelled))
            for values, merged in zip(so_far, so_far.merge(theirs), strict=True):
                values.copy_(merged)

        lowest = torch.finfo(self._images.dtype).min
        numbers = [self._images.new_full((max(self._sizes),), start) for start in (lowest, 0, 0)]
        by_text = self._round(add_sums, numbers)
        assert by_image is not None
        sums, own_size = by_image, self._sizes[self._ranks.rank]
        image_gradient, scale_gradient = torch.zeros_like(self._images), torch.zeros_like(self._scale)

        def add_gradients(block: LogitBlock, travelled: list[Tensor], size: int) -> None:
            *theirs, texts = (values[:size] for values in travelled)
            block_images, block_texts, scale = block.softmax_gradients(sums, LogSums(*theirs))
            image_gradient.add_(block_images)
            texts.add_(block_texts)
            scale_gradient.add_(scale)

        *_, texts = self._round(add_gradients, [*by_text, torch.zeros_like(self._padded_texts())])
        home = LogSums(*(values[:own_size] for values in by_text))
        loss = sums.loss(self._all_images.rows(self._own)) + home.loss(self._all_texts.rows(self._own))
        return loss, (image_gradient, texts[:own_size], scale_gradient)

    def ring_sigmoid(self) -> _Parts:
        bias = self._bias
        assert bias is not None
        image_gradient = torch.zeros_like(self._images)
        loss, scale_gradient, bias_gradient = (torch.zeros_like(self._scale) for _ in range(3))

        def add(block: LogitBlock, travelled: list[Tensor], size: int) -> None:
            part, (images, texts, *numbers) = block.sigmoid_loss(bias, batch=sum(self._sizes))
            image_gradient.add_(images)
            travelled[0][:size].add_(texts)
            for total, value in zip((loss, scale_gradient, bias_gradient), (part, *numbers), strict=True):
                total.add_(value)

        (texts,) = self._round(add, [torch.zeros_like(self._padded_texts())])
        return loss, (image_gradient, texts[: self._sizes[self._ranks.rank]], scale_gradient, bias_gradient)

    def _round(self, work: Callable[[LogitBlock, list[Tensor], int], None], travelled: list[Tensor]) -> list[Tensor]:
        """Let each process's texts come by once. What `work` writes into `travelled` goes along with them, and home."""
        texts = self._padded_texts()
        for hop in range(self._ranks.count):
            owner = (self._ranks.rank + hop) % self._ranks.count
            size = self._sizes[owner]
            next_texts = self._ranks.pass_on([texts])  # under way while this block is computed
            work(self._block(texts[:size], self._all_texts.rows(self._rows[owner])), travelled, size)
            next_travelled = self._ranks.pass_on(travelled)
            (texts,), travelled = next_texts(), next_travelled()
        return travelled

    def _block(self, texts: Tensor, targets: Targets) -> LogitBlock:
        return LogitBlock(self._images, texts, self._scale, self._all_images.rows(self._own), targets)

    def _padded_texts(self) -> Tensor:
        return pad(self._texts, max(self._sizes))

    def _own_rows(self, sums: LogSums) -> LogSums:
        return LogSums(*(values[self._own] for values in sums))

    def _merged(self, by_text: LogSums) -> LogSums:
        """Sums of all texts over the pictures of all processes."""
        rows = len(by_text.top)
        stacked = self._ranks.gather(torch.stack(by_text, dim=1), [rows] * self._ranks.count)  # [ranks * B, 3]
        parts = [LogSums(*part.unbind(dim=1)) for part in stacked.split(rows)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        return merged
