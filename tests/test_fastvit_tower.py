import dataclasses

import pytest
import torch
from torch import Tensor, nn

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.convolutions import Branched
from diptych.model.fastvit_blocks import AttentionBlock, Mixer, MixerBlock
from diptych.model.fastvit_tower import FastViTTower, FastViTTowerConfig
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.torch_runtime import generator
from diptych.train.optim import depth_from_top, parameter_groups

CONFIG = FastViTTowerConfig(image_size=64, widths=(8, 16, 32), layers=(2, 1, 2), squeezed_stages=1)
OTHER = FastViTTowerConfig(
    image_size=72, widths=(8, 32, 32), layers=(1, 1, 1), expansion=4, attention_stages=2, attention_norm="layer",
    squeezed_stages=0, stem_scales=False,
)  # fmt: skip


def tower_of(config: FastViTTowerConfig, embed_dim: int = 16) -> FastViTTower:
    """A tower of random weights, whose blocks add as much as there is and whose batch norms have seen something."""
    tower = FastViTTower(config, embed_dim)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            noise = torch.randn(parameter.shape, generator=generator(1, number))
            parameter.add_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3))
        norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean of all that it saw
        tower.train()(pictures(8, config.image_size))
        for norm in norms:
            norm.momentum = 0.1
    return tower.eval()


def pictures(count: int, side: int = 64) -> Tensor:
    """Noise, of which each has a tint of its own."""
    tint = torch.randn(count, 3, 1, 1, generator=generator(4))
    return tint + torch.randn(count, 3, side, side, generator=generator(3))


def branch_by_branch(tower: FastViTTower) -> FastViTTower:
    """The same tower, which computes each branch by itself, with the statistics that its batch norms have."""
    tower.train()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return tower


def in_one(tower: FastViTTower, config: FastViTTowerConfig) -> FastViTTower:
    """A tower whose branches were fused for good."""
    fused = FastViTTower(dataclasses.replace(config, fused=True), 16)
    state = dict(tower.state_dict())
    for name, module in tower.named_modules():
        if isinstance(module, Branched | Mixer) and not name.endswith((".look", "mlp.look")):
            state |= dict(zip((f"{name}.weight", f"{name}.bias"), module.fused(), strict=True))
        if name.endswith(".places"):
            state[f"{name}.weight"] = state[f"{name}.weight"].clone()
            state[f"{name}.weight"][:, 0, 3, 3] += 1
    fused.load_state_dict({name: state[name] for name in fused.state_dict()})
    return fused.eval()


