"""Every kind of tower tells every fact, and each fact is true; a tower that is new needs no other file."""

import ast
import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import diptych
from diptych.config import from_dict, to_dict
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, ShapeError
from diptych.model.blocks import Linear, Stack, check_sizes, reset_to_defaults
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.coca import CoCaImageTowerConfig, CoCaTextTowerConfig
from diptych.model.cost import TowerCost, without_blocks
from diptych.model.presets import preset
from diptych.model.resize import with_image_size
from diptych.model.siglip import SigLIPTextTowerConfig
from diptych.model.towers import ImageConfig
from diptych.torch_runtime import generator
from diptych.train.bottleneck import bottleneck
from diptych.train.objectives import Caption, Contrastive
from diptych.train.plan import Setup, plan_run
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as
from diptych.weights.registry import load_in_torch, model_info
from diptych.weights.stored import give_weights
from runs import curve
from test_plan import UNIT
from tower_kinds import IMAGE_KINDS, TEXT_KINDS, image_of, images_for, kind_of, text_of, with_model

SRC = Path(diptych.__file__).parent

each_image = pytest.mark.parametrize("cls", IMAGE_KINDS, ids=kind_of)
each_text = pytest.mark.parametrize("cls", TEXT_KINDS, ids=kind_of)
each_pair = pytest.mark.parametrize(
    ("image", "text"),
    [(image_of(image), text_of(text)) for image in IMAGE_KINDS for text in TEXT_KINDS],
    ids=lambda config: config.kind,
)


def model_of(image: Any = None, text: Any = None) -> CLIP:
    """A model of random weights, and nothing in it at zero."""
    config = CLIPConfig(embed_dim=24, image=image or image_of(IMAGE_KINDS[0]), text=text or text_of(TEXT_KINDS[0]))
    model = CLIP(config, generator(0)).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(1, number)))
    return model


@each_image
def test_every_image_tower_tells_every_fact(cls):
    config = image_of(cls)
    for name in ("can_drop_patches", "needs_whole_batch", "has_blocks", "wants_channels_last", "has_grid"):
        assert isinstance(getattr(config, name), bool), name
        assert name not in to_dict(config), "a fact of the kind is no option of a recipe"
    assert isinstance(config.kind, str)
    assert config.image_size == 32
    assert isinstance(config.row_width, int)
    assert config.patches == math.isqrt(config.patches) ** 2 > 0
    assert config.summary
    assert "\n" not in config.summary
    assert config.fixed_embed_dim in (None, 24)
    assert isinstance(config.cost(24, element=4), TowerCost)


@each_text
def test_every_text_tower_tells_every_fact(cls):
    config = text_of(cls)
    for name in ("reads_padding", "has_blocks", "rows_are_features"):
        assert isinstance(getattr(config, name), bool), name
        assert name not in to_dict(config), "a fact of the kind is no option of a recipe"
    assert (config.context_length, config.vocab_size) == (16, 600)
    assert isinstance(config.kind, str)
    assert config.summary
    assert len(config.golden_texts) == 3
    assert isinstance(config.cost(24, element=4), TowerCost)
    with pytest.raises(ConfigError, match="must take all tokens"):
        config.check_tokenizer(Tokenizer.train(["a red kite"] * 3, vocab_size=530, context_length=17))


@each_image
def test_an_image_tower_is_its_trunk_and_its_projection(cls):
    config = image_of(cls)
    tower = model_of(image=config).image
    images = images_for(config, 3, generator(2))
    trunk = tower.trunk(images)
    assert trunk.ndim == 2
    assert tower(images).shape == (3, 24)
    assert torch.equal(tower.project(trunk), tower(images))


@each_image
def test_image_tokens_are_as_many_and_as_wide_as_a_tower_says_and_come_with_the_same_feature(cls, tiny_recipe):
    config = image_of(cls)
    model = model_of(image=config)
    images = images_for(config, 3, generator(2))
    captions: dict[str, Any] = {"objectives": (Contrastive(), Caption(width=16, attends=True))}
    if config.token_width:
        features, tokens = model.encode_image_and_tokens(images)
        assert tokens.shape == (3, config.patches, config.token_width)
        assert torch.equal(features, model.encode_image(images))
        with_model(tiny_recipe, config, **captions)
    else:
        with pytest.raises(ConfigError, match=f"needs image tokens, and a {config.kind} tower gives none"):
            with_model(tiny_recipe, config, **captions)


