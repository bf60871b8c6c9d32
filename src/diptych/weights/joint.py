"""Two models behind one name, one for photographs and one for drawings; a gate tells which a picture is.

With g from 0, a photograph, to pi / 2, a drawing, and logits S1 cos1 of the one model and S2 cos2 of the other, a
picture is to have the logits cos(g) S1 cos1 + sin(g) (S2 cos2 - L). L is the level: unrelated words have larger logits
in one model than in the other, and a search over both kinds of pictures would find the one kind alone. The same as a
cosine, which every index and engine knows:

    picture  [cos(g) x1, sin(g) (sqrt(S2) x2, -sqrt(L)) / sqrt(S2 + L)]               unit length
    text     [S1 t1, sqrt(S2 + L) (sqrt(S2) t2, sqrt(L))] / S, S = hypot(S1, S2 + L)  unit length

S times their product is what was asked for; S is the `logit_scale`. So pictures whose gate is shut either way have the
logits of the one model or the other, but for a number that is the same for all texts.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from PIL import Image

from diptych.config import to_dict
from diptych.data.images import ImageSource
from diptych.data.tokenizer import Unread
from diptych.errors import ConfigError
from diptych.weights.dual_encoder import DualEncoder, LogitHead
from diptych.weights.folder import About
from diptych.weights.joint_file import JointFile, both, two_models


@dataclass(frozen=True, kw_only=True)
class JointEncoder(DualEncoder):
    """A model for photographs and one for drawings, as one. Made by `JointEncoder.of`."""

    name: str
    photographs: DualEncoder
    drawings: DualEncoder
    facts: JointFile

    def __post_init__(self) -> None:
        first, second, facts = self.photographs, self.drawings, self.facts
        if {first.head.kind, second.head.kind} != {"softmax"} or facts.level <= 0:
            raise ConfigError(f"the parts of {self.name} must have softmax heads, and its level must be above 0.")
        if len(facts.gate.weights) != first.embed_dim:
            raise ConfigError(
                f"the gate of {self.name} must have a weight for each of the {first.embed_dim} numbers of a feature of "
                f"{facts.photographs}. Got {len(facts.gate.weights)}."
            )
        mine, other = first.preprocess, second.preprocess
        if replace(other, image_size=mine.image_size, mean=mine.mean, std=mine.std, max_pixels=mine.max_pixels) != mine:
            raise ConfigError(f"the parts of {self.name} must cut and resize pictures alike. Got {mine} and {other}.")

    @classmethod
    def of(cls, photographs: DualEncoder, drawings: DualEncoder, facts: JointFile, *, name: str) -> "JointEncoder":
        """Two models as one.

        Args:
            photographs: whose feature the gate reads.
            drawings: takes the same part of a picture, in whatever size.
            facts: gate and level.
            name: what both together are called.

        Raises:
            ConfigError: a head is not softmax, the gate is another model's, or the two take pictures otherwise.
        """
        return cls(
            preprocess=photographs.preprocess,
            tokenizer=photographs.tokenizer,
            about=_joined_about(photographs.about, drawings.about),
            name=name,
            photographs=photographs,
            drawings=drawings,
            facts=facts,
        )

    def __getattr__(self, name: str) -> Any:  # of what is not here, as `model` and `save` of a `Bundle`
        raise AttributeError(
            f"two models behind one name have no {name!r}. Load the one for photographs or the one for drawings: "
            "diptych.load('diptych-photo', engine='torch')."
        )

    @property
    def embed_dim(self) -> int:
        """D: both models' and one, which holds the level."""
        return self.photographs.embed_dim + self.drawings.embed_dim + 1

    @property
    def _scale(self) -> float:
        """S."""
        return math.hypot(self.photographs.logit_scale, self.drawings.logit_scale + self.facts.level)

    @property
    def head(self) -> LogitHead:
        """What is made of cosines."""
        return LogitHead(kind="softmax", logit_scale=self._scale)

    @property
    def text_weight(self) -> float:
        """See `DualEncoder.text_weight`: that of the model for photographs, whose part of a text is short here."""
        return self.photographs.text_weight * self._scale / self.photographs.logit_scale

    @property
    def reads_padding(self) -> bool:
        """Whether the text tower for photographs reads its padding."""
        return self.photographs.reads_padding

    @property
    def golden_texts(self) -> tuple[str, ...]:
        """Those of the model for photographs."""
        return self.photographs.golden_texts

    def drawn(self, features: np.ndarray) -> np.ndarray:
        """How far pictures are drawings.

        Args:
            features: [B, D] of the pictures in the model for photographs.

        Returns:
            [B] float32, from 0, a photograph, to 1, a drawing.
        """
        return np.clip(
            features @ np.array(self.facts.gate.weights, np.float32) + np.float32(self.facts.gate.offset), 0, 1
        )

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_pixels`. Photographs are not shown to the model for drawings."""
        return self._joined(pixels, self.photographs.encode_pixels(pixels))

    def encode_fast(self, pixels: np.ndarray) -> np.ndarray:
        """See `DualEncoder.encode_fast`."""
        return self._joined(pixels, self.photographs.encode_fast(pixels))

    def encode_each(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `DualEncoder.encode_each`."""
        ahead, again = itertools.tee(batches)
        for features in self.photographs.encode_each(ahead):
            yield self._joined(next(again), features)

    def _joined(self, pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
        """[B, D] of pictures [B, S, S, 3] whose features in the model for photographs are given."""
        second = np.zeros((len(pixels), self.drawings.embed_dim), np.float32)
        if len(rows := np.flatnonzero(self.drawn(features))):
            resized = self.drawings.preprocess.resized
            second[rows] = self.drawings.encode_pixels(
                np.stack([resized(Image.fromarray(pixels[row])) for row in rows])
            )
        return self.joined(features, second)

    def joined(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """What becomes of the features of pictures in either model.

        Args:
            first: [B, D] in the model for photographs.
            second: [B, D] in the model for drawings; what stands there for a photograph has no effect.

        Returns:
            [B, D] float32, unit length.
        """
        angle = self.drawn(first)[:, None] * np.float32(math.pi / 2)  # [B, 1]
        scale, level = self.drawings.logit_scale, self.facts.level
        share = np.sin(angle) / np.float32(math.sqrt(scale + level))
        parts = (np.cos(angle) * first, share * np.float32(math.sqrt(scale)) * second, -share * np.float32(level**0.5))
        return np.concatenate(parts, axis=1)

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256, truncate: bool = False) -> np.ndarray:
        """See `DualEncoder.encode_texts`. What is too long for the model for drawings alone is cut for it."""
        first = self.photographs.encode_texts(texts, batch_size=batch_size, truncate=truncate)
        second = self.drawings.encode_texts(texts, batch_size=batch_size, truncate=True)
        return self._joined_texts(first, second)

    def pooled_texts(self, sums: np.ndarray) -> np.ndarray:
        """See `DualEncoder.pooled_texts`: each model pools its own part, as it does where it is alone."""
        width = self.photographs.embed_dim
        return self._joined_texts(
            self.photographs.pooled_texts(sums[:, :width]), self.drawings.pooled_texts(sums[:, width:-1])
        )

    def _joined_texts(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """[N, D] of features of N texts in either model."""
        scale = self.drawings.logit_scale
        reach = math.sqrt(scale + self.facts.level)
        level = np.full((len(first), 1), reach * math.sqrt(self.facts.level), np.float32)
        parts = (self.photographs.logit_scale * first, reach * math.sqrt(scale) * second, level)
        return (np.concatenate(parts, axis=1) / self._scale).astype(np.float32)

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Refused: each of the two models has a vocabulary of its own.

        Raises:
            ConfigError: always.
        """
        raise two_models(self.name, self.facts.photographs, self.facts.drawings)

    def unread(self, texts: Sequence[str]) -> list[Unread]:
        """Those of the texts of which the model for photographs does not know all words.

        One that it cannot read at all, and the model for drawings can, names that.
        """
        found = self.photographs.unread(texts)
        lost = [one.text for one in found if one.is_whole]
        also = {one.text for one in self.drawings.unread(lost) if one.is_whole}
        return [
            replace(one, read_by=f"{self.facts.drawings}, which reads it, for drawings")
            if one.is_whole and one.text not in also
            else one
            for one in found
        ]

    def part_for(self, image: ImageSource) -> DualEncoder:
        """See `DualEncoder.part_for`."""
        [share] = self.drawn(self.photographs.encode_images([image]))
        return self.drawings if share > 0.5 else self.photographs

    def prepare_to_share(self) -> None:
        """See `DualEncoder.prepare_to_share`."""
        self.photographs.prepare_to_share()
        self.drawings.prepare_to_share()

    def in_torch(self) -> Any:
        """Refused: it is two models.

        Raises:
            ConfigError: always; both are named.
        """
        raise two_models(self.name, self.facts.photographs, self.facts.drawings)

    def fingerprint(self) -> str:
        """See `DualEncoder.fingerprint`."""
        parts = [
            self.photographs.fingerprint(),
            self.drawings.fingerprint(),
            to_dict(self.facts.gate),
            self.facts.level,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _joined_about(first: About, second: About) -> About:
    """Where both come from."""
    return About(
        **{
            field.name: both(getattr(first, field.name), getattr(second, field.name))
            for field in fields(About)
            if field.name not in ("recipe", "sha256")
        }
    )
