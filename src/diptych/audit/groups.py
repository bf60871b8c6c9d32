"""Pictures with groups as the audits of people see them: features, who is in which group, and what is not told.

Letters: N pictures that could be read, D, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.audit.probes import PromptSet
from diptych.config import unknown_name
from diptych.errors import ConfigError
from diptych.eval.chapter import Example
from diptych.eval.features import ModelFeatures
from diptych.eval.result import DataId
from diptych.files import natural_order
from diptych.sets.grouped import GroupedImages

EXAMPLES = 12  # pictures of a chapter
_SIDE = 160  # of an example, px


@dataclass(frozen=True, kw_only=True, eq=False)
class Subjects:
    """The pictures of a set that a model could read."""

    features: ModelFeatures
    pictures: GroupedImages
    image_features: Tensor  # [N, D]
    kept: tuple[int, ...]  # [N] positions in the set
    skipped: dict[str, int]

    @property
    def data(self) -> DataId:
        return DataId(name=self.pictures.name, split=self.pictures.split)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """[N]"""
        return tuple(self.pictures.keys[index] for index in self.kept)

    def column(self, name: str) -> list[str]:
        """[N], the group of each picture, "" where it is not told.

        Raises:
            ConfigError: the set has no such kind of groups.
        """
        if name not in self.pictures.groups:
            raise ConfigError(unknown_name(name, "", self.pictures.groups, f"a kind of groups of {self.pictures.name}"))
        told = self.pictures.groups[name]
        return [told[index] for index in self.kept]

    def members(self, name: str) -> dict[str, np.ndarray]:
        """[N] bool for each group that a picture is in, in natural order."""
        column = np.array(self.column(name), dtype=object)
        return {value: column == value for value in sorted({one for one in column if one}, key=natural_order)}

    def logits(self, labels: Sequence[str], prompts: PromptSet) -> Tensor:
        """[N, C]"""
        weights = self.features.class_weights(labels, prompts.templates)
        return self.features.logits_per_image(self.image_features.to(weights), weights).cpu()

    def picture(self, row: int) -> Image.Image:
        """One of the N pictures, small."""
        picture = self.pictures.open(self.kept[row])
        picture.thumbnail((_SIDE, _SIDE))
        return picture

    def examples(self, rows: Sequence[int], captions: Sequence[str]) -> tuple[Example, ...]:
        """The first of some rows, as a page shows them."""
        shown = list(zip(rows, captions, strict=True))[:EXAMPLES]
        return tuple(Example(key=self.keys[row], caption=said, picture=self.picture(row)) for row, said in shown)

    def not_told(self, columns: Sequence[str]) -> list[str]:
        """What is not known of the pictures, as sentences."""
        found = [f"{cause}: {count:,}." for cause, count in self.pictures.left_out.items()]
        found += [f"Pictures that cannot be read ({cause}): {count:,}." for cause, count in self.skipped.items()]
        for name in columns:
            told, all_told = set(self.column(name)), set(self.pictures.groups[name])
            found += [f"{name} {lost}: none of its pictures can be read." for lost in sorted(all_told - told) if lost]
            if empty := self.column(name).count(""):
                found.append(f"{name} is not told of {empty:,} of {len(self.kept):,} pictures.")
            alone = [group for group, rows in self.members(name).items() if rows.sum() == 1]
            found += [f"{name} {group} has one picture: its interval says nearly nothing." for group in alone]
        return found


def subjects(features: ModelFeatures, pictures: GroupedImages, *, sha256: str = "") -> Subjects:
    """The pictures through the model.

    Args:
        features: of the model.
        pictures: a set with groups.
        sha256: of the set's bytes, see `ModelFeatures.pictures`.

    Raises:
        DataError: no picture can be read.
    """
    encoded = features.pictures(pictures, sha256)
    return Subjects(
        features=features,
        pictures=pictures,
        image_features=encoded.image_features,
        kept=encoded.kept,
        skipped=dict(encoded.skipped),
    )


def keys_of(subjects: Subjects, rows: np.ndarray) -> list[str]:
    """Keys of the rows that are True in [N]."""
    return [key for key, one in zip(subjects.keys, rows, strict=True) if one]


def check_columns(subjects: Subjects, columns: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of groups that are asked for; by default all of the set.

    Raises:
        ConfigError: the set has none, or not that one.
    """
    if not subjects.pictures.groups:
        raise ConfigError(f"{subjects.pictures.name} must have groups. Its table has no column beside the keys.")
    for name in columns or ():
        subjects.column(name)
    return tuple(columns or subjects.pictures.groups)


def best(logits: Tensor) -> np.ndarray:
    """[N] number of the best label; of labels that tie the first."""
    return torch.as_tensor(logits).argmax(dim=1).numpy()
