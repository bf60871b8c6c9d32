"""`diptych evaluate probe`: linear probe and few-shot curve."""

from dataclasses import asdict
from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.conditions import conditions
from diptych.cli.console import complain, print_table
from diptych.cli.options import read_templates
from diptych.errors import DataError
from diptych.files import write_json

_HELD_OUT_SHARE = 0.2  # of the training pictures, where there is no validation split


def probe(
    *,
    data: Path,
    train_split: str = "train",
    validation_split: str | None = None,
    split: str = "test",
    shots: list[PositiveInt] | None = None,
    repeats: PositiveInt = 10,
    model: str | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Fit a linear classifier on the model's frozen features, and tell how many labels the class names are worth.

    Logistic regression on features before the projection, its strength chosen on validation pictures (CLIP, section
    3.2 and appendix A.3).

    Parameters
    ----------
    data
        A folder of labelled pictures with splits, as for `diptych evaluate zero-shot`.
    train_split
        The subfolder to fit on.
    validation_split
        The subfolder to choose the strength on. By default a fifth of each class of the training split.
    split
        The subfolder to measure on.
    shots
        Measure also with only so many pictures a class to fit on. May be given several times: a few-shot curve.
    repeats
        Draws for each number of shots.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    templates
        A prompt template for the zero-shot score beside it, or the name of a published set. By default those of the
        data, else the class name as it is.
    templates_file
        A text file with one prompt template a line.
    out
        A JSON file for the numbers and their conditions.
    seed
        Of the validation pictures, the shots and the intervals.
    batch_size
        Pictures in one forward pass.
    """
    prompts = read_templates(templates, templates_file)

    from diptych.data.labelled import read_labelled
    from diptych.eval.few_shot import few_shot_curve, probe_learner, shots_to_match
    from diptych.eval.linear_probe import hold_out, train_linear_probe, trunk_examples
    from diptych.eval.metrics import bootstrap_interval, mean_per_class, top_k_correct
    from diptych.eval.zero_shot import evaluate_zero_shot
    from diptych.weights.registry import load

    names = [train_split, split, *([validation_split] if validation_split else [])]
    if len(set(names)) < len(names):
        raise DataError(f"The splits of a probe must differ. Got {', '.join(names)}.")
    sets = {name: read_labelled(data, split=name) for name in names}
    if len({some.classnames for some in sets.values()}) > 1:
        raise DataError(f"{', '.join(names)} of {data} must have the same classes. They have not.")
    bundle = load(model)
    found = {name: trunk_examples(bundle, some, batch_size=batch_size) for name, some in sets.items()}
    train, test = found[train_split][0], found[split][0]
    if validation_split:
        validation = found[validation_split][0]
    else:
        train, validation = hold_out(train, share=_HELD_OUT_SHARE, seed=seed)
    fitted, chosen = train_linear_probe(train, validation)
    if not fitted.converged:
        complain("the probe stopped before its optimum: its last digits are not to be trusted.")
    correct = top_k_correct(fitted.scores(test.features), test.targets, 1)
    top1, interval = correct.double().mean().item(), bootstrap_interval(correct, seed=seed)
    zero_shot = evaluate_zero_shot(bundle, sets[split], templates=prompts, batch_size=batch_size, seed=seed)
    curve = few_shot_curve(
        probe_learner(validation), train, test, seed=seed, shots=sorted(set(shots or ())), repeats=repeats
    )
    rows = [
        ["zero-shot", zero_shot.top1, zero_shot.interval],
        *([f"{point.shots}-shot", point.mean, point.interval] for point in curve),
        ["linear probe", top1, interval],
    ]
    print_table(
        [[name, f"{share:.2%}", f"{range_.low:.2%} to {range_.high:.2%}"] for name, share, range_ in rows],
        header=[sets[split].name, "top-1", "95% interval"],
        numbers=[1, 2],
    )
    a_class = (len(train.targets) + len(validation.targets)) / len(sets[split].classnames)
    points = [(float(point.shots), point.mean) for point in curve if point.shots < a_class]
    worth = shots_to_match([*points, (a_class, top1)], zero_shot.top1) if points else None
    if worth is not None:
        print(f"\nIn labelled pictures a class, the class names are worth {_number(worth, points[0][0], a_class)}.")
    if out:
        values = {
            "templates": list(zero_shot.templates),
            "zero_shot": {"top1": zero_shot.top1, "interval": asdict(zero_shot.interval)},
            "probe": {
                "top1": top1,
                "interval": asdict(interval),
                "mean_per_class": mean_per_class(correct, test.targets),
                "l2": fitted.l2,
                "loss": fitted.loss,
                "converged": fitted.converged,
                "tried": {f"{l2:.6g}": score for l2, score in chosen.tried.items()},
            },
            "few_shot": [asdict(point) for point in curve],
            "zero_shot_is_worth": worth if worth != float("inf") else None,
            "pictures": {
                "train": len(train.targets),
                "validation": len(validation.targets),
                "test": len(test.targets),
            },
            "skipped": {name: dict(skipped) for name, (_, skipped) in found.items()},
            "train_data": {"split": train_split, "validation": validation_split or f"{_HELD_OUT_SHARE} of each class"},
        }
        write_json(out, conditions("linear-probe", bundle, model, data, split, seed) | values)


def _number(worth: float, fewest: float, most: float) -> str:
    if worth == 0:
        return f"fewer than {fewest:g}"
    return f"more than {most:g}" if worth == float("inf") else f"about {worth:.1f}"
