"""Contrastive losses: features in, a scalar out. Of the matrix of logits one tile at a time is held, never all of it.

`clip_loss` and `siglip_loss` work on one process. What they are made of works on a `LogitBlock`, any pictures against
any texts, and adds up over blocks, so that several processes can share a batch, each with its own pictures: `match`
says once for the whole batch what belongs together; each block gives its `softmax_sums`, which are merged over blocks;
then each block gives its part of the gradients, which are added up; `with_gradients` hands them to autograd.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import DataError, ShapeError, TrainingError

# Rows and columns of a tile. The three buffers of one tile, 12 MB, stay in a processor's cache (benchmarks/loss.py).
TILE = 1024


def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    *,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
) -> Tensor:
    """Softmax contrastive loss, the mean of image-to-text and text-to-image.

    Without ids row i of both inputs is one pair, and the other B - 1 rows are its negatives. With ids a picture and a
    text match when theirs are equal; the target of a row is spread evenly over all its matches, the rest are negatives.
    Given ids of one kind only, the rows are still pairs, and the ids count for both sides: `text_ids` where several
    pictures have the same caption, `image_ids` where one picture comes with several captions. Given both, the numbers
    of pictures and texts may differ. A row without a match is a hard negative: a negative of all rows of the other
    side, and left out of the mean of its own.

    Memory is linear in B. Gradients are worked out along with the loss, in float32 (float64 for float64), under
    autocast too; they cannot be differentiated again (TrainingError).
    Source: CLIP, arXiv:2103.00020, section 2.3 and figure 3; several positives: SupCon, arXiv:2004.11362; hard negative
    texts: NegCLIP, arXiv:2210.01936; log-sum-exp by tiles: arXiv:2410.17243.

    Args:
        image_features: [B, D], unit length.
        text_features: [B, D], unit length; with both kinds of ids [N, D].
        logit_scale: [], the factor itself, not its logarithm.
        image_ids: [B] integers.
        text_ids: [B] or [N] integers.

    Returns:
        [], in nats. Chance level is log B (with N texts the mean of log B and log N); the least is 0, or with n matches
        in a row log n for that row.

    Raises:
        ShapeError: the two batches differ in D, or without both kinds of ids in B; or ids do not fit their rows.
        DataError: no picture matches any text.

    >>> features = torch.eye(4)
    >>> round(clip_loss(features, features, torch.tensor(0.0)).item(), 4)  # chance: log 4
    1.3863
    """
    ids = _checked_ids(image_features, text_features, image_ids, text_ids)
    images, texts, scale = inputs = _same_type(image_features, text_features, logit_scale)
    image_targets, text_targets = match(*ids, dtype=images.dtype)
    block = LogitBlock(images, texts, scale, image_targets, text_targets)
    by_image, by_text = block.softmax_sums()
    loss = by_image.loss(image_targets) + by_text.loss(text_targets)
    if not _wants_gradients(inputs):
        return loss
    return with_gradients(loss, inputs, block.softmax_gradients(by_image, by_text))


def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
) -> Tensor:
    """Sigmoid contrastive loss: is this picture with this text a match? Asked of every picture and every text.

    The sum of -log sigmoid(±logit) over all B x N, over B; plus for a match, minus for all others. Ids, types and
    memory are as in `clip_loss`. Source: SigLIP, arXiv:2303.15343, section 3.2, which starts at logit_scale 10 and
    logit_bias -10.

    Args:
        image_features: [B, D], unit length.
        text_features: [B, D], unit length; with both kinds of ids [N, D].
        logit_scale: [], the factor itself, not its logarithm.
        logit_bias: [], added to each logit.
        image_ids: [B] integers.
        text_ids: [B] or [N] integers.

    Returns:
        [], in nats a picture. Chance level, every answer even, is N log 2; the least is 0.

    Raises:
        ShapeError: the two batches differ in D, or without both kinds of ids in B; or ids do not fit their rows.
        DataError: no picture matches any text.

    >>> features = torch.eye(4)
    >>> round(siglip_loss(features, features, 0.0, 0.0).item(), 4)  # chance: 4 log 2
    2.7726
    """
    ids = _checked_ids(image_features, text_features, image_ids, text_ids)
    images, texts, scale, bias = inputs = _same_type(image_features, text_features, logit_scale, logit_bias)
    loss, gradients = LogitBlock(images, texts, scale, *match(*ids, dtype=images.dtype)).sigmoid_loss(
        bias, batch=len(images)
    )
    return with_gradients(loss, inputs, gradients) if _wants_gradients(inputs) else loss


class Targets(NamedTuple):
    """What the rows of one side are to find on the other side."""

    ids: Tensor  # [n] integers; a picture and a text match when theirs are equal
    matches: Tensor  # [n], how many rows of the other side match, in the whole batch; at least 1, to divide by
    weights: Tensor  # [n], what the row's softmax counts in the loss; those of a side add up to 1/2

    def rows(self, rows: slice) -> "Targets":
        return Targets(*(values[rows] for values in self))


def match(image_ids: Tensor, text_ids: Tensor, *, dtype: torch.dtype) -> tuple[Targets, Targets]:
    """Targets of the pictures and of the texts.

    Args:
        image_ids: [B] integers, of the whole batch, over all processes.
        text_ids: [N] integers, likewise.
        dtype: of the features.
    """

    def targets(ids: Tensor, others: Tensor) -> Targets:
        others = others.sort().values
        matches = torch.searchsorted(others, ids, right=True) - torch.searchsorted(others, ids)
        has_match = (matches > 0).to(dtype)
        return Targets(ids, matches.clamp(min=1).to(dtype), has_match / (2 * has_match.sum()))

    return targets(image_ids, text_ids), targets(text_ids, image_ids)


class LogSums(NamedTuple):
    """What the softmax of each row needs, so far; in parts, as a log-sum-exp near 100 would round the loss to 1e-5."""

    top: Tensor  # [n], the highest logit
    total: Tensor  # [n], sum of exp(logit - top)
    matched: Tensor  # [n], sum of the logits of the matches

    def at(self, top: Tensor) -> "LogSums":
        """The same sums for a top that is as high or higher."""
        return LogSums(top, self.total * (self.top - top).exp(), self.matched)

    def merge(self, other: "LogSums") -> "LogSums":
        """The sums of the same rows over the columns of both."""
        top = torch.maximum(self.top, other.top)
        ours, theirs = self.at(top), other.at(top)
        return LogSums(top, ours.total + theirs.total, ours.matched + theirs.matched)

    def loss(self, targets: Targets) -> Tensor:
        """What these rows add to the loss once all columns are in, [] in nats."""
        # The top first: with one match that is the top the difference is exactly 0, and what is left is exact too.
        return (targets.weights * (self.top - self.matched / targets.matches + self.total.log())).sum()


class _Tile(NamedTuple):
    images: slice
    texts: slice
    logits: Tensor  # [r, c]
    is_match: Tensor  # [r, c], 1 or 0
    spare: Tensor  # [r, c], to compute in


class LogitBlock:
    """Pictures against texts: any rows of a batch's pictures, any rows of its texts.

    Gradients are those of the whole batch's loss, as far as they come from this block.

    Args:
        image_features: [B, D] float32 or float64.
        text_features: [N, D], the same type.
        logit_scale: [], the same type.
        image_targets: of these pictures, as `match` gives them for the whole batch.
        text_targets: of these texts.
    """

    def __init__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        image_targets: Targets,
        text_targets: Targets,
    ) -> None:
        self._images = image_features.detach()
        self._texts = text_features.detach()
        self._scale = logit_scale.detach()
        self._image_targets = image_targets
        self._text_targets = text_targets
        self._only_tile: _Tile | None = None  # of a small block: as it is made for the sums, it serves the gradients

    def softmax_sums(self) -> tuple[LogSums, LogSums]:
        """Sums of each picture over these texts, and of each text over these pictures."""
        by_image, by_text = _no_sums(self._images), _no_sums(self._texts)
        for tile in self._tiles():
            _add_sums(by_image, tile.images, tile.logits, tile.is_match, tile.spare)
            _add_sums(by_text, tile.texts, tile.logits.T, tile.is_match.T, tile.spare.T)
            if tile.logits.shape == (len(self._images), len(self._texts)):
                self._only_tile = tile
        return by_image, by_text

    def softmax_gradients(self, by_image: LogSums, by_text: LogSums) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the softmax loss for these pictures [B, D], these texts [N, D] and the logit scale [].

        Args:
            by_image: sums of these pictures over all texts of the batch.
            by_text: sums of these texts over all pictures of the batch.
        """
        tiles = [self._only_tile] if self._only_tile else self._tiles()
        self._only_tile = None  # its logits are written over
        image_gradient, text_gradient = torch.zeros_like(self._images), torch.zeros_like(self._texts)
        for images, texts, logits, is_match, spare in tiles:
            gradient = _softmax_gradient(logits, is_match, by_image, self._image_targets, images, out=spare)
            by_column = _softmax_gradient(logits.T, is_match.T, by_text, self._text_targets, texts, out=logits.T)
            gradient.add_(by_column.T)
            image_gradient[images].addmm_(gradient, self._texts[texts])
            text_gradient[texts].addmm_(gradient.T, self._images[images])
        return self._times_scale(image_gradient, text_gradient)

    def sigmoid_loss(self, logit_bias: Tensor, *, batch: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """What this block adds to the sigmoid loss, and its gradients for pictures, texts, logit scale and logit bias.

        Args:
            logit_bias: [], of the features' type.
            batch: number of pictures in the whole batch.
        """
        image_gradient, text_gradient = torch.zeros_like(self._images), torch.zeros_like(self._texts)
        loss, bias_gradient = (self._images.new_zeros(len(self._images)) for _ in range(2))
        for images, texts, logits, is_match, spare in self._tiles():
            sign = is_match.mul_(2).sub_(1)
            margin = logits.add_(logit_bias.detach()).mul_(sign)
            loss[images] -= F.logsigmoid(margin).sum(dim=1)
            gradient = torch.neg(margin, out=spare).sigmoid_().mul_(sign).mul_(-1 / batch)
            image_gradient[images].addmm_(gradient, self._texts[texts])
            text_gradient[texts].addmm_(gradient.T, self._images[images])
            bias_gradient[images] += gradient.sum(dim=1)
        return loss.sum() / batch, (*self._times_scale(image_gradient, text_gradient), bias_gradient.sum())

    def _tiles(self) -> Iterator[_Tile]:
        size = min(TILE, len(self._images)) * min(TILE, len(self._texts))
        buffers = [self._images.new_empty(size) for _ in range(3)]  # of all tiles, one after the other
        for images in _slices(len(self._images)):
            scaled = self._images[images] * self._scale
            for texts in _slices(len(self._texts)):
                shape = (images.stop - images.start, texts.stop - texts.start)
                logits, is_match, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
                torch.mm(scaled, self._texts[texts].T, out=logits)
                torch.eq(self._image_targets.ids[images, None], self._text_targets.ids[texts], out=is_match)
                yield _Tile(images, texts, logits, is_match, spare)

    def _times_scale(self, image_gradient: Tensor, text_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale_gradient = (image_gradient * self._images).sum()
        return image_gradient.mul_(self._scale), text_gradient.mul_(self._scale), scale_gradient


def _slices(length: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE, length)) for start in range(0, length, TILE))


