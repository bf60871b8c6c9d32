"""A model and a task in, the task's own number out: zero-shot, whatever kind the task is of.

Three steps, so that features may come from a cache: `open_task` finds the pictures, `encode_pictures` makes features of
them, `score_task` needs nothing but these and the model's words.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from diptych.data.prompts import check_templates
from diptych.eval import task_kinds
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.eval.task_result import Scoring, TaskEncoder, TaskResult
from diptych.eval.tasks import Kind, Task
from diptych.sets.captioned import read_retrieval
from diptych.sets.choices import read_choices
from diptych.sets.clips import read_anchors, read_clips, read_rare_actions
from diptych.sets.geotagged import read_places
from diptych.sets.lexicons import read_words
from diptych.sets.multilabel import read_multilabel
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures


def run_zero_shot(
    encoder: TaskEncoder,
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
    if task.kind == "video":
        return read_clips(folder, split=split or task.split, frames=task.frames)
    return _KINDS[task.kind][0](folder, split=split or task.split)


def score_task(
    encoder: TaskEncoder,
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
    return _KINDS[task.kind][1](Scoring(encoder, task, prompts, batch_size, seed), pictures, encoded)


# What opens the pictures of a kind, and what scores them.
_KINDS: dict[Kind, tuple[Callable[..., Pictures], Callable[..., TaskResult]]] = {
    "classification": (read_labelled, task_kinds.classification),
    "multilabel": (read_multilabel, task_kinds.multilabel),
    "video": (read_clips, task_kinds.video),
    "anchors": (read_anchors, task_kinds.anchors),
    "rare-actions": (read_rare_actions, task_kinds.rare_actions),
    "retrieval": (read_retrieval, task_kinds.retrieval),
    "ocr": (read_words, task_kinds.ocr),
    "geolocation": (read_places, task_kinds.geolocation),
    "compositional": (read_choices, task_kinds.compositional),
}
