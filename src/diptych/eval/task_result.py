"""What a task gives: one number with its conditions. And what scoring any kind of task goes by."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from diptych.classify import Encoder, class_weights
from diptych.data.prompts import fill
from diptych.data.tokenizer import Tokenizer
from diptych.errors import DataError
from diptych.eval.outcomes import Outcomes
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.tasks import Task
from diptych.measures.metrics import Interval
from diptych.sets.pictures import Pictures


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
    shortened: int = 0  # texts that were too long for the model and were cut
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


class TaskEncoder(Encoder, Protocol):
    """What tasks need of a bundle: captions of others may be too long for it."""

    def encode_texts(self, texts: Sequence[str], /, *, truncate: bool = False) -> Tensor: ...  # [N, D], unit length


@dataclass(frozen=True)
class Scoring:
    """A model and a task, while its number is made."""

    encoder: TaskEncoder
    task: Task
    templates: tuple[str, ...]
    batch_size: int
    seed: int

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[N, D] float32, unit length, of captions or words through the one template there is; cut where too long.

        Raises:
            DataError: there are several templates.
        """
        batches = (texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size))
        return torch.cat([self.encoder.encode_texts(self._filled(batch), truncate=True).float() for batch in batches])

    def too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts are cut; 0 of an encoder that does not show its tokenizer."""
        tokenizer = getattr(self.encoder, "tokenizer", None)
        return tokenizer.count_too_long(self._filled(texts)) if isinstance(tokenizer, Tokenizer) else 0

    def _filled(self, texts: Sequence[str]) -> list[str]:
        if len(self.templates) > 1:
            raise DataError(f"{self.task.name} takes one prompt template. Got {len(self.templates)}.")
        return [text for one in texts for text in fill(self.templates, one)]

    def class_weights(self, names: Sequence[Sequence[str]]) -> Tensor:
        """[C, D] float32, unit length, of C classes by their names."""
        return class_weights(self.encoder, names, self.templates, batch_size=self.batch_size)

    def result(self, pictures: Pictures, encoded: PictureFeatures, **values: Any) -> TaskResult:
        return TaskResult(
            task=self.task.name,
            data=pictures.name,
            split=pictures.split,
            skipped=encoded.skipped,
            **{"metric": self.task.metric, "templates": self.templates} | values,
        )
