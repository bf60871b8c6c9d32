import pytest

from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import PRESETS, preset
from diptych.weights.open_clip import naming_of
from diptych.weights.open_clip_shapes import config_from_shapes

PUBLISHED = [name for name in PRESETS if not name.startswith("tiny")]


def shapes_of(config: CLIPConfig) -> dict[str, tuple[int, ...]]:
    theirs = naming_of(config).from_ours(CLIP(config).state_dict())  # on the meta device: no size costs anything
    return {name: tuple(tensor.shape) for name, tensor in theirs.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_every_published_model_are_read_off_its_shapes(name):
    config = preset(name)
    wide = config.image.width > 1024
    found = config_from_shapes(
        shapes_of(config), activation=config.text.activation, heads=config.image.heads if wide else None
    )
    assert found == config
    assert wide == (name in ("ViT-H-14", "ViT-g-14", "ViT-bigG-14"))


def test_the_activation_is_asked_for():
    with pytest.raises(WeightsError, match=r"pass activation='quick_gelu' \(OpenAI, .* activation='gelu' \(LAION"):
        config_from_shapes(shapes_of(preset("ViT-B-32")), activation=None, heads=None)


def test_the_heads_of_a_wide_tower_are_asked_for():
    with pytest.raises(WeightsError, match=r"image towers 1280 wide .* pass heads=16"):
        config_from_shapes(shapes_of(preset("ViT-H-14")), activation="gelu", heads=None)


def without(name: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes_of(preset("ViT-B-32")).items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "must hold visual.conv1.weight and text_projection, .* Got 0 tensors"),
        ({"layer.0.weight": (3, 3), "head.bias": (3,)}, r"Got 2 tensors such as head\.bias, layer\.0\.weight: is it"),
        ({"visual.trunk.stem.0.weight": (96, 3, 4, 4)}, r"Put its open_clip_config\.json beside the weights"),
        (without("text_projection"), "is it another kind of model"),
        (without("ln_final"), r"no CLIP's \(KeyError\('ln_final\.weight'\)\)\. Is it whole\?"),
        (without("visual.transformer"), r"no CLIP's .* Is it whole\?"),
        (shapes_of(preset("ViT-B-32")) | {"visual.positional_embedding": (51, 768)}, "50 positions are no square grid"),
        (shapes_of(preset("ViT-B-32")) | {"visual.positional_embedding": (0, 768)}, r"no CLIP's .* Is it whole\?"),
        (shapes_of(preset("ViT-B-32")) | {"visual.positional_embedding": ()}, r"no CLIP's .* Is it whole\?"),
        (shapes_of(preset("ViT-B-32")) | {"visual.conv1.weight": (768, 3)}, r"no CLIP's .* Is it whole\?"),
        (shapes_of(preset("ViT-B-32")) | {"text_projection": ()}, r"no CLIP's .* Is it whole\?"),
        (
            shapes_of(preset("RN50")) | {"visual.attnpool.positional_embedding": (49, 2048)},
            "48 positions are no square",
        ),
    ],
)
def test_shapes_that_are_no_whole_clip_are_refused(shapes, message):
    with pytest.raises(WeightsError, match=message):
        config_from_shapes(shapes, activation="gelu", heads=None)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"image\.heads must divide image\.width"):
        config_from_shapes(shapes_of(preset("ViT-B-32")), activation="gelu", heads=7)
