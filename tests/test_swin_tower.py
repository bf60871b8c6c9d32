import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.model.swin_tower import Merge, SwinTower, SwinTowerConfig, WindowBlock
from diptych.torch_runtime import generator
from diptych.train.optim import depth_from_top, hidden_matrices

CONFIG = SwinTowerConfig(image_size=48, width=8, layers=(2, 2), heads=(2, 4), window=3)


def tower_of(config: SwinTowerConfig, embed_dim: int = 16) -> SwinTower:
    tower = SwinTower(config, embed_dim)
    tower.reset_parameters(generator(0))
    with torch.no_grad():
        for number, parameter in enumerate(tower.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(1, number)))
    return tower.eval()


def pictures(count: int, side: int = 48) -> Tensor:
    return torch.randn(count, 3, side, side, generator=generator(2))


def plain_attention(block: WindowBlock, x: Tensor) -> Tensor:
    """Position by position: who may be looked at is told by where it lies. [h, w, W] to the same."""
    high, wide, width = x.shape
    heads, window, shift = block.attention.heads, block.window, block.shift
    rows = block.attention.in_projection(x).unflatten(-1, (3, heads, -1))  # [h, w, 3, H, E]

    def window_of(row: int, column: int) -> tuple[int, int]:
        return (row + window - shift) // window, (column + window - shift) // window

    out = torch.zeros(high, wide, heads, width // heads, dtype=x.dtype)
    places = [(row, column) for row in range(high) for column in range(wide)]
    for row, column in places:
        seen = [other for other in places if window_of(*other) == window_of(row, column)]
        far = [(row - other[0] + window - 1) * (2 * window - 1) + column - other[1] + window - 1 for other in seen]
        keys = torch.stack([rows[other][1] for other in seen])  # [n, H, E]
        values = torch.stack([rows[other][2] for other in seen])
        logits = (keys * rows[row, column, 0]).sum(-1) / (width // heads) ** 0.5 + block.attention.position_table[far]
        out[row, column] = (logits.softmax(dim=0)[..., None] * values).sum(dim=0)
    return block.attention.out_projection(out.flatten(2))


@pytest.mark.parametrize("shift", [0, 1])
@torch.no_grad()
def test_a_block_looks_within_its_windows_alone_and_knows_how_far_apart_two_positions_are(shift):
    block = tower_of(CONFIG).double().get_submodule(f"stages.0.blocks.{shift}")
    assert isinstance(block, WindowBlock)
    assert block.shift == shift
    x = torch.randn(2, 6, 6, 8, generator=generator(3)).double()
    expected = []
    for one in x:
        y = one + plain_attention(block, block.ln_attention(one))
        expected.append(y + block.mlp(block.ln_mlp(y)))
    torch.testing.assert_close(block(x), torch.stack(expected))


def test_windows_are_shifted_in_every_second_block_where_there_is_more_than_one():
    tower = SwinTower(dataclasses.replace(CONFIG, image_size=24), 16)  # grids of 6 and 3, windows of 3
    shifts = [[block.shift for block in stage.blocks] for stage in tower.stages]  # pyright: ignore[reportGeneralTypeIssues]
    assert shifts == [[0, 1], [0, 0]]


@torch.no_grad()
def test_four_neighbours_become_one():
    merge = Merge(2, 1e-5)
    merge.reduction.weight.copy_(torch.randn(4, 8, generator=generator(0)))
    x = torch.randn(1, 4, 2, 2, generator=generator(1))
    four = torch.cat([x[0, 2, 0], x[0, 3, 0], x[0, 2, 1], x[0, 3, 1]])
    torch.testing.assert_close(merge(x)[0, 1, 0], F.layer_norm(four, (8,)) @ merge.reduction.weight.T)
    assert merge(x).shape == (1, 2, 1, 4)


@torch.no_grad()
def test_the_mean_of_the_grid_over_its_positions_is_the_feature():
    tower, images = tower_of(CONFIG), pictures(2)
    grid = tower.grid(images)
    assert grid.shape == (2, 6, 6, 16)
    torch.testing.assert_close(grid.mean(dim=(1, 2)), tower(images), rtol=1e-4, atol=1e-5)
    tokens, feature = tower.tokens_and_feature(images)
    torch.testing.assert_close(tower.project(tokens), grid.flatten(1, 2))
    torch.testing.assert_close(feature, tower(images))
    assert (feature[0] - feature[1]).norm() > 0.01


def test_swin_b_has_as_many_parameters_and_costs_as_much_as_was_published():
    config = SwinTowerConfig()
    with torch.device("meta"):
        tower = config.build(1000)
    # 88 million and 15.4 billion multiply-adds, with a classifier of 1,000 that has a bias: the paper's table 1.
    assert (sum(p.numel() for p in tower.parameters()) + 1000) / 1e6 == pytest.approx(87.77, abs=0.01)
    assert config.cost(1000, element=4).forward / 2e9 == pytest.approx(15.4, abs=0.1)


def test_layers_are_counted_by_stage():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG))
    depths = {name: depth for name, depth in depth_from_top(model).items() if name.startswith("image.")}
    outside = {name.split(".")[1]: depth for name, depth in depths.items() if "stages" not in name}
    assert outside == {"patch_embedding": 3, "ln_pre": 3, "ln_post": 0, "projection": 0}
    assert {int(name.split(".")[2]): depth for name, depth in depths.items() if "stages" in name} == {0: 2, 1: 1}


def test_a_table_of_positions_is_no_matrix_that_muon_turns():
    hidden = hidden_matrices(CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG)))
    assert hidden["image.stages.0.blocks.1.attention.in_projection.weight"] == 3
    assert not any("position" in name for name in hidden)


def test_another_image_size_needs_no_new_weights():
    model = CLIP(dataclasses.replace(preset("tiny-vit"), image=CONFIG), generator(0)).eval()
    larger = with_image_size(model, 96)
    assert larger.encode_image(torch.zeros(1, 3, 96, 96)).shape == (1, 32)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in larger.state_dict().items())


def test_a_config_survives_as_plain_data_and_refuses_nonsense():
    config = dataclasses.replace(preset("tiny-vit"), image=CONFIG)
    assert from_dict(CLIPConfig, to_dict(config)) == config
    for options, message in (
        ({"layers": (1, 0)}, r"image\.layers must be numbers of at least 1, one a stage\. Got \[1, 0\]"),
        ({"heads": (2,)}, r"as many as there are stages\. Got 1 and 2"),
        ({"heads": (3, 4)}, r"heads must divide the width of each stage, .* Got heads=\[3, 4\], width=8"),
        ({"image_size": 40}, r"must be a multiple of 24, so that windows of 3 fill the grid of each stage\. Got 40"),
        ({"layer_norm_eps": 1}, r"layer_norm_eps must lie between 0 and 1\. Got 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(CONFIG, **options)
