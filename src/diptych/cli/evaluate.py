"""`diptych evaluate`: a model and a labelled set in, numbers with their conditions out."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App
from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.conditions import conditions
from diptych.cli.console import print_table
from diptych.cli.options import read_templates
from diptych.data.embedded import HELD_OUT, data_path
from diptych.files import write_json

if TYPE_CHECKING:
    from diptych.eval.zero_shot import ZeroShotResult

evaluate = App(name="evaluate", help="Measure a model on labelled pictures.")
evaluate.command("diptych.cli.compare:compare", name="compare")
evaluate.command("diptych.cli.probe:probe", name="probe")
evaluate.command("diptych.cli.prompts:prompts", name="prompts")
evaluate.command("diptych.cli.report:report", name="report")
evaluate.command("diptych.cli.tasks:list_tasks", name="tasks")
evaluate.command("diptych.cli.wise_ft:wise_ft", name="wise-ft")


@evaluate.command
def zero_shot(
    *,
    data: str = HELD_OUT,
    split: str = "test",
    model: str | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 256,
) -> None:
    """Measure how often the class names alone tell what a picture shows (CLIP, section 3.1).

    A tie counts against the model. The interval is a 95 % bootstrap over pictures.

    Parameters
    ----------
    data
        A folder: CLASS/picture.jpg, SPLIT/CLASS/picture.jpg, or a WebDataset evaluation folder. By default drawings of
        a style that no embedded training picture has.
    split
        Its subfolder.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    templates
        A prompt template with {} for the class name, or the name of a published set, e.g. imagenet. May be given
        several times. By default those of the data, else the class name as it is.
    templates_file
        A text file with one prompt template a line.
    out
        A JSON file for the numbers and their conditions.
    seed
        Of the bootstrap.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    prompts = read_templates(templates, templates_file)

    from diptych.data.labelled import read_labelled
    from diptych.data.prompts import PLAIN, check_templates
    from diptych.eval.calibration import reliability
    from diptych.eval.outcomes import zero_shot_outcomes
    from diptych.eval.zero_shot import class_weights, encode_labelled, score_zero_shot
    from diptych.weights.registry import load

    folder = data_path(data)
    labelled = read_labelled(folder, split=split)
    bundle = load(model)
    prompts = check_templates(prompts or labelled.templates or PLAIN)
    weights = class_weights(bundle, labelled.classnames, prompts, batch_size=batch_size)
    encoded = encode_labelled(bundle, labelled, batch_size=batch_size)
    result = score_zero_shot(
        encoded.image_features, encoded.targets, weights, templates=prompts, skipped=encoded.skipped, seed=seed
    )
    _print_result(labelled.name, result)
    if out:
        outcomes = zero_shot_outcomes(bundle, encoded, weights)
        values = result.to_dict() | {
            "reliability": reliability(outcomes.confidences, outcomes.correct).to_dict(),
            "classnames": list(labelled.classnames),
            "pictures": outcomes.to_dict(),
        }
        write_json(out, conditions("zero-shot", bundle, model, folder, split, seed) | values)


def _print_result(name: str, result: "ZeroShotResult") -> None:
    interval = result.interval
    facts = {
        "data": name,
        "top-1": f"{result.top1:.2%}",
        f"{interval.level:.0%} interval": f"{interval.low:.2%} to {interval.high:.2%}",
        "top-5": "-" if result.top5 is None else f"{result.top5:.2%}",
        "mean per class": f"{result.mean_per_class:.2%}",
        "n": f"{result.images:,}",
        "classes": f"{result.classes:,}",
        "skipped": f"{sum(result.skipped.values()):,}",
    }
    print_table([list(facts.values())], header=list(facts), numbers=range(1, len(facts)))
