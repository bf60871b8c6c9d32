import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.resnet_tower import AttentionPool, Bottleneck, ResNetTower, ResNetTowerConfig
from diptych.torch_runtime import generator

CONFIG = ResNetTowerConfig(image_size=64, width=4, layers=(1, 2, 1, 1), heads=4)


@pytest.fixture
def tower() -> ResNetTower:
    tower = ResNetTower(CONFIG, 24)
    tower.reset_parameters(generator(0))
    return tower


def shake(tower: ResNetTower) -> None:
    """Give every batch norm scales, shifts and statistics of its own, as training would."""
    for i, module in enumerate(tower.modules()):
        if isinstance(module, nn.BatchNorm2d):
            for j, values in enumerate((module.weight, module.bias, module.running_mean, module.running_var)):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5, generator=generator(i, j))


def plain_resnet(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The modified ResNet, layer by layer."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = images
    for convolution, stride in ((0, 2), (3, 1), (6, 1)):
        x = F.conv2d(x, weights[f"stem.{convolution}.weight"], stride=stride, padding=1)
        x = F.relu(norm(x, f"stem.{convolution + 1}"))
    x = F.avg_pool2d(x, 2)
    for stage, blocks in enumerate(CONFIG.layers):
        for block in range(blocks):
            at = f"stages.{stage}.{block}"
            shrinks = stage > 0 and block == 0
            y = F.relu(norm(F.conv2d(x, weights[f"{at}.conv1.weight"]), f"{at}.bn1"))
            y = F.relu(norm(F.conv2d(y, weights[f"{at}.conv2.weight"], padding=1), f"{at}.bn2"))
            y = F.avg_pool2d(y, 2) if shrinks else y
            y = norm(F.conv2d(y, weights[f"{at}.conv3.weight"]), f"{at}.bn3")
            if block == 0:
                x = F.avg_pool2d(x, 2) if shrinks else x
                x = norm(F.conv2d(x, weights[f"{at}.shortcut.1.weight"]), f"{at}.shortcut.2")
            x = F.relu(x + y)
    return x


def torch_attention_pool(pool: AttentionPool, projection: nn.Linear, x: Tensor) -> Tensor:
    """Attention pool with its output projection, through torch's own multi-head attention."""
    width = x.shape[1]
    x = x.flatten(2).permute(2, 0, 1)  # [P, B, W]
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + pool.position_embedding[:, None]
    pooled, _ = F.multi_head_attention_forward(
        x[:1],
        x,
        x,
        width,
        pool.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.query.bias, pool.key.bias, pool.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=projection.weight,
        out_proj_bias=projection.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.query.weight,
        k_proj_weight=pool.key.weight,
        v_proj_weight=pool.value.weight,
        need_weights=False,
    )
    return pooled[0]


def test_the_tower_equals_its_plain_twin(tower):
    shake(tower)
    tower.eval()
    images = torch.randn(3, 3, 64, 64, generator=generator(1))
    grid = plain_resnet(tower.state_dict(), images)
    assert grid.shape == (3, 128, 2, 2)
    torch.testing.assert_close(tower.stages(tower.stem(images)), grid, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        tower(images), torch_attention_pool(tower.pool, tower.projection, grid), rtol=1e-4, atol=1e-4
    )


def test_the_trunk_is_what_the_projection_is_given(tower):
    tower.eval()
    images = torch.randn(2, 3, 64, 64, generator=generator(1))
    assert tower.trunk(images).shape == (2, 128)
    torch.testing.assert_close(tower(images), tower.projection(tower.trunk(images)))


def test_only_the_first_convolution_has_a_stride(tower):
    strides = [module.stride for module in tower.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [(2, 2)] + [(1, 1)] * (len(strides) - 1)
    assert not any(isinstance(module, nn.MaxPool2d) for module in tower.modules())


def test_a_bottleneck_starts_as_its_shortcut(tower):
    plain = tower.stages[1][1]
    assert isinstance(plain, Bottleneck)
    x = torch.rand(2, 32, 8, 8, generator=generator(1))
    torch.testing.assert_close(plain.eval()(x), x)
    scales = [module.bn3.weight for module in tower.modules() if isinstance(module, Bottleneck)]
    assert len(scales) == sum(CONFIG.layers)
    assert not any(scale.any() for scale in scales)
    assert tower.stages[0][0].bn1.weight.eq(1).all()


def test_initial_spreads_follow_the_released_code(tower):
    pool = tower.pool
    for weight in (pool.query.weight, pool.key.weight, pool.value.weight, tower.projection.weight):
        assert weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert pool.position_embedding.std().item() == pytest.approx(128**-0.5, rel=0.1)
    assert pool.query.bias.abs().max().item() == pytest.approx(128**-0.5, rel=0.05)


def test_channels_last_reaches_the_attention_pool_without_a_copy(tower):
    tower.to(memory_format=torch.channels_last)
    orders = []
    for module in tower.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.AvgPool2d | Bottleneck):
            module.register_forward_hook(
                lambda _module, _inputs, out: orders.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    images = torch.randn(2, 3, 64, 64, generator=generator(1)).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        tower(images)
    assert len(orders) > 40
    assert all(orders)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_each_stage_after_the_first_halves_the_grid_and_doubles_the_channels(stages):
    config = dataclasses.replace(CONFIG, layers=(1,) * stages)
    tower = config.build(8)
    tower.reset_parameters(generator(0))
    tokens, feature = tower.tokens_and_feature(torch.randn(2, 3, 64, 64, generator=generator(1)))
    side = 64 // 2 ** (stages + 1)
    assert config.patches == side**2
    assert tokens.shape == (2, side**2, 16 * 2 ** (stages - 1))
    assert feature.shape == (2, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 48}, r"image\.image_size must be a multiple of 32 for a ResNet of 4 stages\. Got 48"),
        ({"heads": 3}, r"image\.heads must divide the final width, 32 \* image\.width\. Got heads=3, width=4"),
        ({"width": 5}, r"image\.width must be even"),
        ({"layers": ()}, r"image\.layers must be numbers of at least 1, one a stage\. Got \[\]"),
        ({"layers": (3, 4, 6, 0)}, r"image\.layers must be numbers of at least 1"),
        ({"layers": (1, 1, 1, 1, 1), "image_size": 32}, r"must be a multiple of 64 for a ResNet of 5 stages\. Got 32"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **wrong)


@torch.no_grad()
def test_the_grid_is_what_the_pool_mixes_where_all_weigh_the_same(tower):
    shake(tower)
    tower.pool.key.weight.zero_()  # so each position, and the mean, has a share of 1 / (1 + P)
    tower.pool.key.bias.zero_()
    images = torch.randn(2, 3, 64, 64, generator=generator(3))
    grid = tower.eval().grid(images)
    assert grid.shape == (2, 2, 2, 24)
    assert grid.std(dim=(1, 2)).mean() > 1e-3
    mean = tower._grid(images).mean(dim=(2, 3)) + tower.pool.position_embedding[0]
    of_mean = tower.project(tower.pool.value(mean))
    torch.testing.assert_close((grid.sum(dim=(1, 2)) + of_mean) / 5, tower(images), rtol=0, atol=1e-5)
