import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diptych.errors import DataError, ShapeError, TrainingError
from diptych.train import loss as loss_module
from diptych.train.loss import LogitBlock, LogSums, clip_loss, match, siglip_loss, with_gradients

# Ids of six pictures and of as many texts or more; None: not given.
IDS = {
    "pairs": (None, None),
    "all captions differ": (None, [0, 1, 2, 3, 4, 5]),
    "captions that recur": (None, [4, 1, 4, 2, 1, 4]),
    "one caption": (None, [3, 3, 3, 3, 3, 3]),
    "pictures that recur": ([7, 7, 1, 0, 1, 7], None),
    "several captions a picture": ([0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2, 3, 4, 5]),
    "hard negative texts": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, -1, -1, -1]),
    "hard negatives on both sides": ([-2, 1, 1, 3, -2, 5], [5, 3, 9, 1, 1, 3, 9, 8]),
}
every_kind_of_ids = pytest.mark.parametrize("ids", IDS.values(), ids=IDS)


@pytest.fixture(params=[1, 4, 1024], ids="tile {}".format)
def tile(request, monkeypatch) -> None:
    """Six rows are six tiles, two of unequal size, or one."""
    monkeypatch.setattr(loss_module, "TILE", request.param)


def random_inputs(images: int, texts: int, width: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, logit scale and logit bias, in float64."""
    generator = torch.Generator().manual_seed(seed)
    features = [F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64)) for n in (images, texts)]
    scale, bias = (torch.tensor(value, dtype=torch.float64) for value in (7.0, -2.0))
    return features[0].requires_grad_(), features[1].requires_grad_(), scale.requires_grad_(), bias.requires_grad_()


def inputs_for(ids) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return random_inputs(6, len(ids[1]) if ids[1] else 6)


def as_arguments(ids) -> dict[str, Tensor | None]:
    return {
        name: None if values is None else torch.tensor(values)
        for name, values in zip(("image_ids", "text_ids"), ids, strict=True)
    }


def ids_of_both_sides(ids) -> tuple[list[int], list[int]]:
    image_ids, text_ids = ids
    either = image_ids or text_ids or list(range(6))
    return image_ids or either, text_ids or either


def pair_by_pair_loss(images: Tensor, texts: Tensor, scale: Tensor, ids=(None, None)) -> Tensor:
    """The plain twin: for each row that has a match, the mean of -log p over its matches; half of each side's mean."""
    image_ids, text_ids = ids_of_both_sides(ids)
    sides = []
    for rows, columns, row_ids, column_ids in (
        (images, texts, image_ids, text_ids),
        (texts, images, text_ids, image_ids),
    ):
        terms = []
        for i, row in enumerate(rows):
            weights = [torch.exp(scale * row.dot(column)) for column in columns]
            log_shares = [
                torch.log(weights[j] / sum(weights)) for j in range(len(columns)) if column_ids[j] == row_ids[i]
            ]
            if log_shares:
                terms.append(-sum(log_shares) / len(log_shares))
        sides.append(torch.stack(terms).mean())
    return torch.stack(sides).mean()


def pair_by_pair_sigmoid_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, ids=(None, None)) -> Tensor:
    """The plain twin: -log sigmoid(logit) for each match, -log sigmoid(-logit) for all other pairs."""
    image_ids, text_ids = ids_of_both_sides(ids)
    terms = []
    for image, image_id in zip(images, image_ids, strict=True):
        for text, text_id in zip(texts, text_ids, strict=True):
            logit = scale * image.dot(text) + bias
            terms.append(torch.log(1 + torch.exp(-logit if image_id == text_id else logit)))
    return torch.stack(terms).sum() / len(images)


def cross_entropy_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """The plain twin that is as fast as torch, for pairs alone."""
    logits, target = scale * images @ texts.T, torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def assert_same_loss_and_gradients(loss: Tensor, twin: Tensor, inputs, *, rtol: float, atol: float) -> None:
    torch.testing.assert_close(loss, twin, rtol=rtol, atol=atol)
    gradients = torch.autograd.grad(loss, inputs), torch.autograd.grad(twin, inputs)
    torch.testing.assert_close(*gradients, rtol=rtol, atol=atol)