@pytest.mark.parametrize("config", [CONFIG, OTHER])
@torch.no_grad()
def test_out_of_training_branches_are_one_convolution_and_the_features_the_same(config):
    tower = tower_of(config)
    images = pictures(3, config.image_size)
    features = tower(images)
    assert (features[0] - features[1]).norm() > 0.01
    torch.testing.assert_close(in_one(tower, config)(images), features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(branch_by_branch(tower)(images), features, rtol=1e-4, atol=1e-5)


def test_a_fused_tower_has_a_convolution_for_the_branches_and_can_learn():
    tower = in_one(tower_of(CONFIG), CONFIG).train()
    assert not any(isinstance(module, Mixer) for module in tower.modules())
    branched = [name for name, module in tower.named_modules() if isinstance(module, Branched)]
    assert all(name.endswith("mlp.look") for name in branched)
    assert len(branched) == 5
    tower(pictures(4)).square().sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("config", [CONFIG, OTHER])
def test_all_parameters_are_reached_by_the_gradient_in_training(config):
    tower = tower_of(config).train()
    tower(pictures(4, config.image_size)).square().sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


def test_stages_are_made_as_the_config_says():
    tower = FastViTTower(CONFIG, 16)
    kinds = [[type(block) for block in stage.blocks] for stage in tower.stages]  # pyright: ignore[reportGeneralTypeIssues]
    assert kinds == [[MixerBlock] * 2, [MixerBlock], [AttentionBlock] * 2]
    names = {name for name, _ in tower.named_modules()}
    assert [f"stages.{stage}.downsample.0.squeeze" in names for stage in range(3)] == [False, False, True]
    assert [f"stages.{stage}.places" in names for stage in range(3)] == [False, False, True]
    assert [f"stem.{unit}.conv.branches.1" in names for unit in range(3)] == [True, True, False]
    other = {name for name, _ in FastViTTower(OTHER, 16).named_modules()}
    assert not any(name.endswith(".squeeze") and name.startswith("stages") for name in other)
    assert "stem.0.conv.branches.1" not in other
    assert isinstance(FastViTTower(OTHER, 16).get_submodule("stages.1.blocks.0.norm"), nn.LayerNorm)


@torch.no_grad()
def test_the_mean_of_the_grid_over_its_positions_is_the_feature():
    tower = tower_of(CONFIG)
    images = pictures(2)
    grid = tower.grid(images)
    assert grid.shape == (2, 4, 4, 16)
    assert grid.std(dim=(1, 2)).mean() > 1e-3
    torch.testing.assert_close(grid.mean(dim=(1, 2)), tower(images), rtol=1e-4, atol=1e-5)
    tokens, feature = tower.tokens_and_feature(images)
    torch.testing.assert_close(tower.project(tokens), grid.flatten(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(feature, tower(images))


@torch.no_grad()
def test_channels_last_gives_the_same_features():
    tower, images = tower_of(CONFIG), pictures(2)
    expected = tower(images)
    tower.to(memory_format=torch.channels_last)
    for order in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(tower(images.contiguous(memory_format=order)), expected, rtol=1e-4, atol=1e-5)


def test_every_block_starts_as_next_to_nothing_and_matrices_as_the_released_code_draws_them():
    tower = FastViTTower(dataclasses.replace(CONFIG, widths=(32, 64, 64)), 48)
    tower.reset_parameters(generator(0))
    block = tower.get_submodule("stages.0.blocks.0").train()
    x = torch.randn(2, 32, 8, 8, generator=generator(1))
    torch.testing.assert_close(block(x), x, rtol=0, atol=1e-3)
    assert not torch.equal(block(x), x)
    for name, parameter in tower.named_parameters():
        if parameter.ndim >= 2 and (".mlp." in name or "attention" in name or "projection" in name):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
    assert tower.projection.bias is not None
    assert not tower.projection.bias.any()


def test_layers_are_counted_by_stage_and_no_scale_decays():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG))
    depths = {name: depth for name, depth in depth_from_top(model).items() if name.startswith("image.")}
    outside = {name.split(".")[1]: depth for name, depth in depths.items() if "stages" not in name}
    assert outside == {"stem": 4, "last": 0, "projection": 0}
    inside = {int(name.split(".")[2]): depth for name, depth in depths.items() if "stages" in name}
    assert inside == {0: 3, 1: 2, 2: 1}
    _, still = parameter_groups(model, weight_decay=0.1)
    scales = {id(p) for name, p in model.named_parameters() if name.endswith("scale") and name.startswith("image.")}
    assert len(scales) == 3 * 2 + 2 * 2
    assert scales <= {id(p) for p in still["params"]}  # pyright: ignore[reportGeneralTypeIssues]


def test_another_image_size_needs_no_new_weights():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG), generator(0)).eval()
    larger = with_image_size(model, 90)
    assert larger.encode_image(torch.zeros(1, 3, 90, 90)).shape == (1, 32)
    assert larger.encode_grid(torch.zeros(1, 3, 90, 90)).shape == (1, 6, 6, 32)  # 45, 23, 12, 6
    assert larger.config.image.patches == 36
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in larger.state_dict().items())


def test_published_sizes_have_as_many_parameters_as_was_published():
    # Millions of image towers, branches fused, as the model cards of MobileCLIP and MobileCLIP 2 have them.
    mci0 = FastViTTowerConfig(fused=True)
    mci3 = FastViTTowerConfig(
        widths=(96, 192, 384, 768, 1536), layers=(2, 12, 24, 4, 2), expansion=4, attention_stages=2,
        attention_norm="layer", squeezed_stages=0, stem_scales=False, fused=True,
    )  # fmt: skip
    for config, options, embed_dim, published in (
        (mci0, {}, 512, 11.4),
        (mci0, {"layers": (4, 12, 20, 4)}, 512, 21.5),
        (mci0, {"layers": (4, 12, 24, 4), "widths": (80, 160, 320, 640)}, 512, 35.7),
        (mci3, {}, 768, 125.1),
        (mci3, {"layers": (2, 12, 24, 4, 4), "widths": (128, 256, 512, 1024, 2048)}, 768, 321.6),
    ):
        with torch.device("meta"):
            tower = dataclasses.replace(config, **options).build(embed_dim)
        assert sum(p.numel() for p in tower.parameters()) / 1e6 == pytest.approx(published, abs=0.06)


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), image=OTHER)
    assert from_dict(CLIPConfig, to_dict(config)) == config
    for options, message in (
        ({"layers": (1, 0, 1)}, r"image\.layers must be numbers of at least 1, one a stage\. Got \[1, 0, 1\]"),
        ({"layers": (1, 1)}, r"as many as there are stages\. Got 3 and 2"),
        ({"widths": (8, 20, 40)}, r"must be multiples, each of the one before it\. Got \[8, 20, 40\]"),
        ({"widths": (8, 16, 16)}, r"multiples of 32 in stages with attention\. Got \[8, 16, 16\]"),
        ({"attention_stages": 3}, r"image\.attention_stages must be from 0 to 2\. Got 3"),
        ({"squeezed_stages": -1}, r"image\.squeezed_stages must be from 0 to 2\. Got -1"),
        ({"attention_norm": "group"}, r"attention_norm must be 'batch' or 'layer'\. Got 'group'"),
        ({"expansion": 0}, r"image\.expansion must be at least 1\. Got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(CONFIG, **options)
