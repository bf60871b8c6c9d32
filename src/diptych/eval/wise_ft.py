"""Between a pretrained model and its fine-tuned self: what each mean of the two can do, on the new task and the old.

Source: WiSE-FT, arXiv:2109.01903, sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import ConfigError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import one_set
from diptych.eval.measure import evaluate_zero_shot, prompts_of, task_of
from diptych.eval.result import Conditions, DataId, ModelId
from diptych.eval.suite import conditions_of
from diptych.eval.tasks import Prompts
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.average import check_alpha, interpolate
from diptych.weights.bundle import Bundle

ALPHAS = tuple(number / 10 for number in range(11))
WISE_FT_FORMAT = "diptych-wise-ft-1"


@dataclass(frozen=True, kw_only=True)
class AlphaPoint:
    """One mean of two models. Shares between 0 and 1."""

    alpha: float  # share of the fine-tuned model
    target: float  # top-1 on the new task
    references: Mapping[str, float]  # top-1 on each old task
    reference: float  # their mean


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveSets:
    """What a curve is measured on and where, read and checked: no model is needed for that."""

    target: LabelledImages
    references: tuple[LabelledImages, ...]
    data: tuple[DataId, ...]  # of the target and the references
    prompts: tuple[Prompts, ...]  # likewise
    alphas: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class WiseFT:
    """Points in the order of alpha, with their conditions."""

    model: ModelId  # the fine-tuned one
    pretrained: ModelId
    data: DataId  # the new task
    references: tuple[DataId, ...]  # the old ones
    prompts: tuple[Prompts, ...]  # of the new task and the old ones
    conditions: Conditions
    points: tuple[AlphaPoint, ...]


def read_curve_sets(
    target: Path, references: Sequence[Path], *, split: str | None = None, alphas: Sequence[float] = ALPHAS
) -> CurveSets:
    """Find the labelled sets of a curve.

    Args:
        target: folder of what the model was tuned for.
        references: folders of what it could do before.
        split: their subfolder; by default that which a suite would take of each.
        alphas: shares of the tuned model.

    Raises:
        ConfigError: an alpha is outside 0 to 1, or names come twice.
        DataError: a set cannot be read.
    """
    found = [one_set(folder, "zero-shot", split=split) for folder in (target, *references)]
    new, *old = [read_labelled(one.folder, split=one.split) for one in found]
    _check(new, old, alphas)
    return CurveSets(
        target=new,
        references=tuple(old),
        data=tuple(DataId(name=one.name, split=one.split, sha256=digest(one.folder, one.split)) for one in found),
        prompts=tuple(prompts_of(data, task_of(data.name, "classification")) for data in (new, *old)),
        alphas=tuple(alphas),
    )


def measure_wise_ft(
    pretrained: Bundle,
    tuned: Bundle,
    sets: CurveSets,
    *,
    names: tuple[str, str],
    batch_size: int = 256,
    truncate: bool = False,
) -> WiseFT:
    """The curve of two models on labelled sets, with its conditions.

    Args:
        pretrained: alpha 0.
        tuned: alpha 1, of the same sizes.
        sets: from `read_curve_sets`.
        names: what the two are called.
        batch_size: pictures, and texts, in one forward pass.
        truncate: see `evaluate_zero_shot`.

    Raises:
        ConfigError: the models differ.
        DataError: no picture of a set can be read.
    """
    points = wise_ft_curve(
        pretrained,
        tuned,
        target=sets.target,
        references=sets.references,
        alphas=sets.alphas,
        batch_size=batch_size,
        truncate=truncate,
    )
    before, after = (
        ModelId(name=name, fingerprint=bundle.fingerprint())
        for name, bundle in zip(names, (pretrained, tuned), strict=True)
    )
    return WiseFT(
        model=after,
        pretrained=before,
        data=sets.data[0],
        references=sets.data[1:],
        prompts=sets.prompts,
        conditions=conditions_of(ModelFeatures(tuned), seed=0),
        points=points,
    )


def wise_ft_curve(
    pretrained: Bundle,
    tuned: Bundle,
    *,
    target: LabelledImages,
    references: Sequence[LabelledImages],
    alphas: Sequence[float] = ALPHAS,
    batch_size: int = 256,
    truncate: bool = False,
) -> tuple[AlphaPoint, ...]:
    """Zero-shot top-1 along the line from one model's weights to the other's.

    Args:
        pretrained: alpha 0.
        tuned: alpha 1, of the same sizes.
        target: what the model was tuned for.
        references: what it could do before, at least one set, of distinct names.
        alphas: shares of the tuned model.
        batch_size: pictures, and texts, in one forward pass.
        truncate: see `evaluate_zero_shot`.

    Raises:
        ConfigError: the models differ, an alpha is outside 0 to 1, or names come twice.
        DataError: no picture of a set can be read.
    """
    _check(target, references, alphas)
    points = []
    for alpha in sorted(set(alphas)):
        bundle = interpolate(pretrained, tuned, alpha)
        scores = {
            data.name: evaluate_zero_shot(bundle, data, batch_size=batch_size, truncate=truncate).numbers["top-1"]
            for data in (target, *references)
        }
        new = scores.pop(target.name)
        reference = sum(scores.values()) / len(scores)
        points.append(AlphaPoint(alpha=alpha, target=new, references=scores, reference=reference))
    return tuple(points)


def _check(target: LabelledImages, references: Sequence[LabelledImages], alphas: Sequence[float]) -> None:
    names = [data.name for data in references]
    if not names or len({target.name, *names}) <= len(names):
        raise ConfigError(
            "the new task and at least one old one must be labelled sets of distinct names. "
            f"Got {', '.join([target.name, *names])}."
        )
    if not alphas:
        raise ConfigError("alphas must name at least one share between 0 and 1.")
    for alpha in alphas:
        check_alpha(alpha)
