"""What open_clip's descriptions of timm's image towers have in common: a name tells the sizes."""

from collections.abc import Mapping
from typing import Any

from diptych.config import to_dict
from diptych.errors import ConfigError
from diptych.weights.open_clip_towers import side
from diptych.weights.tower_layout import Section

_KNOWN = ("image_size", "timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias")
# They change what training does, or how a model starts, and no feature.
_WITHOUT_EFFECT = ("timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout")
_DEFAULTS = {"timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": False}  # where a section is silent


def check_timm(vision: Section, *, pool: str, projection: str | None) -> None:
    """Refuse a section that puts another head on timm's tower than its published models have.

    Args:
        vision: it names a tower of the family.
        pool: "timm_pool" must be.
        projection: "timm_proj" must be; None is the classifier of timm's own.

    Raises:
        ConfigError: one key is named.
    """
    name = vision["timm_model_name"]
    for key, must in (("timm_pool", pool), ("timm_proj", projection), ("timm_proj_bias", False)):
        found = vision.get(key, _DEFAULTS[key])
        if (found or None) != (must or None):
            raise ConfigError(
                f"vision_cfg.{key} must be {must!r} for {name}, as in its published models. Got {found!r}: open it "
                "with open_clip."
            )
    for key in vision:
        if key not in (*_KNOWN, *_WITHOUT_EFFECT):
            raise ConfigError(
                f"vision_cfg.{key} must be absent, as {name} tells its sizes itself. Got {vision[key]!r}: open it with "
                "open_clip."
            )


def sizes_of(
    vision: Section, sizes: Mapping[str, Mapping[str, Any]], *, any_image_size: bool = False
) -> dict[str, Any]:
    """Options of our config by the name of timm's tower.

    Args:
        vision: it names a tower of the family.
        sizes: of the family, by name.
        any_image_size: whether the tower takes pictures of any size, as it has no positions that are learned.

    Raises:
        ConfigError: the section names another size of pictures than the tower takes.
    """
    name, size = vision["timm_model_name"], side(vision.get("image_size", 224))
    if not any_image_size and size != sizes[name]["image_size"]:
        raise ConfigError(
            f"vision_cfg.image_size must be {sizes[name]['image_size']}, what {name} takes. Got {size!r}: open it at "
            "its own size, and give it another one here."
        )
    return {**sizes[name], "image_size": size}


def named(config: Any, sizes: Mapping[str, dict[str, Any]], *, any_image_size: bool = False) -> str:
    """The name of timm's tower that has the sizes of ours.

    Args:
        config: of our tower.
        sizes: of the family, by name; one that tells no image_size ends in it.
        any_image_size: see `sizes_of`.

    Raises:
        ConfigError: none has.
    """
    wanted = to_dict(config)
    alike = {}
    for name, options in sizes.items():
        told = {} if "image_size" in options or any_image_size else {"image_size": int(name.rpartition("_")[2])}
        alike[name] = to_dict(type(config)(**told | options))
    found = [name for name, options in alike.items() if options == wanted]
    if any_image_size:
        found += [name for name, options in alike.items() if options | {"image_size": config.image_size} == wanted]
    if not found:
        what = ", ".join(filter(None, (config.summary, getattr(config, "activation", ""), f"{config.image_size} px")))
        raise ConfigError(
            f"open_clip knows towers of timm by their names, and none has the sizes of this one ({what}). Keep it as a "
            "bundle, or save a SigLIP model as huggingface."
        )
    return found[0]