def test_two_pairs_worked_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # the first is wrong, the second right
    # Times 2, the logits are [[0, 0], [2, 2]]: rows give log 2 each; columns give log(e^0 + e^2) - 0 and - 2.
    per_image = math.log(2)
    per_text = math.log(1 + math.exp(2)) - 1
    assert clip_loss(images, texts, 2.0).item() == pytest.approx((per_image + per_text) / 2)
    # Sigmoid, bias -1: logits [[-1, -1], [1, 1]], of which -1 and 1 on the diagonal are matches.
    answers = [-1, 1, -1, 1]  # the logit where a match is asked for, minus the logit elsewhere
    expected = sum(math.log(1 + math.exp(-answer)) for answer in answers) / 2
    assert siglip_loss(images, texts, 2.0, -1.0).item() == pytest.approx(expected)


def test_a_hard_negative_text_is_a_column_of_the_pictures_and_no_row_of_its_own():
    features = torch.eye(3)
    # Logits [[2, 0, 0], [0, 2, 0]]: pictures choose among three texts, the two true texts among two pictures.
    per_image, per_text = (math.log(math.exp(2) + wrong) - 2 for wrong in (2, 1))
    loss = clip_loss(features[:2], features, 2.0, image_ids=torch.tensor([0, 1]), text_ids=torch.tensor([0, 1, -1]))
    assert loss.item() == pytest.approx((per_image + per_text) / 2)


def test_chance_is_log_of_the_batch_with_or_without_ids(tile):
    for ids in IDS.values():
        images, texts, _, _ = inputs_for(ids)
        loss = clip_loss(images, texts, 0.0, **as_arguments(ids))
        assert loss.item() == pytest.approx((math.log(len(images)) + math.log(len(texts))) / 2)
        loss = siglip_loss(images, texts, 0.0, 0.0, **as_arguments(ids))
        assert loss.item() == pytest.approx(len(texts) * math.log(2))


def test_the_least_of_rows_with_n_positives_is_log_n():
    features = torch.eye(2).repeat_interleave(3, dim=0)  # two texts, three times each
    text_ids = torch.tensor([0, 0, 0, 1, 1, 1])
    assert clip_loss(features, features, 100.0, text_ids=text_ids).item() == pytest.approx(math.log(3))


@every_kind_of_ids
def test_loss_and_gradients_equal_those_of_the_plain_twin(ids, tile):
    images, texts, scale, _ = inputs = inputs_for(ids)
    loss, twin = clip_loss(images, texts, scale, **as_arguments(ids)), pair_by_pair_loss(images, texts, scale, ids)
    assert_same_loss_and_gradients(loss, twin, inputs[:3], rtol=1e-9, atol=1e-12)
    loss, twin = siglip_loss(*inputs, **as_arguments(ids)), pair_by_pair_sigmoid_loss(*inputs, ids)
    assert_same_loss_and_gradients(loss, twin, inputs, rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_has_nothing_to_choose_from():
    images, texts, scale, _ = random_inputs(1, 1)
    loss = clip_loss(images, texts, scale)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (images, texts, scale)))


@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("agreement", [0.0, 1.0, 20.0])  # from chance to a loss near 0
def test_float32_is_as_near_to_the_truth_as_the_twin_in_float32(monkeypatch, scale, agreement):
    monkeypatch.setattr(loss_module, "TILE", 128)
    images, noise, _, _ = random_inputs(300, 300, width=32)
    texts = F.normalize(agreement * images + noise).detach().requires_grad_()
    exact_inputs = images, texts, torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    inputs = [values.detach().float().requires_grad_() for values in exact_inputs]
    results = []
    for loss_of, arguments in (
        (clip_loss, inputs),
        (cross_entropy_loss, inputs),
        (cross_entropy_loss, exact_inputs),
    ):
        loss = loss_of(*arguments)
        results.append([loss.detach(), *torch.autograd.grad(loss, arguments)])
    for ours, twin, exact in zip(*results, strict=True):
        error, error_of_twin = (float((values - exact).abs().max()) for values in (ours, twin))
        assert error <= 3 * error_of_twin + 1e-7 * float(exact.abs().max())


