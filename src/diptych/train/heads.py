"""The heads of objectives beside a bundle: written and read; and a model and a head that tell names apart together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from diptych.config import from_dict, to_dict
from diptych.data.images import ImageSource
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256, write_json
from diptych.train.captioner import CaptionHead, Written
from diptych.train.learner import Learner
from diptych.train.objectives import Head, PerSampleConfig, build_heads, head_name
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise

HEADS, CONFIG = "objectives.safetensors", "objectives.json"
_FORMAT = "diptych-objectives-1"


@dataclass(frozen=True, kw_only=True)
class _Objectives:
    objectives: tuple[PerSampleConfig, ...]


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Heads without the model that they belong to."""

    objectives: Sequence[PerSampleConfig]  # those that have heads
    tensors: Mapping[str, Tensor]  # NAME.PARAMETER, see `head_name`; whole tensors

    def save(self, folder: Path) -> None:
        """Write both files into a folder that is being written; nothing where there is no head."""
        if not self.objectives:
            return
        # Through bytes: the file writer of safetensors wraps what the disk said.
        (folder / HEADS).write_bytes(save({name: t.detach().cpu().contiguous() for name, t in self.tensors.items()}))
        plain = {"format": _FORMAT, **to_dict(_Objectives(objectives=tuple(self.objectives)))}
        write_json(folder / CONFIG, plain | {"sha256": sha256(folder / HEADS)})

    @classmethod
    def load(cls, folder: Path) -> "Heads":
        """What `save` wrote; none where a folder has no such files.

        Raises:
            WeightsError: a file is missing or damaged, or of a later format.
        """
        if not (folder / CONFIG).is_file():
            return cls(objectives=(), tensors={})
        try:
            plain: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            digest = plain.pop("sha256")
            if (form := plain.pop("format")) != _FORMAT:
                raise WeightsError(f"its format must be {_FORMAT}, and is {form}; update diptych")
            if sha256(folder / HEADS) != digest:
                raise WeightsError(f"{HEADS} is not what was saved: copy it again")
            return cls(
                objectives=from_dict(_Objectives, plain).objectives,
                tensors=load((folder / HEADS).read_bytes()),
            )
        except (WeightsError, ConfigError, OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise WeightsError(f"{folder / CONFIG} and {HEADS} must be the heads of a model: {error}.") from error

    def build(self, bundle: Bundle) -> nn.ModuleDict:
        """The heads as modules, where the model is.

        Raises:
            WeightsError: the tensors are of another model.
        """
        heads = build_heads(self.objectives, bundle.model.config, bundle.tokenizer)
        wanted = {name: value.shape for name, value in heads.state_dict().items()}
        if wanted != {name: value.shape for name, value in self.tensors.items()}:
            raise WeightsError(f"{HEADS} must fit the model that it lies beside. Is it of another one?")
        # Not as they lie in the file's bytes: the last bits of a product depend on where its factors begin.
        heads.load_state_dict({name: value.clone() for name, value in self.tensors.items()}, assign=True)
        return heads.to(bundle.device)


class NameScorer:
    """A model and one head of it: pictures and names in, scores out.

    Args:
        bundle: the model.
        heads: of the same model.
        kind: which of them.
    """

    def __init__(self, bundle: Bundle, heads: Heads, kind: str) -> None:
        self._bundle = bundle
        modules = heads.build(bundle).eval()
        self._learner = Learner(bundle.model, modules, heads.objectives)
        self._head = cast("Head", modules[head_name(kind)])

    @property
    def names_by_bundle(self) -> bool:
        """Whether the bundle's own features say the same, and sooner."""
        return self._head.names_by_bundle

    @torch.no_grad()
    def __call__(self, images: Sequence[ImageSource], names: Sequence[str]) -> Tensor:
        """[N, C], higher fits better; see the head's own `scores`.

        Args:
            images: N pictures, in one forward pass.
            names: C names or sentences; too long ones are cut.

        Raises:
            ImageError: a picture cannot be read.
        """
        tokens = torch.from_numpy(self._bundle.tokenizer.encode(names, truncate=True)).to(self._bundle.device)
        return self._head.scores(self._learner.see(_pixels(self._bundle, images)), tokens)


class Captioner:
    """Writes captions of pictures.

    Args:
        bundle: the model.
        heads: of the same model.

    Raises:
        ConfigError: none of the heads writes captions.
    """

    def __init__(self, bundle: Bundle, heads: Heads) -> None:
        kinds = [objective.kind for objective in heads.objectives]
        if "caption" not in kinds:
            learned = f"It has heads for {' and '.join(kinds)}." if kinds else f"There is no {HEADS} beside it."
            raise ConfigError(
                f"the model must have learned to write captions. {learned} "
                'A recipe with [[train.objectives]] kind = "caption" trains one.'
            )
        modules = heads.build(bundle).eval()
        self._bundle = bundle
        self._learner = Learner(bundle.model.eval(), modules, heads.objectives)
        self._head = cast("CaptionHead", modules["caption"])

    @torch.no_grad()
    def __call__(self, image: ImageSource, *, beams: int = 1) -> tuple[str, Written]:
        """The caption of one picture, and what it was written from; see `CaptionHead.write`.

        Raises:
            ImageError: the picture cannot be read.
        """
        written = self._head.write(self._learner.see(_pixels(self._bundle, [image])), beams=beams)
        start = [] if self._head.start_token_id is None else [self._head.start_token_id]
        return self._bundle.tokenizer.decode(written.tokens[len(start) :].tolist()), written


def _pixels(bundle: Bundle, images: Sequence[ImageSource]) -> Tensor:
    pixels = np.stack([bundle.preprocess.pixels(image) for image in images])
    return normalise(bundle.preprocess, torch.from_numpy(pixels).to(bundle.device))
