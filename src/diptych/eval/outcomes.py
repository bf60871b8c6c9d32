"""What became of each picture, and the result files that hold it: what comparisons and reports are made from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.classify import Encoder
from diptych.errors import DataError, ShapeError
from diptych.eval.zero_shot import LabelledFeatures, ZeroShotResult, score_zero_shot
from diptych.measures.metrics import top_k_correct

_ROWS_AT_ONCE = 8192  # of the [N, C] probabilities


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Row by row, the pictures of a labelled set that could be read."""

    positions: Tensor  # [N] int64, in the labelled set
    targets: Tensor  # [N] int64
    predictions: Tensor  # [N] int64; of classes that tie the first
    correct: Tensor  # [N] bool; a tie is a miss
    confidences: Tensor  # [N] float, the highest probability

    def __post_init__(self) -> None:
        if len({column.shape for column in vars(self).values()}) > 1 or self.positions.ndim != 1:
            shapes = ", ".join(f"{name} {list(column.shape)}" for name, column in vars(self).items())
            raise ShapeError(f"Outcomes must be columns of one length, [N]. Got {shapes}.")

    def to_dict(self) -> dict[str, str]:
        """For JSON: one line a column, its values with spaces between."""
        columns = {name: " ".join(map(str, column.long().tolist())) for name, column in vars(self).items()}
        return columns | {"confidences": " ".join(f"{value:.4g}" for value in self.confidences.tolist())}

    @classmethod
    def from_dict(cls, columns: Mapping[str, str]) -> "Outcomes":
        """What `to_dict` gave.

        Raises:
            DataError: a column is missing, or holds no numbers.
            ShapeError: the columns differ in length.
        """
        try:
            whole = {
                name: torch.tensor([int(value) for value in columns[name].split()], dtype=torch.int64)
                for name in ("positions", "targets", "predictions", "correct")
            }
            confidences = torch.tensor([float(value) for value in columns["confidences"].split()])
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise DataError(f"Outcomes must be columns of numbers. Not so: {error}.") from None
        return cls(confidences=confidences, **whole | {"correct": whole["correct"].bool()})


def outcomes_of(scores: Tensor, targets: Tensor, kept: Sequence[int]) -> Outcomes:
    """Outcomes of a classifier whose scores are logits of a softmax, as a linear probe's are.

    Args:
        scores: [N, C].
        targets: [N].
        kept: N positions in the labelled set.
    """
    return Outcomes(
        positions=torch.tensor(list(kept)),
        targets=targets.cpu(),
        predictions=scores.argmax(dim=1).cpu(),
        correct=top_k_correct(scores, targets, 1).cpu(),
        confidences=scores.softmax(dim=1).amax(dim=1).float().cpu(),
    )


def result_outcomes(result: ZeroShotResult, kept: Sequence[int]) -> Outcomes:
    """Outcomes of a result that says how sure the model was, see `score_zero_shot`.

    Args:
        result: of N pictures.
        kept: their positions in the labelled set.
    """
    assert result.confidences is not None
    return Outcomes(
        positions=torch.tensor(list(kept)),
        targets=result.targets,
        predictions=result.predictions,
        correct=result.correct,
        confidences=result.confidences,
    )


def zero_shot_outcomes(encoder: Encoder, encoded: LabelledFeatures, weights: Tensor) -> Outcomes:
    """Outcomes of a zero-shot classifier.

    Args:
        encoder: a bundle; it makes probabilities of the cosines.
        encoded: N pictures.
        weights: [C, D], as `class_weights` gives them.
    """
    features = encoded.image_features.to(weights)
    parts = [encoder.probabilities(encoder.logits_per_image(rows, weights)) for rows in features.split(_ROWS_AT_ONCE)]
    confidences = torch.cat([part.amax(dim=1).float().cpu() for part in parts])
    result = score_zero_shot(encoded.image_features, encoded.targets, weights)
    return result_outcomes(dataclasses.replace(result, confidences=confidences), encoded.kept)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultFile:
    """One JSON file that a command wrote."""

    path: Path
    task: str  # "zero-shot" or "linear-probe"
    data: str  # name of the set
    split: str
    data_sha256: str
    model: str  # name or path, as it was asked for
    fingerprint: str
    classnames: tuple[str, ...]
    outcomes: Outcomes
    values: Mapping[str, Any]  # the whole file

    @property
    def labels(self) -> tuple[str, ...]:
        """What the set itself calls its classes, where the model was told other names."""
        return tuple(self.values.get("labels", self.classnames))

    @property
    def title(self) -> str:
        """Set and split; of the usual split the set alone."""
        return self.data if self.split == "test" else f"{self.data}, {self.split}"


