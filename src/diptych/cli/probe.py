"""`diptych evaluate probe`: linear probe and few-shot curve."""

from pathlib import Path
from typing import Any

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import LearnerName, Precision, read_templates
from diptych.errors import DataError
from diptych.files import write_json


def probe(
    *,
    data: Path,
    train_split: str = "train",
    validation_split: str | None = None,
    split: str = "test",
    shots: list[PositiveInt] | None = None,
    repeats: PositiveInt = 10,
    learners: list[LearnerName] | None = None,
    model: str | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    precision: Precision = "float32",
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
    learners
        Whose few-shot curve: probe, a linear probe; prompt-weights, the same pulled to the zero-shot classifier;
        tip-adapter, zero-shot with a cache of the shots. May be given several times. By default probe.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    templates
        A prompt template for the zero-shot score beside it, or the name of a published set. By default those of the
        data, else the class name as it is.
    templates_file
        A text file with one prompt template a line.
    out
        A JSON file for the numbers and their conditions.
    cache
        A folder for features, which other commands and runs use again.
    precision
        What the model computes in: float32, bfloat16, or auto, the faster of the two on this machine.
    seed
        Of the validation pictures, the shots and the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    prompts = read_templates(templates, templates_file)

    from diptych.data.prompts import PLAIN, check_templates
    from diptych.eval.conditions import conditions
    from diptych.eval.features import ModelFeatures
    from diptych.eval.measure import HELD_OUT_SHARE, Split, check_same_classes, measure_probe
    from diptych.sets.digest import digest
    from diptych.sets.open import read_labelled
    from diptych.weights.registry import DEFAULT_MODEL, load

    names = [train_split, split, *([validation_split] if validation_split else [])]
    if len(set(names)) < len(names):
        raise DataError(f"The splits of a probe must differ. Got {', '.join(names)}.")
    sets = {name: read_labelled(data, split=name) for name in names}
    check_same_classes(list(sets.values()))
    features = ModelFeatures(load(model), cache=cache, precision=precision, batch_size=batch_size, on_note=complain)
    sha256 = {name: digest(data, name) if cache or out else "" for name in names}
    found = {name: Split(data=some, pictures=features.pictures(some, sha256[name])) for name, some in sets.items()}
    values = measure_probe(
        features,
        found[train_split],
        found[split],
        found[validation_split] if validation_split else None,
        templates=check_templates(prompts or sets[split].templates or PLAIN),
        shots=shots or (),
        repeats=repeats,
        learners=learners or ("probe",),
        seed=seed,
    )
    if not values["probe"]["converged"]:
        complain("the probe stopped before its optimum: its last digits are not to be trusted.")
    _print_result(sets[split].name, values)
    if out:
        facts = conditions(
            "linear-probe",
            features,
            model=model or DEFAULT_MODEL,
            data=sets[split].name,
            split=split,
            sha256=sha256[split],
            seed=seed,
        )
        fitted_on = {"split": train_split, "validation": validation_split or f"{HELD_OUT_SHARE} of each class"}
        write_json(out, facts | values | {"train_data": fitted_on | {"sha256": sha256[train_split]}})


def _print_result(name: str, values: dict[str, Any]) -> None:
    curves = len({point["learner"] for point in values["few_shot"]}) > 1
    few_shot = [
        (f"{point['shots']}-shot" + (f", {point['learner']}" if curves else ""), point["mean"], point["interval"])
        for point in values["few_shot"]
    ]
    rows = [
        ("zero-shot", values["zero_shot"]["top1"], values["zero_shot"]["interval"]),
        *few_shot,
        ("linear probe", values["top1"], values["interval"]),
    ]
    print_table(
        [[title, f"{share:.2%}", f"{range_['low']:.2%} to {range_['high']:.2%}"] for title, share, range_ in rows],
        header=[name, "top-1", "95% interval"],
        numbers=[1, 2],
    )
    of_probe = [point["shots"] for point in values["few_shot"] if point["learner"] == "probe"]
    if of_probe:
        worth, most = values["zero_shot_is_worth"], values["examples"]["a_class"]
        words = _number(float("inf") if worth is None else worth, of_probe[0], most)
        print(f"\nIn labelled pictures a class, the class names are worth {words}.")


def _number(worth: float, fewest: float, most: float) -> str:
    if worth == 0:
        return f"fewer than {fewest:g}"
    return f"more than {most:g}" if worth == float("inf") else f"about {worth:.1f}"
