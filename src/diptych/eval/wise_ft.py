"""Between a pretrained model and its fine-tuned self: what each mean of the two can do, on the new task and the old.

Source: WiSE-FT, arXiv:2109.01903, sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diptych.errors import ConfigError
from diptych.eval.zero_shot import evaluate_zero_shot
from diptych.sets.labelled import LabelledImages
from diptych.weights.average import interpolate
from diptych.weights.bundle import Bundle

ALPHAS = tuple(number / 10 for number in range(11))


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mean of two models. Shares between 0 and 1."""

    alpha: float  # share of the fine-tuned model
    target: float  # top-1 on the new task
    references: Mapping[str, float]  # top-1 on each old task
    reference: float  # their mean


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points in the order of alpha."""

    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"points": [asdict(point) | {"references": dict(point.references)} for point in self.points]}


def wise_ft_curve(
    pretrained: Bundle,
    tuned: Bundle,
    *,
    target: LabelledImages,
    references: Sequence[LabelledImages],
    alphas: Sequence[float] = ALPHAS,
    batch_size: int = 256,
) -> Curve:
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
            data.name: evaluate_zero_shot(bundle, data, batch_size=batch_size).top1 for data in (target, *references)
        }
        new = scores.pop(target.name)
        points.append(Point(alpha=alpha, target=new, references=scores, reference=sum(scores.values()) / len(scores)))
    return Curve(points=tuple(points))
