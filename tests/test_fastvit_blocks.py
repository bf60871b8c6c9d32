from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from diptych.model.blocks import reset_to_defaults
from diptych.model.fastvit_blocks import GridAttention, Mixer, Places, Squeeze, Unit
from diptych.torch_runtime import generator

Module = TypeVar("Module", bound=nn.Module)


def drawn(module: Module) -> Module:
    reset_to_defaults(module, generator(0))
    for number, (name, parameter) in enumerate(module.named_parameters()):
        if name == "scale":
            parameter.data.zero_()
        parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=generator(1, number))
    return module.double()


X = torch.randn(2, 64, 5, 4, generator=generator(2)).double()


@torch.no_grad()
def test_attention_is_torchs_own_over_the_positions():
    attention = drawn(GridAttention(64))
    twin = nn.MultiheadAttention(64, 2, batch_first=True, dtype=torch.float64)
    twin.in_proj_weight.copy_(attention.in_projection.weight)
    twin.in_proj_bias.zero_()
    twin.out_proj.load_state_dict(attention.out_projection.state_dict())
    positions = X.flatten(2).transpose(1, 2)
    expected = twin(positions, positions, positions)[0].transpose(1, 2).unflatten(2, (5, 4))
    torch.testing.assert_close(attention(X), expected)


@torch.no_grad()
def test_a_squeeze_weighs_channels_by_what_the_means_of_all_give():
    squeeze = drawn(Squeeze(64, 8))
    inner = F.relu(X.mean(dim=(2, 3)) @ squeeze.down.weight[:, :, 0, 0].T + squeeze.down.bias)
    gate = (inner @ squeeze.up.weight[:, :, 0, 0].T + squeeze.up.bias).sigmoid()
    torch.testing.assert_close(squeeze(X), X * gate[:, :, None, None])
    unit = Unit(drawn(Places(64, fused=True)), squeeze)
    torch.testing.assert_close(unit(X), F.gelu(squeeze(unit.conv(X))))


@torch.no_grad()
def test_a_mixer_is_one_convolution_out_of_training():
    mixer = drawn(Mixer(64))
    for number, norm in enumerate(module for module in mixer.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = torch.randn(64, generator=generator(3, number)).double()
        norm.running_var = 0.5 + torch.rand(64, generator=generator(4, number)).double()
    fused = mixer.eval()(X)
    mixer.train()
    for norm in mixer.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    torch.testing.assert_close(mixer(X), fused)
    plain = X + mixer.scale[:, None, None] * (mixer.look(X) - mixer.norm(X))
    torch.testing.assert_close(fused, plain)
    assert (fused - X).abs().max() > 0.1


@torch.no_grad()
def test_places_are_added_unless_they_are_fused_with_what_they_are_added_to():
    places, fused = drawn(Places(64, fused=False)), drawn(Places(64, fused=True))
    torch.testing.assert_close(places(X) - X, fused(X))
