"""What fine-tuning costs on tasks that the model could do before: scores beside those of the start."""

from collections.abc import Mapping, Sequence

CHANGE = "_change"  # behind the name of a metric: now less before


def with_changes(metrics: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Metrics, and behind each how far it went since the start: "set/top1" and "set/top1_change".

    Args:
        metrics: of this evaluation.
        before: of the model that the run started from; nothing for a run from scratch, which has no changes.
    """
    changes = {f"{name}{CHANGE}": value - before[name] for name, value in metrics.items() if name in before}
    return {**metrics, **changes}


def forgotten(
    metrics: Mapping[str, float], before: Mapping[str, float], *, old_tasks: Sequence[str], limit: float
) -> str:
    """One sentence on the old task that lost the most, if it lost more than the limit; else nothing.

    Args:
        metrics: of an evaluation.
        before: of the model that the run started from.
        old_tasks: names of metrics, higher is better.
        limit: loss that is borne, in the metric's own unit; 0: any.
    """
    losses = {name: before[name] - metrics[name] for name in old_tasks if name in before and name in metrics}
    worst = max(losses, key=lambda name: losses[name], default=None)
    if not limit or worst is None or losses[worst] <= limit:
        return ""
    return (
        f"{worst} may fall by {limit:.3g} at most (train.max_forgetting), and fell from {before[worst]:.3f} to "
        f"{metrics[worst]:.3f}. Start over with a lower train.learning_rate or with train.layer_decay, mix the two "
        "models (diptych models average), or raise the limit to go on."
    )