def test_a_row_whose_best_logit_is_far_below_the_others_keeps_its_gradient(tile):
    """exp(-200) is 0 in float32: a common shift for all rows would lose the first one."""
    axis = torch.tensor([1.0, 0.0])
    images = torch.stack([-axis, axis, axis]).requires_grad_()
    texts = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]])).requires_grad_()
    scale = torch.tensor(100.0, requires_grad=True)
    inputs = images, texts, scale
    assert_same_loss_and_gradients(clip_loss(*inputs), cross_entropy_loss(*inputs), inputs, rtol=1e-5, atol=1e-5)


def test_texts_that_all_differ_make_the_diagonal_the_target():
    *inputs, _ = random_inputs(6, 6)
    ids = torch.tensor([7, 3, 5, 1, 0, 2])
    assert clip_loss(*inputs, text_ids=ids) == clip_loss(*inputs, image_ids=ids) == clip_loss(*inputs)


def test_rows_with_one_and_the_same_text_feature_need_no_ids():
    """So ids matter where one caption comes in several templates."""
    images, texts, scale, _ = random_inputs(6, 6)
    ids = torch.tensor([0, 1, 0, 2, 0, 1])
    same = texts.detach()[ids].requires_grad_()
    with_ids, without = clip_loss(images, same, scale, text_ids=ids), clip_loss(images, same, scale)
    torch.testing.assert_close(with_ids, without)
    image_gradients, text_gradients = zip(
        *(torch.autograd.grad(loss, (images, same)) for loss in (with_ids, without)), strict=True
    )
    torch.testing.assert_close(*image_gradients)
    per_text = [torch.zeros(3, 4, dtype=torch.float64).index_add(0, ids, gradient) for gradient in text_gradients]
    torch.testing.assert_close(*per_text)


@every_kind_of_ids
def test_images_and_texts_may_trade_places(ids, tile):
    images, texts, scale, _ = inputs_for(ids)
    swapped = clip_loss(texts, images, scale, **as_arguments(ids[::-1]))
    torch.testing.assert_close(clip_loss(images, texts, scale, **as_arguments(ids)), swapped)


def gathered_over_ranks(inputs, ids, ranks: int) -> list[Tensor]:
    """Each rank has its own pictures and all texts; what is summed below, ranks would all-reduce or reduce-scatter."""
    images, texts, scale, bias = inputs
    image_targets, text_targets = match(*(torch.tensor(values) for values in ids), dtype=images.dtype)
    own = [slice(rank, len(images), ranks) for rank in range(ranks)]
    targets = [image_targets.rows(rows) for rows in own]
    blocks = [
        LogitBlock(images[rows], texts, scale, rank, text_targets) for rows, rank in zip(own, targets, strict=True)
    ]
    by_image, by_text = zip(*(block.softmax_sums() for block in blocks), strict=True)
    all_by_text = merged(by_text)
    loss = all_by_text.loss(text_targets)
    for sums, rank in zip(by_image, targets, strict=True):
        loss += sums.loss(rank)
    parts = [block.softmax_gradients(sums, all_by_text) for block, sums in zip(blocks, by_image, strict=True)]
    sigmoid_losses, sigmoid_parts = zip(*(block.sigmoid_loss(bias, batch=len(images)) for block in blocks), strict=True)
    image_gradients = []
    for each in (parts, sigmoid_parts):
        image_gradients.append(torch.empty_like(images))
        for rows, part in zip(own, each, strict=True):
            image_gradients[-1][rows] = part[0]
    others = [
        [torch.stack(part).sum(dim=0) for part in list(zip(*each, strict=True))[1:]] for each in (parts, sigmoid_parts)
    ]
    sigmoid_loss = torch.stack(sigmoid_losses).sum()
    return [loss, image_gradients[0], *others[0], sigmoid_loss, image_gradients[1], *others[1]]


