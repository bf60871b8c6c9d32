import dataclasses

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model import efficientnet_tower
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.efficientnet_tower import (
    EfficientNetTower,
    EfficientNetTowerConfig,
    InvertedBottleneck,
    cubic_weights,
)
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator

SMALL = EfficientNetTowerConfig(image_size=64, width=0.25, depth=1.0, final_width=1280)


def tower_of(config: EfficientNetTowerConfig, embed_dim: int = 8) -> EfficientNetTower:
    model = CLIP(dataclasses.replace(preset("tiny-vit"), embed_dim=embed_dim, image=config), generator(0)).eval()
    assert isinstance(model.image, EfficientNetTower)
    return model.image


def theirs(name: str, image_size: int) -> EfficientNet:
    """The foreign model with random weights, its batch norms' statistics included."""
    model = EfficientNet.from_name(name, num_classes=10, image_size=image_size).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = len(module.weight)
            module.weight.data = 1 + torch.rand(count, generator=generator(1))
            module.bias.data = torch.randn(count, generator=generator(2)) / 4
            module.running_mean = torch.randn(count, generator=generator(3)) / 4
            module.running_var = 0.5 + torch.rand(count, generator=generator(4))
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator(5)) * fan_in**-0.5
    return model


def fold(conv: nn.Module, norm: nn.Module) -> dict[str, Tensor]:
    """One convolution that does what a convolution and a batch norm do."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias - norm.running_mean * factor
    return {"weight": conv.weight * factor[:, None, None, None], "bias": bias}


@pytest.mark.parametrize(
    ("name", "width", "depth", "side"),
    [("efficientnet-lite0", 1.0, 1.0, 64), ("efficientnet-lite2", 1.1, 1.2, 70)],  # 70: odd sides on the way down
)
@torch.no_grad()
def test_a_tower_equals_the_released_network(name: str, width: float, depth: float, side: int):
    # In float64: random weights blow up the rounding of float32 from layer to layer.
    twin = theirs(name, side).double()
    tower = tower_of(EfficientNetTowerConfig(image_size=side, width=width, depth=depth)).double()
    tower.stem.load_state_dict(fold(twin._conv_stem, twin._bn0))
    tower.last.load_state_dict(fold(twin._conv_head, twin._bn1))
    blocks = [block for stage in tower.stages.children() for block in stage.children()]
    for block, their_block in zip(blocks, twin._blocks, strict=True):
        assert isinstance(block, InvertedBottleneck)
        if block.widen is not None:
            block.widen.load_state_dict(fold(their_block._expand_conv, their_block._bn0))
        block.depthwise.load_state_dict(fold(their_block._depthwise_conv, their_block._bn1))
        block.narrow.load_state_dict(fold(their_block._project_conv, their_block._bn2))
    images = torch.randn(2, 3, side, side, generator=generator(6)).double()
    features = tower.trunk(images)
    torch.testing.assert_close(features, twin.extract_features(images).mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)
    assert (features[0] - features[1]).abs().max() > 0.01  # the two pictures are told apart
    in_other_order = tower.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(
        in_other_order,
        tower.projection(features) / tower.projection(features).norm(dim=1, keepdim=True),
        rtol=1e-5,
        atol=1e-5,
    )


@torch.no_grad()
def test_a_feature_is_the_sum_of_two_looks_of_unit_length():
    tower, once = (
        tower_of(dataclasses.replace(SMALL, second_size=32)),
        tower_of(dataclasses.replace(SMALL, image_size=32)),
    )
    images = torch.rand(2, 3, 64, 64, generator=generator(1))
    smaller = F.interpolate(images, (32, 32), mode="bicubic", align_corners=False, antialias=True)
    first, second = once.trunk(images), once.trunk(smaller)
    torch.testing.assert_close(tower.trunk(images), torch.cat([first, second], dim=1))
    units = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in map(tower.projection, (first, second))]
    torch.testing.assert_close(tower(images), units[0] + units[1])
    assert (units[0] - units[1]).norm(dim=1).min() > 0.01


@torch.no_grad()
def test_a_batch_that_is_taken_in_pieces_gives_what_each_picture_gives(monkeypatch: pytest.MonkeyPatch):
    tower = tower_of(dataclasses.replace(SMALL, second_size=32))
    images = torch.rand(5, 3, 64, 64, generator=generator(1))
    one_by_one = torch.cat([tower.trunk(images[row : row + 1]) for row in range(5)])
    seen: list[int] = []
    tower.stem.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    monkeypatch.setattr(efficientnet_tower, "_CACHED", 2 * 64 * 64 // torch.get_num_threads())
    torch.testing.assert_close(tower.trunk(images), one_by_one)
    assert seen == [2, 2, 1, 5]  # of 64 px two at a time, of 32 px all
    assert tower.trunk(images[:0]).shape == (0, 2 * 1280)


def test_sizes_follow_the_factors():
    lite2 = EfficientNetTowerConfig(width=1.1, depth=1.2)
    assert [stage[0] for stage in lite2.stages] == [1, 3, 3, 4, 4, 5, 1]  # rounded up, the first and the last stay
    assert [stage[4] for stage in lite2.stages] == [16, 24, 48, 88, 120, 208, 352]  # multiples of 8
    shapes = CLIP(dataclasses.replace(preset("tiny-vit"), image=EfficientNetTowerConfig())).image.state_dict()
    head = sum(value.numel() for name, value in shapes.items() if name.startswith("projection"))
    assert head == 1281 * 32
    # Those of the released lite0, but for the classifier and one of the two that a batch norm has a channel.
    assert sum(value.numel() for value in shapes.values()) - head == 4_652_008 - 21_008 - 1281 * 1000


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), image=SMALL)
    assert from_dict(CLIPConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match=r"image\.depth must be above 0\. Got 0"):
        EfficientNetTowerConfig(depth=0)
    with pytest.raises(ConfigError, match=r"image\.second_size must be pixels, or 0 .* Got -1"):
        EfficientNetTowerConfig(second_size=-1)


@torch.no_grad()
def test_another_image_size_needs_no_new_weights():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=SMALL), generator(0))
    larger = with_image_size(model, 96)
    assert larger.encode_image(torch.zeros(1, 3, 96, 96)).shape == (1, 32)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in larger.state_dict().items())


def test_all_parameters_are_drawn_from_the_generator_and_reached_by_the_gradient():
    first, second = tower_of(SMALL), tower_of(SMALL)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    first(torch.randn(2, 3, 64, 64, generator=generator(1))).square().sum().backward()
    assert [name for name, parameter in first.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("side", "wanted"), [(64, 40), (40, 64), (33, 100), (50, 7), (32, 32)])
def test_a_graph_resizes_by_a_product_with_what_torch_resizes_by(side, wanted):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    weights = cubic_weights(side, wanted, x.device)
    expected = F.interpolate(x, (wanted, wanted), mode="bicubic", align_corners=False, antialias=True)
    torch.testing.assert_close(weights @ x @ weights.T, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("second_size", [0, 40, 96])
def test_the_mean_of_the_grid_over_its_positions_is_the_feature_before_it_is_made_unit_length(second_size):
    config = dataclasses.replace(SMALL, second_size=second_size)
    tower = EfficientNetTower(config, 24)
    tower.reset_parameters(generator(0))
    images = torch.randn(3, 3, 64, 64, generator=generator(1))
    with torch.no_grad():
        grid, feature = tower.grid(images), tower(images)
    assert grid.shape == (3, 2, 2, 24)
    assert grid.std(dim=(1, 2)).mean() > 1e-3  # positions differ
    torch.testing.assert_close(grid.mean(dim=(1, 2)), feature, rtol=0, atol=1e-5)


def test_what_a_position_adds_to_the_score_of_a_text_is_its_activation_times_the_gradient(monkeypatch):
    tower = EfficientNetTower(SMALL, 24)
    tower.reset_parameters(generator(0))
    images, text = torch.randn(1, 3, 128, 128, generator=generator(1)), torch.randn(24, generator=generator(2))
    of_grid = tower.grid(images).detach()[0] @ text / 16  # [4, 4]
    plain, kept = tower._last_grid, []

    def leaf(pixels: torch.Tensor) -> torch.Tensor:
        kept.append(plain(pixels).detach().requires_grad_())
        return kept[-1]

    monkeypatch.setattr(tower, "_last_grid", leaf)
    feature = tower.projection(tower.trunk(images))[0]
    (feature @ text / feature.detach().norm()).backward()
    by_gradient = (kept[0].grad * kept[0].detach()).sum(dim=1)[0]
    # The projection's bias is the same everywhere, and no gradient of a position knows of it.
    torch.testing.assert_close(of_grid - of_grid.mean(), by_gradient - by_gradient.mean(), rtol=1e-4, atol=1e-6)
    assert by_gradient.std() > 1e-3
