"""Models by name: the bundles that ship inside the package."""

from dataclasses import dataclass
from pathlib import Path

from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.weights.bundle import Bundle
from diptych.weights.folder import count_parameters, read_config, tensor_shapes

DEFAULT_MODEL = "diptych-pictogram-small"

_MODELS = Path(__file__).with_name("models")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What can be told of a model without building it."""

    name: str
    architecture: str  # one line
    parameters: int
    embed_dim: int  # D
    image_size: int  # S, pixels of one side
    licence: str
    data: str  # what it was trained on
    size: int  # bytes on disk, all files of its folder


def list_models() -> list[ModelInfo]:
    """The models that `load` knows by name, in alphabetical order.

    Raises:
        WeightsError: the folder of one is damaged.
    """
    return [describe(folder) for folder in _packaged().values()]


def describe(folder: Path) -> ModelInfo:
    """The facts of one bundle, from its `config.json` and the header of its weights; its name is the folder's.

    Raises:
        WeightsError: one of the two is missing or damaged.
    """
    config = read_config(folder)
    return ModelInfo(
        name=folder.name,
        architecture=_one_line(config.model),
        parameters=count_parameters(tensor_shapes(folder)),
        embed_dim=config.model.embed_dim,
        image_size=config.model.image.image_size,
        licence=config.block.about.licence if config.block else "",
        data=config.block.about.data if config.block else "",
        size=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
    )


def load(name_or_folder: str | Path | None = None, *, image_size: int | None = None) -> Bundle:
    """A model by its name or its folder.

    Args:
        name_or_folder: a name from `list_models`, else a bundle's or a `transformers` CLIP folder; a name goes before
            a folder of the same name, which a `Path` or "./" in front reaches. None is `DEFAULT_MODEL`.
        image_size: S, pixels of one side; another one than the model's own stretches its position grid.

    Raises:
        ConfigError: there is neither such a model nor such a folder; the nearest name is given. Or the model cannot
            take this image size.
        WeightsError: the folder is damaged or holds no model of ours.
    """
    bundle = Bundle.load(find(name_or_folder))
    return bundle if image_size is None else bundle.with_image_size(image_size)


def find(name_or_folder: str | Path | None) -> Path:
    """The folder of a model, as `load` looks for it.

    Raises:
        ConfigError: there is neither such a model nor such a folder; the nearest name is given.
    """
    models = _packaged()
    name = DEFAULT_MODEL if name_or_folder is None else name_or_folder
    if isinstance(name, str) and name in models:
        return models[name]
    if name_or_folder is not None and Path(name).is_dir():
        return Path(name)
    raise ConfigError(f"{unknown_name(str(name), '', models, 'a model')} Or give the folder of a bundle.")


def _packaged() -> dict[str, Path]:
    return {config.parent.name: config.parent for config in sorted(_MODELS.glob("*/config.json"))}


def _one_line(config: CLIPConfig) -> str:
    image, text = config.image, config.text
    if isinstance(image, ImageTowerConfig):
        tower = f"ViT/{image.patch_size}, {image.layers} layers of {image.width}"
    else:
        tower = f"ResNet, {'-'.join(map(str, image.layers))} bottlenecks, stem of {image.width}"
    return f"{tower}; text: {text.layers} layers of {text.width}, {text.vocab_size:,} x {text.context_length} tokens"