def sent_round_a_ring(inputs, ids, ranks: int) -> list[Tensor]:
    """No rank holds all texts: blocks of texts go round, with their sums, then with their gradients."""
    images, texts, scale, bias = inputs
    image_targets, text_targets = match(*(torch.tensor(values) for values in ids), dtype=images.dtype)
    row_sets = [torch.arange(len(images)).tensor_split(ranks), torch.arange(len(texts)).tensor_split(ranks)]
    own_images, own_texts = ([slice(int(rows[0]), int(rows[-1]) + 1) for rows in row_set] for row_set in row_sets)

    def block(i: slice, j: slice) -> LogitBlock:
        return LogitBlock(images[i], texts[j], scale, image_targets.rows(i), text_targets.rows(j))

    sums = [[block(i, j).softmax_sums() for j in own_texts] for i in own_images]
    by_image = [merged([by_image for by_image, _ in row]) for row in sums]
    by_text = [merged([by_text for _, by_text in column]) for column in zip(*sums, strict=True)]
    loss = torch.zeros_like(scale)
    for i, j, of_images, of_texts in zip(own_images, own_texts, by_image, by_text, strict=True):
        loss += of_images.loss(image_targets.rows(i)) + of_texts.loss(text_targets.rows(j))
    totals = [torch.zeros_like(values) for values in (images, texts, scale, images, texts, scale, bias)]
    sigmoid_total = torch.zeros_like(scale)
    for r, i in enumerate(own_images):
        for c, j in enumerate(own_texts):
            parts = block(i, j).softmax_gradients(by_image[r], by_text[c])
            sigmoid_part, sigmoid_parts = block(i, j).sigmoid_loss(bias, batch=len(images))
            sigmoid_total += sigmoid_part
            for total, rows, part in zip(totals, (i, j, ..., i, j, ..., ...), (*parts, *sigmoid_parts), strict=True):
                total[rows] += part
    return [loss, *totals[:3], sigmoid_total, *totals[3:]]


def merged(sums) -> LogSums:
    first, *others = sums
    for other in others:
        first = first.merge(other)
    return first


@pytest.mark.parametrize("shared_by", [gathered_over_ranks, sent_round_a_ring])
@pytest.mark.parametrize("ranks", [2, 4])
@every_kind_of_ids
def test_blocks_of_several_ranks_add_up_to_the_loss_and_gradients_of_one(ids, ranks, shared_by, tile):
    inputs = inputs_for(ids)
    three = inputs[:3]
    softmax, sigmoid = clip_loss(*three, **as_arguments(ids)), siglip_loss(*inputs, **as_arguments(ids))
    expected = [softmax, *torch.autograd.grad(softmax, three), sigmoid, *torch.autograd.grad(sigmoid, inputs)]
    with torch.no_grad():
        shared = shared_by(inputs, ids_of_both_sides(ids), ranks)
    torch.testing.assert_close(shared, expected, rtol=1e-10, atol=1e-13)


def test_gradients_of_one_block_are_the_same_when_asked_for_twice():
    images, texts, scale, _ = random_inputs(6, 6)
    ids = torch.arange(6)
    block = LogitBlock(images, texts, scale, *match(ids, ids, dtype=images.dtype))
    sums = block.softmax_sums()
    assert all(map(torch.equal, block.softmax_gradients(*sums), block.softmax_gradients(*sums)))


def test_known_gradients_take_part_in_the_chain_rule():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (with_gradients(torch.tensor(5.0), (x * 10,), (torch.tensor([3.0, 4.0]),)) * 2).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [60.0, 80.0]


class _LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.untyped_storage().nbytes() // value.element_size())
        return out


