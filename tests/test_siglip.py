import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError, ShapeError
from diptych.model.blocks import MLP, Attention
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.model.siglip import SigLIPImageTower, SigLIPImageTowerConfig, SigLIPTextTower, SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.hf_siglip import SIGLIP_NAMES
from siglip_standins import siglip_twin

SIZES = {  # width, heads, MLP, image, patch, vocabulary
    "base": (48, 4, 192, 32, 8, 60),
    "siglip2": (32, 2, 128, 24, 8, 300),
    "so400m": (144, 2, 215, 29, 7, 60),  # 72 channels a head, an MLP of 1.49 * 4, a strip of 1 pixel left over
}
EXACTLY = {"rtol": 0, "atol": 1e-5}


def config_of(name: str) -> CLIPConfig:
    width, heads, mlp_width, image_size, patch_size, vocab_size = SIZES[name]
    shared = {"width": width, "layers": 2, "heads": heads, "mlp_width": mlp_width}
    return CLIPConfig(
        embed_dim=width,
        head="sigmoid",
        image=SigLIPImageTowerConfig(image_size=image_size, patch_size=patch_size, **shared),
        text=SigLIPTextTowerConfig(context_length=9, vocab_size=vocab_size, **shared),
    )


@pytest.fixture(params=SIZES)
def config(request) -> CLIPConfig:
    return config_of(request.param)


@pytest.fixture
def model() -> CLIP:
    return CLIP(config_of("base"), generator(0)).eval()


def batch(config: CLIPConfig) -> tuple[Tensor, Tensor]:
    side = config.image.image_size
    tokens = torch.randint(3, config.text.vocab_size, (3, 9), generator=generator(2))
    tokens[0, 4:] = tokens[1, 7:] = 1  # end and padding
    return torch.randn(3, 3, side, side, generator=generator(1)), tokens


@torch.no_grad()
def test_a_model_equals_transformers(config):
    image, text = config.image, config.text
    shared = {
        "hidden_size": image.width,
        "intermediate_size": image.mlp_width,
        "num_hidden_layers": 2,
        "num_attention_heads": image.heads,
    }
    twin = siglip_twin(
        vision=shared | {"image_size": image.image_size, "patch_size": image.patch_size},
        text=shared | {"vocab_size": text.vocab_size, "max_position_embeddings": 9},
    )
    model = CLIP(config)
    state = model.state_dict()
    model.load_state_dict(SIGLIP_NAMES.to_ours(twin.state_dict(), state), assign=True)
    images, tokens = batch(config)
    theirs = twin(input_ids=tokens, pixel_values=images)
    image_features, text_features, logit_scale, logit_bias = model(images, tokens)
    assert theirs.image_embeds is not None
    torch.testing.assert_close(image_features, theirs.image_embeds, **EXACTLY)
    torch.testing.assert_close(text_features, theirs.text_embeds, **EXACTLY)
    assert logit_scale.item() == pytest.approx(math.exp(4.76))  # 116.7: the cap at 100 is CLIP's
    assert logit_bias is not None
    logits = model.logits_per_image(image_features, text_features)
    torch.testing.assert_close(logits, theirs.logits_per_image, rtol=0, atol=1e-3)  # 117 times a cosine's 1e-5
    torch.testing.assert_close(logits, logit_scale * image_features @ text_features.T + logit_bias)
    pooled = twin.vision_model(pixel_values=images).pooler_output
    torch.testing.assert_close(model.image.trunk(images), pooled, rtol=1e-4, atol=1e-4)
    assert (text_features @ text_features.T).fill_diagonal_(0).max() < 0.95  # the texts are told apart


def test_probabilities_are_of_each_label_by_itself(model):
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(9), -100.0]])
    torch.testing.assert_close(model.probabilities(logits), torch.tensor([[0.5, 0.75], [0.1, 0.0]]))


def test_the_padding_is_part_of_the_model(model):
    _, tokens = batch(model.config)
    other = tokens.clone()
    other[0, 6] = 2  # behind the end token
    assert (model.encode_text(other) - model.encode_text(tokens))[0].abs().max() > 1e-3
    with pytest.raises(ShapeError, match=r"L from 9 to 9\. Got \[3, 5\] int64"):
        model.encode_text(tokens[:, :5])


def test_scale_and_bias_start_as_in_the_paper_and_are_reached_by_the_gradient(model):
    assert model.logit_scale_factor().item() == pytest.approx(10)
    assert model.logit_bias.item() == -10
    output = model.train()(*batch(model.config))
    (output.logit_scale * output.image_features @ output.text_features.T + output.logit_bias).logsumexp(
        1
    ).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_softmax_model_has_no_bias():
    assert "logit_bias" not in CLIP(preset("tiny-vit")).state_dict()
    with pytest.raises(ConfigError, match=r"head must be 'softmax' or 'sigmoid'\. Got 'tanh'"):
        dataclasses.replace(preset("tiny-vit"), head="tanh")


