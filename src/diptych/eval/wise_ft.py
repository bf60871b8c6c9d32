"""Between a pretrained model and its fine-tuned self: what each mean of the two can do, on the new task and the old.

Source: WiSE-FT, arXiv:2109.01903, sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import ConfigError
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import evaluate_zero_shot
from diptych.eval.result import Conditions, DataId, ModelId
from diptych.eval.suite import conditions_of
from diptych.sets.digest import digest
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.average import interpolate
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


@dataclass(frozen=True, kw_only=True)
class WiseFT:
    """Points in the order of alpha, with their conditions."""

    model: ModelId  # the fine-tuned one
    pretrained: ModelId
    data: DataId  # the new task
    references: tuple[DataId, ...]  # the old ones
    conditions: Conditions
    points: tuple[AlphaPoint, ...]


def measure_wise_ft(
    pretrained: Bundle,
    tuned: Bundle,
    *,
    names: tuple[str, str],
    target: Path,
    references: Sequence[Path],
    split: str = "test",
    alphas: Sequence[float] = ALPHAS,
    batch_size: int = 256,
) -> WiseFT:
    """The curve of two models on labelled sets, with its conditions.

    Args:
        pretrained: alpha 0.
        tuned: alpha 1, of the same sizes.
        names: what the two are called.
        target: folder of what the model was tuned for.
        references: folders of what it could do before.
        split: their subfolder.
        alphas: shares of the tuned model.
        batch_size: pictures, and texts, in one forward pass.

    Raises:
        ConfigError: see `wise_ft_curve`.
        DataError: a set cannot be read.
    """
    folders = [target, *references]
    new, *old = [read_labelled(folder, split=split) for folder in folders]
    points = wise_ft_curve(pretrained, tuned, target=new, references=old, alphas=alphas, batch_size=batch_size)
    data = [
        DataId(name=labelled.name, split=split, sha256=digest(folder, split))
        for labelled, folder in zip((new, *old), folders, strict=True)
    ]
    before, after = (
        ModelId(name=name, fingerprint=bundle.fingerprint())
        for name, bundle in zip(names, (pretrained, tuned), strict=True)
    )
    return WiseFT(
        model=after,
        pretrained=before,
        data=data[0],
        references=tuple(data[1:]),
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
) -> tuple[AlphaPoint, ...]:
    """Zero-shot top-1 along the line from one model's weights to the other's.

    Args:
        pretrained: alpha 0.
        tuned: alpha 1, of the same sizes.
        target: what the model was tuned for.
        references: what it could do before, at least one set, of distinct names.
        alphas: shares of the tuned model.
        batch_size: pictures, and texts, in one forward pass.

    Raises:
        ConfigError: the models differ, an alpha is outside 0 to 1, or names come twice.
        DataError: no picture of a set can be read.
    """
    names = [data.name for data in references]
    if not names or len({target.name, *names}) <= len(names):
        raise ConfigError(
            "the new task and at least one old one must be labelled sets of distinct names. "
            f"Got {', '.join([target.name, *names])}."
        )
    if not alphas:
        raise ConfigError("alphas must name at least one share between 0 and 1.")
    points = []
    for alpha in sorted(set(alphas)):
        bundle = interpolate(pretrained, tuned, alpha)
        scores = {
            data.name: evaluate_zero_shot(bundle, data, batch_size=batch_size).numbers["top-1"]
            for data in (target, *references)
        }
        new = scores.pop(target.name)
        reference = sum(scores.values()) / len(scores)
        points.append(AlphaPoint(alpha=alpha, target=new, references=scores, reference=reference))
    return tuple(points)
