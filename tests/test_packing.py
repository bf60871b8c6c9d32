"""Texts without their padding: the same features and gradients, where it pays."""

import copy

import pytest
import torch
from torch import Tensor

from diptych.model.packing import packed
from diptych.model.text_tower import TextTower, TextTowerConfig
from diptych.torch_runtime import generator

LENGTHS = [3, 9, 1, 4, 4, 12, 5, 2, 16, 4]


def texts(lengths: list[int], *, context: int = 16) -> Tensor:
    """[B, L], their end token 19 the highest id, padded with 0."""
    tokens = torch.randint(1, 19, (len(lengths), context), generator=torch.Generator().manual_seed(0))
    for row, length in zip(tokens, lengths, strict=True):
        row[length - 1] = 19
        row[length:] = 0
    return tokens[:, : max(lengths)]


def towers(dtype: torch.dtype = torch.float64) -> tuple[TextTower, TextTower]:
    """One that pads and one that packs, of the same weights."""
    tower = TextTower(TextTowerConfig(context_length=16, vocab_size=20, width=8, layers=2, heads=2), 6)
    tower.reset_parameters(generator(0))
    tower = tower.to(dtype)
    packing = copy.deepcopy(tower)
    packing.packs = True
    return tower, packing


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [1, 7], [2, 2, 2, 2, 2, 2, 2, 16], [5, 1, 1]])
def test_packed_texts_have_the_features_and_gradients_of_padded_ones(lengths, recomputes):
    tokens, (padded, packing) = texts(lengths), towers()
    assert packed(tokens, torch.tensor(lengths) - 1)
    packing.blocks.recomputes = recomputes
    weights = torch.randn(len(lengths), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    features = [tower(tokens) for tower in (padded, packing)]
    torch.testing.assert_close(*features, rtol=0, atol=1e-12)
    for values in features:
        (values * weights).sum().backward()
    for name, parameter in padded.named_parameters():
        torch.testing.assert_close(packing.get_parameter(name).grad, parameter.grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize(("precision", "off"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_packed_texts_differ_by_rounding(precision, off):
    tokens = texts(LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        padded, packing = (torch.nn.functional.normalize(tower(tokens).float()) for tower in towers(torch.float32))
    torch.testing.assert_close(packing, padded, rtol=0, atol=off)


def test_each_token_lies_where_the_packing_says():
    tokens = texts(LENGTHS)
    packing = packed(tokens, torch.tensor(LENGTHS) - 1)
    assert packing
    by_length = sorted(range(len(LENGTHS)), key=lambda number: LENGTHS[number])
    plain = [(number, place) for number in by_length for place in range(LENGTHS[number])]
    assert packing.tokens.tolist() == [tokens[spot].item() for spot in plain]
    assert packing.positions.tolist() == [place for _, place in plain]
    assert [plain[end] for end in packing.ends.tolist()] == [(n, length - 1) for n, length in enumerate(LENGTHS)]


def test_work_on_texts_sees_texts_whole_with_zeros_behind_them():
    packing = packed(texts(LENGTHS), torch.tensor(LENGTHS) - 1)
    assert packing
    rows = torch.randn(sum(LENGTHS), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[Tensor] = []

    def work(some: Tensor) -> Tensor:
        seen.append(some)
        return some.cumsum(dim=1)

    plain = torch.cat([text.cumsum(dim=0) for text in rows.split(sorted(LENGTHS))])
    torch.testing.assert_close(packing.by_text(rows, work), plain)
    assert sum(int((some != 0).any(dim=2).sum()) for some in seen) == sum(LENGTHS)
    assert max(some.shape[1] for some in seen) == 16
    assert min(some.shape[1] for some in seen) < 16


def test_derivatives_of_packing_are_right_twice():
    lengths = [1, 2, 5, 3, 3]
    packing = packed(texts(lengths), torch.tensor(lengths) - 1)
    assert packing
    rows = torch.randn(sum(lengths), 2, dtype=torch.float64, requires_grad=True)

    def twice(rows: Tensor) -> Tensor:
        return packing.by_text(rows, lambda some: some.square().cumsum(dim=1))

    torch.autograd.gradcheck(twice, rows)
    torch.autograd.gradgradcheck(twice, rows)


def test_texts_of_about_one_length_are_left_padded():
    lengths = [10, 10, 10, 9, 9, 9]  # 57 of 60: a twentieth is padding
    assert packed(texts(lengths), torch.tensor(lengths) - 1) is None
    assert packed(torch.zeros(0, 5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)) is None
    assert packed(texts(LENGTHS).to("meta"), (torch.tensor(LENGTHS) - 1).to("meta")) is None


def test_nothing_is_packed_outside_of_training():
    tokens, (padded, packing) = texts(LENGTHS), towers(torch.float32)
    assert torch.equal(packing.eval()(tokens), padded(tokens))
