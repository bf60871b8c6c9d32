"""`diptych evaluate probe`: linear probe and few-shot curve."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.evaluate import print_prompts
from diptych.cli.options import AS_USUAL, BY_THE_RULE, ModelOptions, PromptOptions
from diptych.errors import ConfigError
from diptych.eval.tasks import LearnerName
from diptych.weights.packaged import DEFAULT_TOWERS

if TYPE_CHECKING:
    from diptych.eval.measure import FittedProbe
    from diptych.eval.result import Result


def probe(
    *,
    data: Path,
    train_split: str = "train",
    validation_split: str | None = None,
    split: str | None = None,
    shots: list[PositiveInt] | None = None,
    repeats: PositiveInt = 10,
    learners: list[LearnerName] | None = None,
    prompts: PromptOptions = BY_THE_RULE,
    out: Path | None = None,
    save: Path | None = None,
    options: ModelOptions = AS_USUAL,
) -> None:
    """Fit a linear classifier on the model's frozen features, and tell how many labels the class names are worth.

    Logistic regression on features before the projection, its strength chosen on validation pictures (CLIP, section
    3.2 and appendix A.3). Prompt templates are those of the zero-shot score beside it.

    Parameters
    ----------
    data
        A folder of labelled pictures with splits, as for `diptych evaluate zero-shot`.
    train_split
        The subfolder to fit on.
    validation_split
        The subfolder to choose the strength on. By default val, where there is one, else a fifth of each class of the
        training split.
    split
        The subfolder to measure on. By default that of the task, else test.
    shots
        Measure also with only so many pictures a class to fit on. May be given several times: a few-shot curve.
    repeats
        Draws for each number of shots.
    learners
        Whose few-shot curve: probe, a linear probe; prompt-weights, the same pulled to the zero-shot classifier;
        tip-adapter, zero-shot with a cache of the shots. May be given several times. By default probe.
    out
        A JSON file for the result with its conditions, or a folder, where it is called as in a suite.
    save
        A file for the classes, fitted to the features after the projection: `diptych classify --probe` reads it.
    """
    templates = prompts.read()
    if save and options.image_size:
        raise ConfigError("--save keeps classes for the model at its own size. Leave --image-size out.")
    if save and save.is_dir():
        raise ConfigError(f"--save must be a file, or absent, and {save} is a folder. Choose another name.")

    from diptych.eval.find_sets import one_set
    from diptych.eval.suite import OpenedSet
    from diptych.eval.tasks import FewShot

    one = one_set(
        data, "linear-probe", split=split, train_split=train_split, validation_split=validation_split
    )  # fmt: skip
    few_shot = FewShot(shots=tuple(shots or ()), repeats=repeats, learners=tuple(learners or ("probe",)))
    opened = OpenedSet(options.features, one, options.asked(templates, few_shot))
    opened.check("linear-probe")
    result = opened.measure_into("linear-probe", out)
    kept = opened.probe_to_keep(_name_to_keep(options.model)) if save else None
    _print_result(result, kept)
    if save and kept:
        kept.probe.save(save)
        print(f"\n{len(kept.probe.labels):,} classes -> {save}")


def _name_to_keep(model: str | None) -> str:
    """The name of a model that ships, the last part of a path; a file for others holds no path of this machine."""
    return Path(model).name if model and Path(model).exists() else model or DEFAULT_TOWERS


def _print_result(result: "Result", kept: "FittedProbe | None") -> None:
    from diptych.eval.result_tables import percent, span

    fit = result.probe
    assert fit
    if not fit.converged:
        complain("the probe stopped before its optimum: its last digits are not to be trusted.")
    curves = len({one.learner for one in fit.few_shot}) > 1
    rows = [
        ("zero-shot", "top-1", fit.zero_shot, fit.zero_shot_interval),
        *(
            (
                f"{one.point.shots}-shot" + (f", {one.learner}" if curves else ""),
                "top-1",
                one.point.mean,
                one.point.interval,
            )
            for one in fit.few_shot
        ),
        ("linear probe", result.metric, result.value, result.interval),
        *([("classes to keep", kept.metric, kept.value, kept.interval)] if kept else []),
    ]
    print_table(
        [[title, metric, percent(share), span(interval)] for title, metric, share, interval in rows],
        header=[result.data.title, "metric", "value", "95% interval"],
        numbers=[2, 3],
    )
    print_prompts(result.prompts, result.shortened)
    of_probe = [one.point.shots for one in fit.few_shot if one.learner == "probe"]
    if of_probe:
        words = _number(fit.worth, of_probe[0], fit.a_class)
        print(f"\nIn labelled pictures a class, the class names are worth {words}.")


def _number(worth: float | None, fewest: float, most: float) -> str:
    if worth == 0:
        return f"fewer than {fewest:g}"
    return f"more than {most:g}" if worth is None else f"about {worth:.1f}"
