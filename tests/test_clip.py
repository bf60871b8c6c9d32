import dataclasses
import math

import pytest
import torch
import transformers
from torch import Tensor

from diptych.errors import ConfigError, ShapeError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.model.text_tower import TextTowerConfig
from diptych.torch_runtime import generator

TOWERS = [("image", "vision_model"), ("text", "text_model")]
BLOCK_NAMES = {
    "ln_attention": "layer_norm1",
    "attention.out_projection": "self_attn.out_proj",
    "ln_mlp": "layer_norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
NAMES = {
    "logit_scale": "logit_scale",
    "image.class_embedding": "vision_model.embeddings.class_embedding",
    "image.patch_embedding.weight": "vision_model.embeddings.patch_embedding.weight",
    "image.position_embedding": "vision_model.embeddings.position_embedding.weight",
    "image.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "image.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "image.ln_post.weight": "vision_model.post_layernorm.weight",
    "image.ln_post.bias": "vision_model.post_layernorm.bias",
    "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text.position_embedding": "text_model.embeddings.position_embedding.weight",
    "text.ln_final.weight": "text_model.final_layer_norm.weight",
    "text.ln_final.bias": "text_model.final_layer_norm.bias",
}


def transformers_twin(activation: str, end_token_id: int) -> transformers.CLIPModel:
    shared = {"hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4}
    shared |= {"hidden_act": activation}
    config = transformers.CLIPConfig(
        text_config=shared
        | {"vocab_size": 60, "max_position_embeddings": 9, "bos_token_id": 58, "eos_token_id": end_token_id},
        vision_config=shared | {"image_size": 24, "patch_size": 8},
        projection_dim=20,
    )
    twin = transformers.CLIPModel(config).eval()
    for i, (name, parameter) in enumerate(twin.named_parameters()):  # nothing stays at 0 or 1, so that all of it counts
        mean = float("norm" in name and name.endswith("weight"))
        torch.nn.init.normal_(parameter, mean=mean, std=0.3, generator=generator(i))
    torch.nn.init.constant_(twin.logit_scale, 2.0)
    return twin


def weights_of(twin: transformers.CLIPModel, layers: int = 2) -> dict[str, Tensor]:
    theirs = twin.state_dict()
    ours = {name: theirs[foreign] for name, foreign in NAMES.items()}
    for tower, model in TOWERS:
        ours[f"{tower}.projection"] = theirs[f"{'visual' if tower == 'image' else 'text'}_projection.weight"].T
        for layer in range(layers):
            for part in ("weight", "bias"):
                block, foreign = f"{tower}.blocks.{layer}", f"{model}.encoder.layers.{layer}"
                for name, foreign_name in BLOCK_NAMES.items():
                    ours[f"{block}.{name}.{part}"] = theirs[f"{foreign}.{foreign_name}.{part}"]
                ours[f"{block}.attention.in_projection.{part}"] = torch.cat(
                    [theirs[f"{foreign}.self_attn.{p}_proj.{part}"] for p in "qkv"]
                )
    return ours


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("end_token_id", [None, 7])
@torch.no_grad()
def test_a_vit_model_equals_transformers(activation, end_token_id):
    twin = transformers_twin(activation, 2 if end_token_id is None else end_token_id)  # 2 is their "highest id" rule
    config = CLIPConfig(
        embed_dim=20,
        image=ImageTowerConfig(
            image_size=24, patch_size=8, width=48, layers=2, heads=4, mlp_width=112, activation=activation
        ),
        text=TextTowerConfig(
            context_length=9,
            vocab_size=60,
            width=48,
            layers=2,
            heads=4,
            mlp_width=112,
            activation=activation,
            end_token_id=end_token_id,
        ),
    )
    model = CLIP(config)
    model.load_state_dict(weights_of(twin), assign=True)
    images = torch.randn(3, 3, 24, 24, generator=generator(1))
    tokens = torch.tensor([[58, 3, 4, 7, 59, 0, 0, 0, 0], [58, 9, 7, 7, 8, 9, 1, 59, 0], [58, 7, 59, 0, 0, 0, 0, 0, 0]])
    theirs = twin(input_ids=tokens, pixel_values=images)
    image_features, text_features, logit_scale, logit_bias = model(images, tokens)
    assert logit_bias is None
    exactly = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(model.image.trunk(images), twin.vision_model(images).pooler_output, **exactly)
    torch.testing.assert_close(image_features, theirs.image_embeds, **exactly)
    torch.testing.assert_close(text_features, theirs.text_embeds, **exactly)
    torch.testing.assert_close(logit_scale * image_features @ text_features.T, theirs.logits_per_image, **exactly)
    logits = model.logits_per_image(image_features, text_features)
    torch.testing.assert_close(logits, theirs.logits_per_image, **exactly)
    torch.testing.assert_close(model.probabilities(logits), theirs.logits_per_image.softmax(dim=1), **exactly)
    assert (text_features @ text_features.T).fill_diagonal_(0).max() < 0.9  # the texts are told apart


@pytest.fixture(params=["tiny-vit", "tiny-resnet"])
def model(request) -> CLIP:
    return CLIP(preset(request.param), generator(0))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    draw = generator(1)
    return torch.randn(4, 3, 32, 32, generator=draw), torch.randint(1, 512, (4, 16), generator=draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_of_unit_length_in_float32(model, batch, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        image_features, text_features, *_ = model(*batch)
    for features in (image_features, text_features):
        assert features.shape == (4, 32)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)


def test_a_model_in_float64_stays_in_float64(model, batch):
    images, tokens = batch
    image_features, text_features, *_ = model.double()(images.double(), tokens)
    assert image_features.dtype == text_features.dtype == torch.float64


def test_every_parameter_is_reached_by_the_gradient(model, batch):
    image_features, text_features, logit_scale, _ = model(*batch)
    (logit_scale * image_features @ text_features.T).logsumexp(dim=1).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet"])
def test_one_seed_gives_one_model_and_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    first, second, other = (CLIP(preset(name), generator(seed)).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    for key, values in first.items():
        assert torch.equal(values, second[key]), key
        assert torch.isfinite(values).all(), key
    drawn = [key for key in first if key.endswith(("projection.weight", "projection", "position_embedding"))]
    assert len(drawn) > 6
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_without_a_generator_a_model_is_shapes_alone(model):
    shapes = CLIP(model.config)
    assert {parameter.device.type for parameter in shapes.state_dict().values()} == {"meta"}
    assert list(shapes.state_dict()) == list(model.state_dict())
    shapes.load_state_dict(model.state_dict(), assign=True)
    images = torch.zeros(2, 3, 32, 32)
    assert torch.equal(shapes.eval().encode_image(images), model.eval().encode_image(images))


def test_a_surrounding_device_decides_where_parameters_land():
    with torch.device("meta"):
        model = CLIP(preset("tiny-vit"), generator(0))
    assert model.logit_scale.is_meta
    assert model.text.projection.is_meta


def test_the_factor_starts_at_one_over_the_temperature_and_stops_at_100(model):
    assert model.logit_scale.item() == pytest.approx(2.65926, abs=1e-5)
    assert model.logit_scale_factor().item() == pytest.approx(1 / 0.07)
    torch.nn.init.constant_(model.logit_scale, 10)
    assert model.logit_scale_factor().item() == pytest.approx(100)


def test_a_scale_held_at_the_cap_still_has_a_gradient(model):
    torch.nn.init.constant_(model.logit_scale, math.log(100))
    model.logit_scale_factor().backward()
    assert model.logit_scale.grad.item() == pytest.approx(100)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(2, 3, 32, 31), r"\[2, 3, 32, 31\] float32"),
        (torch.zeros(2, 1, 32, 32), r"\[2, 1, 32, 32\]"),
        (torch.zeros(3, 32, 32), r"\[3, 32, 32\]"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"uint8"),
    ],
)
def test_images_of_another_shape_are_named(model, images, got):
    with pytest.raises(ShapeError, match=r"images must be \[B, 3, 32, 32\] float\. Got .*" + got):
        model.encode_image(images)


@pytest.mark.parametrize(
    ("tokens", "got"),
    [
        (torch.zeros(2, 17, dtype=torch.int64), r"\[2, 17\] int64"),
        (torch.zeros(2, 0, dtype=torch.int64), r"\[2, 0\]"),
        (torch.zeros(16, dtype=torch.int64), r"\[16\]"),
        (torch.zeros(2, 16), r"float32"),
    ],
)
def test_tokens_of_another_shape_are_named(model, tokens, got):
    with pytest.raises(ShapeError, match=r"tokens must be \[B, L\] int64, L from 1 to 16\. Got .*" + got):
        model.encode_text(tokens)


def test_an_embed_dim_below_one_is_refused():
    tiny = preset("tiny-vit")
    with pytest.raises(ConfigError, match=r"embed_dim must be at least 1\. Got 0"):
        CLIPConfig(embed_dim=0, image=tiny.image, text=tiny.text)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_another_head_begins_as_that_of_a_new_model_and_leaves_the_towers(head):
    config = dataclasses.replace(preset("tiny-vit"), head=head)
    other = "sigmoid" if head == "softmax" else "softmax"
    model = CLIP(config, generator(3)).eval()
    changed, new = model.with_head(other), CLIP(dataclasses.replace(config, head=other), generator(3))
    assert model.with_head(head) is model
    assert not changed.training
    assert changed.state_dict().keys() == new.state_dict().keys()
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in changed.state_dict().items())