def test_towers_and_heads_combine():
    siglip, clip = config_of("siglip2"), preset("tiny-vit")
    for config in (
        dataclasses.replace(clip, head="sigmoid"),
        dataclasses.replace(clip, text=siglip.text),
        dataclasses.replace(clip, image=siglip.image),
    ):
        model = CLIP(config, generator(0))
        assert from_dict(CLIPConfig, to_dict(config)) == config
        assert ("logit_bias" in model.state_dict()) == (config.head == "sigmoid")
        images, tokens = torch.zeros(1, 3, config.image.image_size, config.image.image_size), torch.ones(1, 9).long()
        tokens = tokens[:, : config.text.context_length]
        assert model(images, tokens).text_features.shape == (1, 32)


def test_initial_spreads_follow_the_released_code():
    tower = CLIP(config_of("so400m"), generator(0))
    image, text = tower.image, tower.text
    assert isinstance(image, SigLIPImageTower)
    assert isinstance(text, SigLIPTextTower)
    attention, mlp = image.blocks[1].attention, text.blocks[1].mlp
    assert isinstance(attention, Attention)
    assert isinstance(mlp, MLP)
    for weight, std in (
        (image.patch_embedding.weight, (3 * 7 * 7) ** -0.5),
        (image.position_embedding, 144**-0.5),
        (text.token_embedding.weight, 144**-0.5),
        (text.projection.weight, 144**-0.5),
        (attention.in_projection.weight, 144**-0.5),  # Xavier: bound sqrt(6 / 288), over sqrt(3)
        (attention.out_projection.weight, 144**-0.5),
        (image.pool.attention.in_projection.weight, 144**-0.5),
        (image.pool.probe, (2 / 145) ** 0.5),
        (mlp.up.weight, (2 / (144 + 215)) ** 0.5),
        (mlp.up.bias, 1e-6),
    ):
        assert weight.std().item() == pytest.approx(std, rel=3 / weight.numel() ** 0.5)
    assert attention.in_projection.weight.abs().max() <= (6 / 288) ** 0.5
    assert not attention.in_projection.bias.any()
    assert not text.projection.bias.any()


@torch.no_grad()
def test_positions_without_a_class_token_keep_their_place_when_the_image_grows():
    model = CLIP(config_of("so400m"), generator(0)).eval()
    rows = torch.arange(4.0).repeat_interleave(4)  # the first channel tells the row
    model.image.position_embedding[:, 0] = rows
    assert torch.equal(with_image_size(model, 30).image.position_embedding, model.image.position_embedding)
    larger = with_image_size(model, 57)  # 8 patches of 7, and 1 pixel
    grid = larger.image.position_embedding[:, 0].reshape(8, 8)
    assert (grid.diff(dim=0)[1:-1] > 0).all()
    assert grid.diff(dim=1).abs().max() < 1e-5
    assert larger.encode_image(torch.randn(2, 3, 57, 57, generator=generator(3))).shape == (2, 144)


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        (
            "image",
            {"patch_size": 33},
            r"image\.patch_size must be at most image\.image_size.*patch_size=33, image_size=32",
        ),
        ("image", {"heads": 5}, r"image\.heads must divide image\.width"),
        ("text", {"heads": 5}, r"text\.heads must divide text\.width"),
        ("text", {"context_length": 0}, r"text\.context_length must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(part, wrong, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(getattr(config_of("base"), part), **wrong)


def test_a_feature_of_another_width_than_the_tower_is_refused():
    with pytest.raises(ConfigError, match=r"no projection\. Got 20"):
        dataclasses.replace(config_of("base"), embed_dim=20)


def test_all_patches_in_any_order_are_the_whole_picture():
    config = SigLIPImageTowerConfig(image_size=16, patch_size=4, width=64, layers=2, heads=4)
    tower = SigLIPImageTower(config)
    tower.reset_parameters(generator(0))
    images = torch.randn(2, 3, 16, 16, generator=generator(1))
    every = torch.randperm(16, generator=generator(2)).expand(2, -1)
    torch.testing.assert_close(tower(images, every), tower(images))
    assert (tower(images, every[:, :4]) - tower(images)).abs().max() > 1e-2


@torch.no_grad()
def test_the_grid_of_a_picture_of_one_patch_is_its_feature():
    sizes = {"image_size": 8, "patch_size": 8, "width": 48, "layers": 2, "heads": 4}
    tower = SigLIPImageTower(SigLIPImageTowerConfig(**sizes))
    tower.reset_parameters(generator(0))
    nn.init.normal_(tower.pool.attention.in_projection.bias)  # the released start leaves it 0
    images = torch.randn(3, 3, 8, 8, generator=generator(1))
    torch.testing.assert_close(tower.grid(images)[:, 0, 0], tower(images), **EXACTLY)