def read_results(path: Path, *, may_be_none: bool = False) -> list[ResultFile]:
    """Results of classification with what became of each picture: one file, or all of a folder, by name.

    Other JSON files of a folder are passed over.

    Args:
        path: of the file or folder.
        may_be_none: whether it may hold none.

    Raises:
        DataError: there is no result, or a file cannot be read.
    """
    if path.is_dir():
        found = [result for values in _folder(path) if (result := _result(*values))]
        if not found and not may_be_none:
            raise DataError(f"{path} must hold results (*.json) with what became of each picture. It holds none.")
        return found
    result = _result(path, _json(path))
    if not result and may_be_none:
        return []
    if not result:
        raise DataError(
            f"{path} must say what became of each picture, under the key pictures. It does not: measure again with "
            "`diptych evaluate zero-shot --out`."
        )
    return [result]


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalFile:
    """One JSON file with recall both ways."""

    path: Path
    data: str  # name of the set
    split: str
    data_sha256: str
    model: str
    fingerprint: str
    values: Mapping[str, Any]  # the whole file

    @property
    def title(self) -> str:
        """Set and split; of the usual split the set alone."""
        return self.data if self.split == "test" else f"{self.data}, {self.split}"


def read_retrievals(path: Path) -> list[RetrievalFile]:
    """Results of retrieval: one file, or all of a folder, by name. None is no fault; other files are passed over.

    Raises:
        DataError: a file cannot be read.
    """
    files = _folder(path) if path.is_dir() else [(path, _json(path))]
    found = []
    for file, values in files:
        if not isinstance(values, dict) or values.get("task") != "retrieval":
            continue
        try:
            found.append(
                RetrievalFile(
                    path=file,
                    data=values["data"]["name"],
                    split=values["data"]["split"],
                    data_sha256=values["data"]["sha256"],
                    model=values["model"]["name"],
                    fingerprint=values["model"]["fingerprint"],
                    values=values,
                )
            )
        except (KeyError, TypeError) as error:
            raise _foreign(file, error) from None
    return found


def counted(skipped: Mapping[str, Any]) -> int:
    """Pictures left out, of a result of one split or of several."""
    return sum(counted(value) if isinstance(value, Mapping) else value for value in skipped.values())


def _folder(path: Path) -> list[tuple[Path, Any]]:
    return [(file, _json(file)) for file in sorted(path.glob("*.json"))]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} must be a result file. It cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} must be a result file. It is no JSON: {error}.") from None


def _foreign(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} must be a result file. It lacks {error}: was it written by another program?")


def _result(path: Path, values: Any) -> ResultFile | None:
    """None for JSON of another kind."""
    if not isinstance(values, dict) or "pictures" not in values:
        return None
    try:
        return ResultFile(
            path=path,
            task=values["task"],
            data=values["data"]["name"],
            split=values["data"]["split"],
            data_sha256=values["data"]["sha256"],
            model=values["model"]["name"],
            fingerprint=values["model"]["fingerprint"],
            classnames=tuple(values["classnames"]),
            outcomes=Outcomes.from_dict(values["pictures"]),
            values=values,
        )
    except (KeyError, TypeError) as error:
        raise _foreign(path, error) from None


def paired(a: ResultFile, b: ResultFile) -> tuple[Tensor, Tensor]:
    """What two models have right of the pictures that both could read, row by row, each [N] bool.

    Raises:
        DataError: the two were not measured on the same data, or share no picture.
    """
    if (a.data_sha256, a.split) != (b.data_sha256, b.split):
        raise DataError(
            f"{a.path} and {b.path} must be results on the same data. They are not: {a.title} "
            f"({a.data_sha256[:8]}) and {b.title} ({b.data_sha256[:8]})."
        )
    of_a, of_b = ({p: row for row, p in enumerate(side.outcomes.positions.tolist())} for side in (a, b))
    common = sorted(of_a.keys() & of_b.keys())
    if not common:
        raise DataError(f"{a.path} and {b.path} must share pictures. They share none.")
    rows_a, rows_b = ([rows[p] for p in common] for rows in (of_a, of_b))
    if a.outcomes.targets[rows_a].tolist() != b.outcomes.targets[rows_b].tolist():
        raise DataError(f"{a.path} and {b.path} must agree on what each picture shows. They do not.")
    return a.outcomes.correct[rows_a], b.outcomes.correct[rows_b]