def _no_sums(features: Tensor) -> LogSums:
    top = features.new_full((len(features),), torch.finfo(features.dtype).min)  # not -inf: -inf - -inf is NaN
    return LogSums(top, torch.zeros_like(top), torch.zeros_like(top))


def _add_sums(sums: LogSums, rows: slice, logits: Tensor, is_match: Tensor, spare: Tensor) -> None:
    top = logits.amax(dim=1)
    matched = torch.mul(logits, is_match, out=spare).sum(dim=1)
    total = torch.sub(logits, top[:, None], out=spare).exp_().sum(dim=1)
    merged = LogSums(*(values[rows] for values in sums)).merge(LogSums(top, total, matched))
    for values, new in zip(sums, merged, strict=True):
        values[rows] = new


def _softmax_gradient(
    logits: Tensor, is_match: Tensor, sums: LogSums, targets: Targets, rows: slice, *, out: Tensor
) -> Tensor:
    """Gradient of the rows' own loss for the logits: weight times (softmax - target)."""
    top, factor, target = (
        values[rows, None] for values in (sums.top, targets.weights / sums.total, targets.weights / targets.matches)
    )
    return torch.sub(logits, top, out=out).exp_().mul_(factor).addcmul_(is_match, target, value=-1)


def with_gradients(loss: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The loss as autograd sees it: a function of `inputs` whose gradients are known.

    Args:
        loss: [].
        inputs: what it depends on.
        gradients: one for each input, of its shape.
    """
    return _WithGradients.apply(loss, gradients, *inputs)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # once_differentiable would let a gradient penalty pass, without effect
            raise TrainingError(
                "the contrastive losses can be differentiated once, and create_graph=True asks for twice. Leave it out."
            )
        wanted = zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=True)
        return (None, None, *(outer * gradient if wants else None for gradient, wants in wanted))


def _wants_gradients(inputs: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(values.requires_grad for values in inputs)


def _same_type(image_features: Tensor, text_features: Tensor, *numbers: Tensor | float) -> list[Tensor]:
    is_double = image_features.dtype == text_features.dtype == torch.float64
    dtype, device = torch.float64 if is_double else torch.float32, image_features.device
    scalars = (torch.as_tensor(number, dtype=dtype, device=device).reshape(()) for number in numbers)
    return [image_features.to(dtype), text_features.to(dtype), *scalars]


def _checked_ids(
    image_features: Tensor, text_features: Tensor, image_ids: Tensor | None, text_ids: Tensor | None
) -> tuple[Tensor, Tensor]:
    shapes = f"image_features {list(image_features.shape)} and text_features {list(text_features.shape)}"
    if image_features.ndim != 2 or text_features.ndim != 2 or image_features.shape[1] != text_features.shape[1]:
        raise ShapeError(f"{shapes} must be paired row by row, both [B, D].")
    if (image_ids is None or text_ids is None) and len(image_features) != len(text_features):
        raise ShapeError(
            f"{shapes} must be paired row by row, both [B, D]. Otherwise give image_ids and text_ids: equal ids match."
        )
    for name, ids, features in (("image_ids", image_ids, image_features), ("text_ids", text_ids, text_features)):
        if ids is not None and ids.shape != features.shape[:1]:
            raise ShapeError(f"{name} must be [B] = [{len(features)}]. Got {list(ids.shape)}.")
    if image_ids is not None and text_ids is not None:
        if not torch.isin(image_ids, text_ids).any():
            raise DataError("at least one of image_ids must be among text_ids. None is, so there is nothing to learn.")
        return image_ids, text_ids
    ids = image_ids if image_ids is not None else text_ids
    ids = torch.arange(len(image_features), device=image_features.device) if ids is None else ids
    return ids, ids
