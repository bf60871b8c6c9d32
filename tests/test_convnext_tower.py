import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.convnext_tower import ConvNeXtBlock, ConvNeXtTower, ConvNeXtTowerConfig
from diptych.model.convolutions import ChannelNorm
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator
from diptych.train.optim import depth_from_top, parameter_groups

CONFIG = ConvNeXtTowerConfig(image_size=64, widths=(8, 12, 20, 24), layers=(1, 2, 3, 1))


def tower_of(config: ConvNeXtTowerConfig, embed_dim: int = 16) -> ConvNeXtTower:
    """A tower of random weights, whose blocks add as much as there is."""
    tower = ConvNeXtTower(config, embed_dim)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(1, number)))
    return tower.eval()


def pictures(count: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=generator(2))


def plain_convnext(weights: dict[str, Tensor], images: Tensor, epsilon: float) -> Tensor:
    """ConvNeXt, layer by layer, channels first all the way: the features before the projection."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).square().mean(dim=1, keepdim=True)
        x = (x - mean) / (variance + epsilon).sqrt()
        return x * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def look(x: Tensor, name: str, **options: int) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight[..., None, None] if weight.ndim == 2 else weight, weights[f"{name}.bias"], **options)

    x = norm(look(images, "stem.0", stride=4), "stem.1")
    for stage, blocks in enumerate(CONFIG.layers):
        at = f"stages.{stage}"
        if stage:
            x = look(norm(x, f"{at}.downsample.0"), f"{at}.downsample.1", stride=2)
        for block in range(blocks):
            inside = f"{at}.blocks.{block}"
            y = norm(look(x, f"{inside}.depthwise", padding=3, groups=x.shape[1]), f"{inside}.norm")
            y = look(F.gelu(look(y, f"{inside}.up")), f"{inside}.down")
            x = x + y * weights[f"{inside}.scale"][:, None, None]
    return norm(x.mean(dim=(2, 3), keepdim=True), "norm").flatten(1)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_the_tower_equals_its_plain_twin(epsilon):
    tower = tower_of(dataclasses.replace(CONFIG, layer_norm_eps=epsilon)).double()
    images = pictures(3, 75).double()  # 11 px of which are left over
    trunk = plain_convnext(tower.state_dict(), images, epsilon)
    assert trunk.shape == (3, 24)
    torch.testing.assert_close(tower.trunk(images), trunk)
    torch.testing.assert_close(tower(images), trunk @ tower.projection.weight.T)
    assert (trunk[0] - trunk[1]).norm() > 0.1


def test_a_projection_is_a_matrix_or_two_layers_with_a_gelu_between_them():
    for bias in (False, True):
        options = {"projection": "mlp", "projection_bias": bias}
        tower = tower_of(dataclasses.replace(CONFIG, **options))
        shapes = {name: tuple(p.shape) for name, p in tower.named_parameters() if name.startswith("projection")}
        last = {"projection.2.weight": (16, 32), **({"projection.2.bias": (16,)} if bias else {})}
        assert shapes == {"projection.0.weight": (32, 24), "projection.0.bias": (32,), **last}
        trunk = tower.trunk(pictures(2))
        first, _, second = tower.projection.children()
        hidden = F.gelu(trunk @ first.weight.T + first.bias)
        torch.testing.assert_close(tower(pictures(2)), F.linear(hidden, second.weight, second.bias))
    named = dict(tower_of(dataclasses.replace(CONFIG, projection_bias=True)).named_parameters())
    assert [name for name in named if name.startswith("projection")] == ["projection.weight", "projection.bias"]


def test_channels_last_reaches_the_pool_without_a_copy():
    tower = tower_of(CONFIG).to(memory_format=torch.channels_last)
    orders = []
    for module in tower.modules():
        if isinstance(module, nn.Conv2d | ChannelNorm | ConvNeXtBlock):
            module.register_forward_hook(
                lambda _module, _inputs, out: orders.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    tower(pictures(2).contiguous(memory_format=torch.channels_last))
    assert len(orders) == 2 + 6 + 2 * 7
    assert all(orders)
    plain = tower_of(CONFIG)
    torch.testing.assert_close(tower(pictures(2)), plain(pictures(2)), rtol=1e-5, atol=1e-5)


def test_a_place_says_what_the_tower_would_make_of_it_alone():
    for projection in ("linear", "mlp"):
        tower = tower_of(dataclasses.replace(CONFIG, projection=projection))
        images = pictures(2, 96)
        grid = tower.grid(images)
        assert grid.shape == (2, 3, 3, 16)
        tokens, feature = tower.tokens_and_feature(images)
        torch.testing.assert_close(grid.flatten(1, 2), tower.project(tower.norm(tokens)))
        torch.testing.assert_close(tower.project(tower.norm(tokens.mean(dim=1))), feature)
        assert (grid[:, 0, 0] - grid[:, 2, 2]).norm(dim=-1).min() > 0.01


def test_every_block_starts_as_next_to_nothing_and_matrices_as_the_released_code_draws_them():
    tower = ConvNeXtTower(ConvNeXtTowerConfig(image_size=32, widths=(32, 64), layers=(2, 2)), 48)
    tower.reset_parameters(generator(0))
    blocks = [module for module in tower.modules() if isinstance(module, ConvNeXtBlock)]
    assert len(blocks) == 4
    x = torch.randn(2, 32, 8, 8, generator=generator(1))
    torch.testing.assert_close(blocks[0](x), x, rtol=0, atol=1e-5)
    assert not torch.equal(blocks[0](x), x)
    for name, parameter in tower.named_parameters():
        if parameter.ndim >= 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        elif name.endswith("bias"):
            assert not parameter.any()


def test_layers_are_counted_by_stage_and_no_gain_decays():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG))
    depths = {name: depth for name, depth in depth_from_top(model).items() if name.startswith("image.")}
    assert {name.split(".")[1]: depth for name, depth in depths.items() if "stages" not in name} == {
        "stem": 5, "norm": 0, "projection": 0,
    }  # fmt: skip
    assert {int(name.split(".")[2]): depth for name, depth in depths.items() if "stages" in name} == {
        0: 4, 1: 3, 2: 2, 3: 1,
    }  # fmt: skip
    _, still = parameter_groups(model, weight_decay=0.1)
    scales = {id(p) for name, p in model.named_parameters() if name.endswith(".scale")}
    assert len(scales) == 7
    assert scales <= {id(p) for p in still["params"]}  # pyright: ignore[reportGeneralTypeIssues]


def test_another_image_size_needs_no_new_weights():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG), generator(0))
    larger = with_image_size(model, 96)
    assert larger.encode_image(torch.zeros(1, 3, 96, 96)).shape == (1, 32)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in larger.state_dict().items())


def test_published_sizes_have_as_many_parameters_as_was_published():
    # Millions, with a classifier of 1,000: table 1 of the paper's appendix, and timm's list for XXL.
    for widths, layers, published in (
        ((96, 192, 384, 768), (3, 3, 9, 3), 28.6),
        ((128, 256, 512, 1024), (3, 3, 27, 3), 88.6),
        ((384, 768, 1536, 3072), (3, 4, 30, 3), 846.5),
    ):
        config = ConvNeXtTowerConfig(widths=widths, layers=layers, projection_bias=True)
        with torch.device("meta"):
            count = sum(p.numel() for p in config.build(1000).parameters()) / 1e6
        assert count == pytest.approx(published, abs=0.06)


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), image=CONFIG)
    assert from_dict(CLIPConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match=r"image\.layers must be numbers of at least 1, one a stage\. Got \[1, 0\]"):
        ConvNeXtTowerConfig(widths=(8, 8), layers=(1, 0))
    with pytest.raises(ConfigError, match=r"as many as there are stages\. Got 3 and 4"):
        ConvNeXtTowerConfig(widths=(8, 8, 8))
    with pytest.raises(ConfigError, match=r"image\.image_size must be at least 32, .* Got 31"):
        ConvNeXtTowerConfig(image_size=31)
    with pytest.raises(ConfigError, match=r"image\.layer_norm_eps must lie between 0 and 1\. Got 0"):
        ConvNeXtTowerConfig(layer_norm_eps=0)
    with pytest.raises(ConfigError, match=r"image\.projection must be 'linear' or 'mlp'\. Got 'none'"):
        ConvNeXtTowerConfig(projection="none")  # pyright: ignore[reportArgumentType]
