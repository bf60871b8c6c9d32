import tomllib

import pytest

from diptych.config import from_dict, to_toml
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import PRESETS, preset
from diptych.model.resnet_tower import ResNetTowerConfig

# Parameters of the image tower, of the text tower with its projection, and of the whole with its temperature.
PUBLISHED = {
    "RN50": (38_316_896, 63_690_240, 102_007_137),
    "RN101": (56_259_936, 63_428_096, 119_688_033),
    "RN50x4": (87_137_080, 91_163_520, 178_300_601),
    "RN50x16": (167_328_912, 123_650_304, 290_979_217),
    "RN50x64": (420_380_352, 202_877_952, 623_258_305),
    "ViT-B-32": (87_849_216, 63_428_096, 151_277_313),
    "ViT-B-16": (86_192_640, 63_428_096, 149_620_737),
    "ViT-L-14": (303_966_208, 123_650_304, 427_616_513),
    "ViT-L-14-336": (304_293_888, 123_650_304, 427_944_193),
    # As open_clip 3.3.0 counts the models of these names.
    "ViT-H-14": (632_076_800, 354_032_640, 986_109_441),
    "ViT-g-14": (1_012_645_632, 354_032_640, 1_366_678_273),
    "ViT-bigG-14": (1_844_907_264, 694_659_840, 2_539_567_105),
}
# Heads change no count. The paper gives them for every tower as width / 64, for a ResNet as 32 * stem width / 64;
# open_clip's files give head_width: 80 for H, 88 for g, 104 for bigG.
HEADS = {
    "RN50": (32, 8),
    "RN50x4": (40, 10),
    "RN50x64": (64, 16),
    "ViT-B-32": (12, 8),
    "ViT-L-14-336": (16, 12),
    "ViT-H-14": (1280 // 80, 16),
    "ViT-g-14": (1408 // 88, 16),
    "ViT-bigG-14": (1664 // 104, 20),
}
GELU = ("ViT-H-14", "ViT-g-14", "ViT-bigG-14")  # no "quick_gelu" in open_clip's files


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_size(name):
    model = CLIP(preset(name))
    counts = tuple(sum(p.numel() for p in part.parameters()) for part in (model.image, model.text, model))
    assert counts == PUBLISHED[name]


def test_heads_are_the_published_ones():
    assert {name: (preset(name).image.heads, preset(name).text.heads) for name in HEADS} == HEADS


@pytest.mark.parametrize("name", PRESETS)
def test_only_the_transformers_that_laion_trained_have_plain_gelu(name):
    towers = (preset(name).image, preset(name).text)
    expected = "gelu" if name in GELU else "quick_gelu"
    assert {tower.activation for tower in towers if not isinstance(tower, ResNetTowerConfig)} == {expected}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_printed_as_toml_reads_back_equal(name):
    assert from_dict(CLIPConfig, tomllib.loads(to_toml(PRESETS[name]))) == PRESETS[name]


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"ViT-B32 is not a preset\. Did you mean ViT-B-32\?"):
        preset("ViT-B32")
