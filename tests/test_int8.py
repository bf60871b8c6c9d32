import pytest
import torch
from torch import Tensor, nn

from diptych.train.int8 import BLOCK, Int8AdamW, decoded, encoded
from diptych.train.optim import adamw


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_are_those_worked_by_hand():
    # Shares that are codes exactly: (code / 127) ** 4 and (code / 255) ** 8 of the largest.
    signed = torch.tensor([1.0, -1.0, 0.0, (64 / 127) ** 4, -((2 / 127) ** 4)]) * 8
    codes, scales = encoded(signed, signed=True, chance=chance())
    assert codes.dtype == torch.int8
    assert scales.tolist() == [8.0]
    for code, wanted in zip(codes.tolist(), [127, -127, 0, 64, -2], strict=True):
        assert abs(code - wanted) <= (wanted not in (127, -127, 0))  # rounding of the root may tip it over
    positive = torch.tensor([2.0, 0.0, 2.0 * (128 / 255) ** 8])
    codes, _ = encoded(positive, signed=False, chance=chance())
    assert codes.dtype == torch.uint8
    assert codes.tolist()[:2] == [255, 0]
    assert abs(codes[2].item() - 128) <= 1
    assert decoded(torch.tensor([127, -127, 0, 64], dtype=torch.int8), torch.tensor([8.0])).tolist() == pytest.approx(
        [8, -8, 0, 8 * (64 / 127) ** 4]
    )
    assert decoded(torch.tensor([255, 0, 128], dtype=torch.uint8), torch.tensor([2.0])).tolist() == pytest.approx(
        [2, 0, 2 * (128 / 255) ** 8]
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, BLOCK), (5, 7, 11)])
def test_what_is_decoded_is_a_neighbour_of_what_was_encoded(signed, shape):
    values = torch.randn(shape, generator=chance(1)) * torch.randn(shape, generator=chance(2)).exp()
    values = values if signed else values.square()
    codes, scales = encoded(values, signed=signed, chance=chance())
    assert (codes.shape, len(scales)) == (values.shape, -(-values.numel() // BLOCK))
    power, top = (4, 127) if signed else (8, 255)
    blocks = torch.arange(values.numel()).view(shape) // BLOCK
    place = (values.abs() / scales[blocks]) ** (1 / power) * top  # between two codes
    assert ((codes.int().abs() - place).abs() < 1.001).all()
    again = decoded(codes, scales)
    assert ((again.sign() == values.sign()) | (codes == 0)).all()
    torch.testing.assert_close(again.abs(), (codes.int().abs() / top) ** power * scales[blocks])


def test_a_block_does_not_suffer_from_the_numbers_of_another():
    values = torch.cat([torch.full((BLOCK,), 1e-9), torch.full((BLOCK,), 1e3)])
    again = decoded(*encoded(values, signed=True, chance=chance()))
    torch.testing.assert_close(again, values)


def test_a_second_moment_above_0_stays_above_0():
    values = torch.tensor([1.0, 1e-30, 0.0])
    assert (decoded(*encoded(values, signed=False, chance=chance())) > 0).tolist() == [True, True, False]
    nothing = torch.zeros(4)
    assert decoded(*encoded(nothing, signed=False, chance=chance())).equal(nothing)


def test_numbers_between_two_codes_go_to_either_in_proportion():
    value = (40.25 / 127) ** 4
    values = torch.full((100 * BLOCK,), value)
    values[::BLOCK] = 1.0  # the scale of each block
    codes, _ = encoded(values, signed=True, chance=chance())
    counts = codes[codes < 127].float()
    assert set(counts.tolist()) == {40.0, 41.0}
    assert counts.mean().item() == pytest.approx(40.25, abs=0.02)  # 25,500 draws: three standard errors are 0.008


def updates(state: str, steps: int, *, beta2: float = 0.98, spread: float = 0.0) -> tuple[list[Tensor], list[Tensor]]:
    """Where parameters start and end, under gradients that are a function of their number."""
    draws = chance()
    parameters = [nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((64, 32), (16,))]
    start = [parameter.detach().clone() for parameter in parameters]
    sizes = [(spread * torch.randn(p.shape, generator=draws)).exp() for p in parameters]
    groups = [{"params": parameters[:1], "weight_decay": 0.2}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = adamw(groups, betas=(0.9, beta2), epsilon=1e-6, state=state)  # pyright: ignore[reportArgumentType]
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(steps):
        for parameter, size in zip(parameters, sizes, strict=True):
            parameter.grad = (torch.randn(parameter.shape, generator=draws) + 0.5) * size
        optimizer.step()
    return start, [parameter.detach() for parameter in parameters]


def test_the_first_step_is_adamws():
    (_, ours), (_, theirs) = updates("int8", 1), updates("float32", 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # moments are used before they are rounded


@pytest.mark.parametrize(
    ("beta2", "spread", "bound"), [(0.98, 0.0, 0.03), (0.999, 0.0, 0.05), (0.98, 1.0, 0.05), (0.98, 2.0, 0.12)]
)
def test_it_goes_where_adamw_goes(beta2, spread, bound):
    """Distance after 300 steps as a share of the way; gradients of a block up to e**(3 * spread) apart, either side."""
    (start, theirs), (_, ours) = (updates(state, 300, beta2=beta2, spread=spread) for state in ("float32", "int8"))
    for our, their, first in zip(ours, theirs, start, strict=True):
        assert (our - their).norm() < bound * (their - first).norm()


def test_moments_take_two_bytes_a_parameter_and_8_bytes_a_block():
    parameter = nn.Parameter(torch.randn(10 * BLOCK + 1))
    optimizer = Int8AdamW([{"params": [parameter]}], betas=(0.9, 0.98), epsilon=1e-6)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    size = sum(t.nbytes for name, t in optimizer.state[parameter].items() if name != "step")
    assert size == 2 * (10 * BLOCK + 1) + 11 * 8


def test_the_memory_order_of_a_parameter_changes_nothing():
    ends = []
    for order in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(torch.randn(8, 6, 3, 3, generator=chance()).to(memory_format=order))
        optimizer = Int8AdamW([{"params": [parameter]}], betas=(0.9, 0.98), epsilon=1e-6)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        for step in range(3):
            parameter.grad = torch.randn(8, 6, 3, 3, generator=chance(step)).to(memory_format=order)
            optimizer.step()
        assert optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
        ends.append(parameter.detach())
    assert torch.equal(*ends)