def test_no_tensor_is_larger_than_the_features_or_a_tile(monkeypatch):
    monkeypatch.setattr(loss_module, "TILE", 16)
    inputs = random_inputs(200, 200)
    for loss_of, arguments in ((clip_loss, inputs[:3]), (siglip_loss, inputs)):
        with _LargestTensor() as largest:
            loss_of(*arguments).backward()
        assert largest.numel == 200 * 4  # 16 * 16 is less, 200 * 200 would be the matrix


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_computed_in_float32_and_get_gradients_of_their_own_type(dtype):
    images, texts, scale, bias = (values.detach().to(dtype).requires_grad_() for values in random_inputs(6, 6))
    wide = [values.detach().float().requires_grad_() for values in (images, texts, scale, bias)]
    for loss_of, count in ((clip_loss, 3), (siglip_loss, 4)):
        loss, expected = loss_of(*(images, texts, scale, bias)[:count]), loss_of(*wide[:count])
        assert loss.dtype == torch.float32
        assert loss == expected
        gradients = torch.autograd.grad(loss, (images, texts))
        expected_gradients = torch.autograd.grad(expected, wide[:2])
        assert all(map(torch.equal, gradients, (gradient.to(dtype) for gradient in expected_gradients)))


def test_autocast_changes_nothing(tile):
    inputs = [values.detach().float().requires_grad_() for values in random_inputs(6, 6)]
    for loss_of, arguments in ((clip_loss, inputs[:3]), (siglip_loss, inputs)):
        loss = loss_of(*arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under_autocast = loss_of(*arguments)
        assert loss == under_autocast
        gradients = (torch.autograd.grad(each, arguments) for each in (loss, under_autocast))
        assert all(map(torch.equal, *gradients))


def test_only_what_is_trained_gets_a_gradient():
    images, texts, scale, _ = random_inputs(6, 6)
    clip_loss(images.detach(), texts, scale).backward()
    assert images.grad is None
    assert texts.grad is not None
    assert not clip_loss(images.detach(), texts.detach(), 7.0).requires_grad
    with torch.no_grad():
        assert not clip_loss(images, texts, scale).requires_grad


def test_a_second_derivative_is_refused():
    images, texts, scale, _ = random_inputs(6, 6)
    with pytest.raises(TrainingError, match="can be differentiated once, and create_graph=True asks for twice"):
        torch.autograd.grad(clip_loss(images, texts, scale), images, create_graph=True)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (
            (3, 8),
            (4, 8),
            r"image_features \[3, 8\] and text_features \[4, 8\] must be paired row by row, both \[B, D\]",
        ),
        ((3, 8), (3, 4), r"image_features \[3, 8\] and text_features \[3, 4\] must be paired"),
        ((8,), (8,), r"image_features \[8\] and text_features \[8\] must be paired"),
    ],
)
def test_unpaired_batches_are_named(images, texts, message):
    with pytest.raises(ShapeError, match=message):
        clip_loss(torch.zeros(images), torch.zeros(texts), 1.0)
    with pytest.raises(ShapeError, match=message):
        siglip_loss(torch.zeros(images), torch.zeros(texts), 1.0, 0.0)


def test_ids_of_another_batch_are_named():
    features = torch.zeros(3, 8)
    with pytest.raises(ShapeError, match=r"text_ids must be \[B\] = \[3\]. Got \[4\]"):
        clip_loss(features, features, 1.0, text_ids=torch.arange(4))
    with pytest.raises(ShapeError, match=r"image_ids must be \[B\] = \[3\]. Got \[3, 1\]"):
        siglip_loss(features, features, 1.0, 0.0, image_ids=torch.zeros(3, 1))


def test_ids_of_which_none_match_are_refused():
    with pytest.raises(DataError, match=r"at least one of image_ids must be among text_ids. None is"):
        clip_loss(torch.eye(3), torch.eye(3), 1.0, image_ids=torch.arange(3), text_ids=torch.arange(3, 6))
