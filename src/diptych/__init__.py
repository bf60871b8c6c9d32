"""diptych: pictures and words, meeting in one space. The whole CLIP life-cycle in one package.

>>> import diptych
>>> clip = diptych.load()
>>> classifier = diptych.ZeroShotClassifier(clip, ["a cat", "a dog"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diptych.version import __version__

if TYPE_CHECKING:
    from diptych.classify import ZeroShotClassifier
    from diptych.embed import embed_images
    from diptych.errors import DiptychError
    from diptych.eval.clip_score import score
    from diptych.model.clip import CLIP
    from diptych.probe import Probe
    from diptych.search.index import Index
    from diptych.search.library import Library
    from diptych.search.results import Results
    from diptych.train.loss import clip_loss, siglip_loss
    from diptych.weights.bundle import Bundle
    from diptych.weights.dual_encoder import DualEncoder
    from diptych.weights.engines import load
    from diptych.weights.registry import list_models

__all__ = [
    "CLIP",
    "Bundle",
    "DiptychError",
    "DualEncoder",
    "Index",
    "Library",
    "Probe",
    "Results",
    "ZeroShotClassifier",
    "__version__",
    "clip_loss",
    "embed_images",
    "list_models",
    "load",
    "score",
    "siglip_loss",
]

_HOMES = {
    "CLIP": "diptych.model.clip",
    "Bundle": "diptych.weights.bundle",
    "DiptychError": "diptych.errors",
    "DualEncoder": "diptych.weights.dual_encoder",
    "Index": "diptych.search.index",
    "Library": "diptych.search.library",
    "Probe": "diptych.probe",
    "Results": "diptych.search.results",
    "ZeroShotClassifier": "diptych.classify",
    "clip_loss": "diptych.train.loss",
    "embed_images": "diptych.embed",
    "list_models": "diptych.weights.registry",
    "load": "diptych.weights.engines",
    "score": "diptych.eval.clip_score",
    "siglip_loss": "diptych.train.loss",
}


def __getattr__(name: str) -> Any:  # names load on first use: `diptych --help` must not wait for torch
    if name not in _HOMES:
        raise AttributeError(f"module 'diptych' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        from diptych.errors import missing_extra

        raise missing_extra(f"diptych.{name}", "torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
