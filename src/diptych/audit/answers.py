"""What a model answers of labelled pictures, so that answers can be paired: shown otherwise, or asked otherwise.

Letters: n pictures that can be read, C classes, D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from diptych.errors import DataError
from diptych.eval.chapter import Example
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import prompts_of, task_of
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import DataId
from diptych.eval.tasks import Prompts
from diptych.measures.metrics import top_k_correct
from diptych.sets.changed import Change, changed, draw_pictures
from diptych.sets.labelled import LabelledImages

# Every probe that asks with words is run with both.
PROMPT_SETS = {"bare": ("{}",), "paper": ("a photo of a {}.",)}
_EXAMPLES = 12
_SMALL = 160  # px of the longer side


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One answer a picture."""

    keys: tuple[str, ...]  # n
    targets: Tensor  # [n] int64, class numbers
    predictions: Tensor  # [n] int64; of classes that tie the first
    correct: Tensor  # [n] bool; a tie is a miss


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """Labelled pictures, and how a model is told of their classes."""

    pictures: LabelledImages
    names: tuple[tuple[str, ...], ...]  # C: of each class one or several
    naming: str  # see `Prompts`

    @property
    def data(self) -> DataId:
        return DataId(name=self.pictures.name, split=self.pictures.split)

    @property
    def conditions(self) -> dict[str, str]:
        """How many pictures and classes a number hangs on."""
        return {"pictures": f"{len(self.pictures):,}", "classes": f"{len(self.names):,}, those of the pictures"}

    def prompts(self, templates: Sequence[str], names: Sequence[tuple[str, ...]] | None = None) -> Prompts:
        """The classes in these templates, by the names of the set or by others."""
        return Prompts(
            templates=tuple(templates),
            classnames=tuple(names or self.names),
            labels=self.pictures.classnames,
            naming=self.naming,
            source="of the audit",
        )

    def shown(self, features: ModelFeatures, change: Change) -> PictureFeatures:
        """Features of the pictures, each changed."""
        return features.pictures(changed(self.pictures, change))

    def answers(self, found: PictureFeatures, weights: Tensor) -> Answers:
        """The class whose words fit best, for each picture.

        Args:
            found: features of the pictures, as they are or changed.
            weights: [C, D], of the classes.
        """
        targets = torch.tensor(self.pictures.targets[list(found.kept)])
        scores = found.image_features.to(weights) @ weights.T  # [n, C]
        return Answers(
            keys=tuple(self.pictures.keys[index] for index in found.kept),
            targets=targets,
            predictions=scores.argmax(dim=1).cpu(),
            correct=top_k_correct(scores, targets, 1).cpu(),
        )


def subject_of(data: LabelledImages, count: int, *, seed: int = 0) -> Subject:
    """Some pictures of a set, and the classes that these have.

    Args:
        data: of which `count` pictures are drawn.
        count: 1 or more; all where there are fewer.
        seed: of the draw.

    Raises:
        DataError: the pictures are of one class, so that no answer can be wrong.
    """
    names = prompts_of(data, task_of(data.name, "classification")).classnames
    pictures, classes = draw_pictures(data, count, seed=seed)
    if len(classes) < 2:
        raise DataError(f"{data.name} must have pictures of two classes or more. There is one. Draw more pictures.")
    return Subject(pictures=pictures, names=tuple(names[number] for number in classes), naming=data.naming)


def weights_of(features: ModelFeatures, prompts: Prompts) -> Tensor:
    """[C, D] of the classes that prompts tell of."""
    return features.class_weights(prompts.classnames, prompts.templates)


def few(rows: Tensor) -> list[int]:
    """Up to twelve of the rows that are True, evenly from first to last: what a page shows of them."""
    there = rows.nonzero().flatten().tolist()
    return [there[number * len(there) // min(_EXAMPLES, len(there))] for number in range(min(_EXAMPLES, len(there)))]


def example(key: str, caption: str, picture: Image.Image) -> Example:
    """A picture for the page, made small."""
    small = picture.copy()
    small.thumbnail((_SMALL, _SMALL))
    return Example(key=key, caption=caption, picture=small)
