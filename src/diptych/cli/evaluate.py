"""`diptych evaluate`: a model and a labelled set in, numbers with their conditions out."""

from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import Precision, read_templates
from diptych.data.embedded import HELD_OUT, data_path
from diptych.files import write_json

evaluate = App(name="evaluate", help="Measure a model on labelled pictures.")
evaluate.command("diptych.cli.compare:compare", name="compare")
evaluate.command("diptych.cli.probe:probe", name="probe")
evaluate.command("diptych.cli.prompts:prompts", name="prompts")
evaluate.command("diptych.cli.report:report", name="report")
evaluate.command("diptych.cli.retrieval:retrieval", name="retrieval")
evaluate.command("diptych.cli.suite:suite", name="suite")
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
    cache: Path | None = None,
    precision: Precision = "float32",
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
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
    cache
        A folder for features, which other commands and runs use again.
    precision
        What the model computes in: float32, bfloat16, or auto, the faster of the two on this machine.
    seed
        Of the bootstrap.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    prompts = read_templates(templates, templates_file)

    from diptych.data.prompts import PLAIN, check_templates
    from diptych.eval.conditions import conditions
    from diptych.eval.features import ModelFeatures
    from diptych.eval.measure import measure_zero_shot
    from diptych.sets.digest import digest
    from diptych.sets.open import read_labelled
    from diptych.weights.registry import DEFAULT_MODEL, load

    folder = data_path(data)
    labelled = read_labelled(folder, split=split)
    features = ModelFeatures(load(model), cache=cache, precision=precision, batch_size=batch_size, on_note=complain)
    sha256 = digest(folder, split) if cache or out else ""
    values = measure_zero_shot(
        features,
        labelled,
        features.pictures(labelled, sha256),
        templates=check_templates(prompts or labelled.templates or PLAIN),
        seed=seed,
    )
    _print_result(labelled.name, values)
    if out:
        facts = conditions(
            "zero-shot",
            features,
            model=model or DEFAULT_MODEL,
            data=labelled.name,
            split=split,
            sha256=sha256,
            seed=seed,
        )
        write_json(out, facts | values)


def _print_result(name: str, values: dict[str, Any]) -> None:
    interval = values["interval"]
    facts = {
        "data": name,
        "top-1": f"{values['top1']:.2%}",
        f"{interval['level']:.0%} interval": f"{interval['low']:.2%} to {interval['high']:.2%}",
        "top-5": "-" if values["top5"] is None else f"{values['top5']:.2%}",
        "mean per class": f"{values['mean_per_class']:.2%}",
        "n": f"{values['images']:,}",
        "classes": f"{values['classes']:,}",
        "skipped": f"{sum(values['skipped'].values()):,}",
    }
    print_table([list(facts.values())], header=list(facts), numbers=range(1, len(facts)))