@each_image
def test_a_grid_has_a_feature_for_each_place_and_what_a_place_shows_moves_what_is_near(cls):
    config = image_of(cls)
    image_size = 32 * 4 // math.isqrt(config.patches)  # a grid of 4 by 4
    model = with_image_size(model_of(image=config), image_size)
    random = generator(2)
    images = images_for(model.config.image, 2, random) if config.row_width else torch.rand(2, 3, image_size, image_size)
    grid = model.encode_grid(images)
    assert grid.shape == (2, 4, 4, 24)
    changed = images.clone()
    if config.row_width:
        changed[0, 0, 2:] += 1  # the first patch
    else:
        changed[0, :, : image_size // 4, : image_size // 4] += 1
    moved = (model.encode_grid(changed) - grid).norm(dim=-1)  # [2, 4, 4]
    assert moved[0, :2, :2].mean() > 1.2 * moved[0, 2:, 2:].mean()
    assert moved[1].max() == 0


def test_a_tower_without_a_grid_is_refused_in_one_sentence(toy_recipe):
    model = CLIP(toy_recipe.model, generator(0)).eval()
    with pytest.raises(ConfigError, match="needs the method `grid`, and a mean-colour tower has none"):
        model.encode_grid(torch.zeros(1, 3, 32, 32))


@each_image
def test_patches_are_dropped_where_a_tower_says_so_and_refused_where_not(cls, tiny_recipe):
    config = image_of(cls)
    model = model_of(image=config)
    images, kept = images_for(config, 2, generator(2)), torch.tensor([[0, 3, 5], [1, 2, 15]])
    if config.can_drop_patches:
        assert not torch.allclose(model.encode_image(images, kept), model.encode_image(images), atol=1e-4)
        assert config.cost(24, element=4, kept_patches=3).forward < config.cost(24, element=4).forward
        with_model(tiny_recipe, config, patch_dropout=0.5)
    else:
        with pytest.raises(TypeError):
            model.encode_image(images, kept)
        with pytest.raises(ConfigError, match="patch_dropout must be 0"):
            with_model(tiny_recipe, config, patch_dropout=0.5)


@each_image
def test_a_tower_that_needs_the_whole_batch_gives_features_that_hang_on_it_in_training(cls, tiny_recipe):
    config = image_of(cls)
    tower = model_of(image=config).image.train()
    images = images_for(config, 4, generator(2))
    alone, together = tower(images[:2]), tower(images)[:2]
    assert torch.allclose(alone, together, atol=1e-4) == (not config.needs_whole_batch)
    if config.needs_whole_batch:
        with pytest.raises(ConfigError, match=f"micro_batch_size must be 0 for a {config.kind} tower"):
            with_model(tiny_recipe, config, micro_batch_size=4)
    else:
        with_model(tiny_recipe, config, micro_batch_size=4)


@each_pair
def test_blocks_are_there_where_a_tower_says_so_and_all_of_them_are_found(image, text):
    model = model_of(image, text)
    for tower, config in ((model.image, image), (model.text, text)):
        inside = set(tower.modules())
        assert any(block in inside for block in model.blocks()) == config.has_blocks
        assert (config.cost(24, element=4).blocks > 0) == config.has_blocks
    model.recompute_blocks(True)
    assert all(module.recomputes for module in model.modules() if isinstance(module, Stack))
    model.recompute_blocks(False)
    assert not any(module.recomputes for module in model.modules() if isinstance(module, Stack))


def test_batch_norms_use_the_statistics_that_they_have_when_these_are_frozen():
    model = CLIP(preset("tiny-resnet"), generator(0)).train()
    images = torch.rand(4, 3, 32, 32, generator=generator(2))
    free = model.encode_image(images)
    model.freeze_batch_statistics()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    assert not torch.allclose(model.encode_image(images), free, atol=1e-4)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert model.training
    assert model.text.training


@each_image
def test_weights_lie_in_the_order_that_a_tower_wants(cls):
    config = image_of(cls)
    weights = model_of(image=config).state_dict()
    model = CLIP(CLIPConfig(embed_dim=24, image=config, text=text_of(TEXT_KINDS[0])))
    give_weights(model, weights)
    kernels = [p for p in model.image.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert kernels or config.row_width  # whose patches go through a matrix
    for kernel in kernels:
        assert kernel.is_contiguous(memory_format=torch.channels_last) == config.wants_channels_last


@each_image
def test_embed_dim_is_free_where_a_tower_has_a_projection(cls):
    config, text = image_of(cls), text_of(TEXT_KINDS[0])
    if config.fixed_embed_dim is None:
        model = CLIP(CLIPConfig(embed_dim=20, image=config, text=text))
        assert model.image(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 20)
    else:
        with pytest.raises(ConfigError, match=f"embed_dim must be 24, the width of the {config.kind} image tower"):
            CLIPConfig(embed_dim=20, image=config, text=text)


@each_text
def test_padding_counts_where_a_tower_reads_it_and_nowhere_else(cls):
    config = text_of(cls)
    model = model_of(text=config)
    tokens = torch.tensor([[1, 7, 9, 599] + [0] * 12, [1, 30, 31, 599] + [0] * 12])
    whole = model.encode_text(tokens)
    assert whole.shape == (2, 24)
    if config.reads_padding:
        with pytest.raises(ShapeError, match="L from 16 to 16"):
            model.encode_text(tokens[:, :4])
        tokens[:, -1] = 5
        assert not torch.allclose(model.encode_text(tokens), whole, atol=1e-4)
    else:
        torch.testing.assert_close(model.encode_text(tokens[:, :4]), whole, rtol=0, atol=1e-5)


@each_pair
def test_every_model_can_be_planned(image, text, tiny_recipe):
    recipe = with_model(tiny_recipe, image, text)
    for sharding in ("ddp", "fsdp"):
        plan = plan_run(recipe, Setup(device=UNIT, devices=2, precision="bfloat16", sharding=sharding))
        assert plan.flops["image"] == image.cost(24, element=2).forward
        assert plan.memory["text activations"] == 4 * text.cost(24, element=2).activations
        assert any("checkpointing" in way for way in plan.memory_otherwise) == (image.has_blocks or text.has_blocks)


_SIZES: dict[str, Any] = {"width": 24, "layers": 2, "heads": 2}
OPTIONS = {  # of image and text towers, as the models have them that brought them
    "coca": (image_of(CoCaImageTowerConfig), text_of(CoCaTextTowerConfig)),
    "clipa": (
        dataclasses.replace(image_of(IMAGE_KINDS[0]), pool="mean", has_ln_pre=False, activation="gelu"),
        SigLIPTextTowerConfig(context_length=16, vocab_size=600, projection="plain", **_SIZES),
    ),
    "mobileclip": (
        dataclasses.replace(
            image_of(IMAGE_KINDS[0]), stem="convolutions", has_ln_pre=False, has_projection_bias=True, activation="gelu"
        ),
        dataclasses.replace(text_of(TEXT_KINDS[0]), is_causal=False),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_towers_are_learned_with_and_come_back_to_the_bit(name, tiny_recipe, tmp_path):
    recipe = with_model(tiny_recipe, *OPTIONS[name], steps=20, layer_decay=0.9, checkpoint_every=20)
    before = CLIP(recipe.model, generator(recipe.seed)).state_dict()
    after = train(recipe, tmp_path / "run").bundle.model.state_dict()
    assert not [name for name, value in after.items() if torch.equal(value.cpu(), before[name])]
    loaded = load_in_torch(tmp_path / "run" / "bundle").model
    assert loaded.config == recipe.model
    assert all(torch.equal(loaded.state_dict()[name], value.cpu()) for name, value in after.items())


@each_image
def test_every_image_tower_lowers_the_loss_in_twenty_steps(cls, tiny_recipe, tmp_path):
    train(with_model(tiny_recipe, image_of(cls), steps=20, layer_decay=0.8, checkpoint_every=20), tmp_path / "run")
    losses = curve(tmp_path / "run", "loss")
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_nobody_imports_a_tower_but_model_and_the_tables_of_foreign_formats():
    homes = {cls.__module__ for cls in (*IMAGE_KINDS, *TEXT_KINDS)}
    patterns = ("open_clip*.py", "timm_*.py", "hf_*.py", "hugging_face.py", "convert.py")
    tables = {path for pattern in patterns for path in (SRC / "weights").glob(pattern)}
    found = {
        f"{path.relative_to(SRC)}: {node.module}"
        for path in SRC.rglob("*.py")
        if path.parent != SRC / "model" and path not in tables
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in homes
    }
    assert found == set()


# A tower that is new: this config, its module, and a line in the union.


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanColourConfig:
    """Sizes of a tower that sees the mean colour of a picture, and no more."""

    kind: Literal["mean-colour"] = "mean-colour"
    image_size: int = 32  # pixels of one side

    can_drop_patches: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False
    wants_channels_last: ClassVar[bool] = False
    row_width: ClassVar[int] = 0
    fixed_embed_dim: ClassVar[int | None] = None
    token_width: ClassVar[int] = 0
    has_grid: ClassVar[bool] = False
    patches: ClassVar[int] = 1
    summary: ClassVar[str] = "mean colour"

    def __post_init__(self) -> None:
        check_sizes("image", image_size=self.image_size)

    def build(self, embed_dim: int) -> "MeanColour":
        return MeanColour(embed_dim)

    def cost(self, embed_dim: int, *, element: int, kept_patches: int | None = None) -> TowerCost:
        assert kept_patches is None
        flops = 2 * 3 * embed_dim
        return without_blocks(forward=flops, first=flops, activations=element * 3)


class MeanColour(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.projection = Linear(3, embed_dim)

    def trunk(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def project(self, trunk: Tensor) -> Tensor:
        return self.projection(trunk)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.trunk(images))

    def reset_parameters(self, generator: torch.Generator) -> None:
        reset_to_defaults(self, generator)


@pytest.fixture
def its_line_in_the_union(monkeypatch) -> None:
    monkeypatch.setitem(CLIPConfig.__annotations__, "image", ImageConfig | MeanColourConfig)


@pytest.fixture
def toy_recipe(tiny_recipe, its_line_in_the_union) -> TrainRecipe:
    """As a file would hold it."""
    plain = to_dict(tiny_recipe)
    plain["model"] |= {"embed_dim": 24, "image": {"kind": "mean-colour", "image_size": 32}}
    return from_dict(TrainRecipe, plain)


def test_a_new_tower_is_read_from_a_recipe_planned_and_given_advice_that_holds(toy_recipe):
    assert isinstance(toy_recipe.model.image, MeanColourConfig)
    with FlopCounterMode(display=False) as counter:
        CLIP(toy_recipe.model).image(torch.zeros(1, 3, 32, 32, device="meta"))
    plan = plan_run(toy_recipe, Setup(device=UNIT, precision="bfloat16"))
    assert plan.flops["image"] == counter.get_total_flops() == 2 * 3 * 24
    sentence = bottleneck({"step": 1.0}, toy_recipe)
    assert "train.compile" in sentence  # its text tower has blocks
    assert "train.patch_dropout" not in sentence
    with pytest.raises(ConfigError, match="patch_dropout must be 0"):
        dataclasses.replace(toy_recipe, train=dataclasses.replace(toy_recipe.train, patch_dropout=0.5))


def test_a_new_tower_is_trained_saved_loaded_described_and_resized(toy_recipe, tmp_path):
    options: dict[str, Any] = {"steps": 3, "layer_decay": 0.5, "micro_batch_size": 4}
    recipe = dataclasses.replace(toy_recipe, train=dataclasses.replace(toy_recipe.train, **options))
    bundle = train(recipe, tmp_path / "run").bundle
    loaded = load_in_torch(tmp_path / "run" / "bundle")
    pictures = [Image.new("RGB", (40, 32), colour) for colour in ("red", "green")]
    torch.testing.assert_close(loaded.encode_images(pictures), bundle.encode_images(pictures), rtol=0, atol=0)
    assert loaded.model.config == recipe.model
    assert model_info(tmp_path / "run" / "bundle").architecture.startswith("mean colour; text: 2 layers of 32")
    larger = loaded.with_image_size(48)
    pixels = np.stack([larger.preprocess.pixels(picture) for picture in pictures])
    features, trunk = larger.encode_pixels_and_trunk(pixels)
    assert (features.shape, trunk.shape) == ((2, 24), (2, 3))
    loaded.save(tmp_path / "small", dtype=torch.int8)
    assert model_info(tmp_path / "small").types == "float32, int8"


def test_a_new_tower_is_refused_by_the_formats_that_have_no_row_for_it(its_line_in_the_union, tmp_path):
    tokenizer = Tokenizer.train(["a red kite", "a blue boat"] * 3, vocab_size=530, context_length=16)
    text = dataclasses.replace(preset("tiny-vit").text, vocab_size=tokenizer.vocab_size)
    model = CLIP(CLIPConfig(embed_dim=24, image=MeanColourConfig(), text=text), generator(0))
    bundle = Bundle(model=model.eval(), preprocess=Preprocess(image_size=32), tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="transformers has no class"):
        save_as(bundle, tmp_path / "x", format="huggingface")
    with pytest.raises(ConfigError, match="Got mean-colour and clip with a softmax head"):
        save_as(bundle, tmp_path / "x", format="open_clip")
    with pytest.raises(ConfigError, match="Got mean-colour and clip with a softmax head"):
        save_as(bundle, tmp_path / "x.pt", format="openai")
    assert list(tmp_path.iterdir()) == []
