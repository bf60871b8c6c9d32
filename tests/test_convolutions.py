from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.batch_norm import BatchNorm2d
from diptych.model.blocks import Conv2d, reset_to_defaults
from diptych.model.convolutions import Branch, Branched, ChannelNorm, affine, branched, centred
from diptych.torch_runtime import generator

Module = TypeVar("Module", bound=nn.Module)


def shaken(module: Module) -> Module:
    """With random weights, and batch norms that have seen something."""
    reset_to_defaults(module, generator(0))
    for number, layer in enumerate(module.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            for part, values in enumerate((layer.weight, layer.bias, layer.running_mean, layer.running_var)):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5, generator=generator(number, part))
    return module.double()


def plain(module: Branched, x: Tensor) -> Tensor:
    """Branch by branch, each with the statistics that it has."""

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        x = (x - layer.running_mean[:, None, None]) / (layer.running_var + 1e-5).sqrt()[:, None, None]
        return x * layer.weight[:, None, None] + layer.bias[:, None, None]

    whole = torch.zeros(1, dtype=x.dtype)
    for branch in module.branches:
        assert isinstance(branch, Branch)
        conv = branch.conv
        y = F.conv2d(x, conv.weight, None, module.stride, conv.kernel_size[0] // 2, 1, module.groups)
        whole = whole + norm(y, branch.norm)
    return whole if module.identity is None else whole + norm(x, module.identity)


@pytest.mark.parametrize(
    ("out", "kernels", "options"),
    [
        (6, (3, 1), {}),
        (6, (3, 1), {"has_identity": True}),
        (6, (3, 1), {"has_identity": True, "groups": 6}),
        (12, (7, 3), {"stride": 2, "groups": 6}),
        (6, (1,), {"has_identity": True}),
        (6, (7,), {"groups": 6}),
    ],
)
@torch.no_grad()
def test_the_sum_of_branches_is_one_convolution(out, kernels, options):
    module = shaken(Branched(6, out, kernels, **options)).eval()
    x = torch.randn(2, 6, 13, 13, generator=generator(1)).double()
    expected = plain(module, x)
    torch.testing.assert_close(module(x), expected)
    conv = branched(6, out, kernels, **options, fused=True)
    assert isinstance(conv, Conv2d)
    conv.double().load_state_dict(dict(zip(("weight", "bias"), module.fused(), strict=True)))
    torch.testing.assert_close(conv(x), expected)


def test_in_training_each_branch_is_normed_by_what_it_sees_and_remembers_it():
    module = shaken(Branched(6, 6, (3, 1), has_identity=True)).train()
    x = torch.randn(4, 6, 9, 9, generator=generator(1)).double()
    y = module(x)
    assert not torch.allclose(y, plain(module, x))
    shifts = torch.stack([norm.bias for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]).sum(dim=0)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), shifts)  # three normed parts
    assert module.identity is not None
    assert module.identity.num_batches_tracked == 1


def test_a_norm_whose_statistics_are_frozen_keeps_them_in_training():
    module = shaken(Branched(6, 6, (3, 1), has_identity=True)).train()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    x = torch.randn(4, 6, 9, 9, generator=generator(1)).double()
    torch.testing.assert_close(module(x), plain(module, x))


def test_gradients_reach_every_branch_out_of_training_too():
    module = shaken(Branched(6, 6, (3, 1), has_identity=True)).eval()
    module(torch.randn(2, 6, 9, 9, generator=generator(1)).double()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@torch.no_grad()
def test_a_centred_kernel_multiplies_each_channel():
    gain, x = torch.randn(6, generator=generator(1)), torch.randn(2, 6, 5, 5, generator=generator(2))
    for groups in (1, 2, 6):
        kernel = centred(gain, groups, 3)
        assert kernel.shape == (6, 6 // groups, 3, 3)
        torch.testing.assert_close(F.conv2d(x, kernel, padding=1, groups=groups), x * gain[:, None, None])


@torch.no_grad()
def test_gain_and_shift_are_what_a_batch_norm_does():
    norm = shaken(BatchNorm2d(6)).eval()
    x = torch.randn(2, 6, 5, 5, generator=generator(2)).double()
    gain, shift = affine(norm)
    torch.testing.assert_close(norm(x), x * gain[:, None, None] + shift[:, None, None])


@torch.no_grad()
def test_a_channel_norm_looks_at_each_position_alone():
    norm = ChannelNorm(6, 1e-2)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator(0))
    nn.init.uniform_(norm.bias, -1, 1, generator=generator(1))
    x = torch.randn(2, 6, 3, 3, generator=generator(2))
    at = x[1, :, 2, 0]
    plain = (at - at.mean()) / (at.var(correction=0) + 1e-2).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 0], plain)
