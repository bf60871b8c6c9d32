"""A model and a task in, the task's own number out: zero-shot, whatever kind the task is of.

Three steps, so that features may come from a cache: `open_task` finds the pictures, `encode_pictures` makes features of
them, `score_task` needs nothing but these and the model's words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.data.captioned import CaptionedImages, read_retrieval
from diptych.data.labelled import LabelledImages, read_labelled
from diptych.data.pictures import Pictures
from diptych.data.prompts import check_templates, fill
from diptych.errors import DataError
from diptych.eval.metrics import Interval, bootstrap_interval
from diptych.eval.outcomes import Outcomes, zero_shot_outcomes
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.eval.retrieval import retrieval
from diptych.eval.tasks import Task, names_of
from diptych.eval.zero_shot import Encoder, class_weights, score_zero_shot, with_targets


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskResult:
    """One number and its conditions. Shares between 0 and 1; ties count against the model."""

    task: str
    data: str  # name of the folder
    split: str
    metric: str
    value: float
    interval: Interval | None  # of `value`; None where no resampling fits
    n: int  # what the metric counts: pictures, clips, queries
    skipped: Mapping[str, int]  # pictures that could not be read, by cause
    others: Mapping[str, float] = field(default_factory=dict)  # further numbers, e.g. "top-5", "recall@10"
    classnames: tuple[str, ...] = ()  # the first name of each class
    templates: tuple[str, ...] = ()
    correct: Tensor | None = None  # [n] bool, where each of the n is right or wrong: for paired tests
    outcomes: Outcomes | None = None  # of classification, picture by picture

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the arrays."""
        values = {name: value for name, value in vars(self).items() if name not in ("correct", "outcomes")}
        return values | {
            "interval": asdict(self.interval) if self.interval else None,
            "skipped": dict(self.skipped),
            "others": dict(self.others),
            "classnames": list(self.classnames),
            "templates": list(self.templates),
        }


def run_zero_shot(
    encoder: Encoder,
    task: Task,
    folder: Path,
    *,
    split: str | None = None,
    templates: Sequence[str] | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> TaskResult:
    """Measure a model on a task.

    Args:
        encoder: a bundle.
        task: a row of the table.
        folder: its data, as `task_data` finds it.
        split: by default the one that the task is measured on.
        templates: prompt templates; by default those of the task.
        batch_size: texts, and pictures, in one forward pass.
        seed: of the interval.

    Raises:
        DataError: the data is not there, or not in a layout that can be read.
    """
    pictures = open_task(task, folder, split=split)
    encoded = encode_pictures(encoder.encode_images, pictures, batch_size=batch_size)
    return score_task(encoder, task, pictures, encoded, templates=templates, batch_size=batch_size, seed=seed)


def open_task(task: Task, folder: Path, *, split: str | None = None) -> Pictures:
    """The pictures of a task, to be encoded by `encode_pictures`; what else its kind needs comes with them.

    Raises:
        DataError: the data is not there, or not in a layout that can be read.
    """
    return _KINDS[task.kind][0](folder, split=split or task.split)


def score_task(
    encoder: Encoder,
    task: Task,
    pictures: Pictures,
    encoded: PictureFeatures,
    *,
    templates: Sequence[str] | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> TaskResult:
    """The task's number from features that are there already; texts are encoded here.

    Args:
        encoder: a bundle; only its text side is used.
        task: a row of the table.
        pictures: what `open_task` gave.
        encoded: their features, from `encode_pictures` or a cache.
        templates: prompt templates; by default those of the task.
        batch_size: texts in one forward pass.
        seed: of the interval.
    """
    prompts = check_templates(templates or task.templates)
    return _KINDS[task.kind][1](_Scoring(encoder, task, prompts, batch_size, seed), pictures, encoded)


@dataclass(frozen=True)
class _Scoring:
    encoder: Encoder
    task: Task
    templates: tuple[str, ...]
    batch_size: int
    seed: int

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[N, D] float32, unit length."""
        starts = range(0, len(texts), self.batch_size)
        return torch.cat([self.encoder.encode_texts(texts[s : s + self.batch_size]).float() for s in starts])

    def result(self, pictures: Pictures, encoded: PictureFeatures, **values: Any) -> TaskResult:
        return TaskResult(
            task=self.task.name,
            data=pictures.name,
            split=pictures.split,
            skipped=encoded.skipped,
            **{"metric": self.task.metric, "templates": self.templates} | values,
        )


def _classification(scoring: _Scoring, pictures: LabelledImages, encoded: PictureFeatures) -> TaskResult:
    names = names_of(scoring.task, pictures.classnames)
    weights = class_weights(scoring.encoder, names, scoring.templates, batch_size=scoring.batch_size)
    labelled = with_targets(encoded, pictures)
    scores = score_zero_shot(labelled.image_features, labelled.targets, weights, seed=scoring.seed)
    outcomes = zero_shot_outcomes(scoring.encoder, labelled, weights)
    others = {"top-1": scores.top1, "mean per class": scores.mean_per_class}
    others |= {"top-5": scores.top5} if scores.top5 is not None else {}
    value = scores.mean_per_class if scoring.task.metric == "mean per class" else scores.top1
    return scoring.result(
        pictures,
        encoded,
        value=value,
        interval=scores.interval,
        n=scores.images,
        others=others,
        classnames=tuple(names_of_class[0] for names_of_class in names),
        correct=outcomes.correct,
        outcomes=outcomes,
    )


def _retrieval(scoring: _Scoring, pictures: CaptionedImages, encoded: PictureFeatures) -> TaskResult:
    captions = [(row, caption) for row, index in enumerate(encoded.kept) for caption in pictures.captions[index]]
    if len(scoring.templates) > 1:
        raise DataError(f"Captions take one prompt template. Got {len(scoring.templates)}.")
    texts = scoring.texts([text for _, caption in captions for text in fill(scoring.templates, caption)])
    owners = torch.tensor([row for row, _ in captions])
    found = retrieval(encoded.image_features.to(texts), texts, owners, seed=scoring.seed)
    ways = {"image to text": found.image_to_text, "text to image": found.text_to_image}
    recalls = {f"{way} recall@{k}": share for way, one in ways.items() for k, share in one.recall.items()}
    hits = found.text_to_image.ranks <= 1
    return scoring.result(
        pictures,
        encoded,
        value=hits.double().mean().item(),
        interval=bootstrap_interval(hits, seed=scoring.seed, group=owners),
        n=len(hits),
        others=recalls,
        correct=hits,
    )


# What opens the pictures of a kind, and what scores them.
_KINDS: dict[str, tuple[Callable[..., Pictures], Callable[..., TaskResult]]] = {
    "classification": (read_labelled, _classification),
    "retrieval": (read_retrieval, _retrieval),
}
