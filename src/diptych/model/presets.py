"""Sizes of the published models, and of small ones for a CPU, as one table."""

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.text_tower import TextTowerConfig


def preset(name: str) -> CLIPConfig:
    """Sizes of a model by its name.

    Raises:
        ConfigError: there is no such preset; the nearest one is named.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name(name, "", PRESETS, "a preset"))
    return PRESETS[name]


def _text(width: int) -> TextTowerConfig:
    return TextTowerConfig(width=width, layers=12, heads=width // 64)


def _vit(embed_dim: int, image_size: int, patch_size: int, width: int, layers: int, text_width: int) -> CLIPConfig:
    image = ImageTowerConfig(
        image_size=image_size, patch_size=patch_size, width=width, layers=layers, heads=width // 64
    )
    return CLIPConfig(embed_dim=embed_dim, image=image, text=_text(text_width))


def _large_vit(
    embed_dim: int, width: int, layers: int, mlp_width: int, text_width: int, text_layers: int
) -> CLIPConfig:
    image = ImageTowerConfig(
        patch_size=14, width=width, layers=layers, heads=16, mlp_width=mlp_width, activation="gelu"
    )
    text = TextTowerConfig(width=text_width, layers=text_layers, heads=text_width // 64, activation="gelu")
    return CLIPConfig(embed_dim=embed_dim, image=image, text=text)


def _resnet(
    embed_dim: int, image_size: int, width: int, layers: tuple[int, int, int, int], text_width: int
) -> CLIPConfig:
    image = ResNetTowerConfig(image_size=image_size, width=width, layers=layers, heads=width // 2)
    return CLIPConfig(embed_dim=embed_dim, image=image, text=_text(text_width))


_TINY_TEXT = TextTowerConfig(context_length=16, vocab_size=512, width=32, layers=2, heads=2)

# OpenAI's models: CLIP, arXiv:2103.00020, tables 19 and 20. LAION's H, g and bigG: the configuration files of these
# names in open_clip 3.3.0, whose mlp_ratio gives the width of the MLP, rounded down.
PRESETS: dict[str, CLIPConfig] = {
    "RN50": _resnet(1024, 224, 64, (3, 4, 6, 3), text_width=512),
    "RN101": _resnet(512, 224, 64, (3, 4, 23, 3), text_width=512),
    "RN50x4": _resnet(640, 288, 80, (4, 6, 10, 6), text_width=640),
    "RN50x16": _resnet(768, 384, 96, (6, 8, 18, 8), text_width=768),
    "RN50x64": _resnet(1024, 448, 128, (3, 15, 36, 10), text_width=1024),
    "ViT-B-32": _vit(512, 224, 32, 768, 12, text_width=512),
    "ViT-B-16": _vit(512, 224, 16, 768, 12, text_width=512),
    "ViT-L-14": _vit(768, 224, 14, 1024, 24, text_width=768),
    "ViT-L-14-336": _vit(768, 336, 14, 1024, 24, text_width=768),
    "ViT-H-14": _large_vit(1024, 1280, 32, mlp_width=5120, text_width=1024, text_layers=24),
    "ViT-g-14": _large_vit(1024, 1408, 40, mlp_width=6144, text_width=1024, text_layers=24),
    "ViT-bigG-14": _large_vit(1280, 1664, 48, mlp_width=8192, text_width=1280, text_layers=32),
    # Ours, for tests: 77,000 and 130,000 parameters.
    "tiny-vit": CLIPConfig(
        embed_dim=32,
        image=ImageTowerConfig(image_size=32, patch_size=8, width=32, layers=2, heads=2),
        text=_TINY_TEXT,
    ),
    "tiny-resnet": CLIPConfig(
        embed_dim=32, image=ResNetTowerConfig(image_size=32, width=4, layers=(1, 1, 1, 1), heads=2), text=_TINY_TEXT
    ),
}
