"""`diptych evaluate`: a model and a labelled set in, numbers with their conditions out."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import AS_USUAL, BY_THE_RULE, ModelOptions, PromptOptions
from diptych.data.embedded import HELD_OUT, data_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.eval.features import ModelFeatures
    from diptych.eval.result import Result
    from diptych.eval.suite import Asked
    from diptych.eval.tasks import Prompts

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
    split: str | None = None,
    prompts: PromptOptions = BY_THE_RULE,
    out: Path | None = None,
    follow: Path | None = None,
    options: ModelOptions = AS_USUAL,
) -> None:
    """Measure what a model makes of pictures that it was not trained for, by words alone (CLIP, section 3.1).

    Of labelled pictures that is how often the class names tell what a picture shows. A data set of the table of tasks
    (`diptych evaluate tasks`) is measured as the table says: kind, metric, prompts and class names. A tie counts
    against the model. The interval is a 95 % bootstrap.

    Parameters
    ----------
    data
        A folder: CLASS/picture.jpg, SPLIT/CLASS/picture.jpg, a WebDataset evaluation folder, or a task's. By default
        drawings of a style that no embedded training picture has.
    split
        Its subfolder. By default that of the task, else test, else val.
    out
        A JSON file for the result with its conditions, or a folder, where it is called as in a suite.
    follow
        Folder of a run: each of its checkpoints is measured as it comes, into a folder of its own below OUT, until the
        run has ended. Those that are measured already are kept.
    """
    templates = prompts.read()

    from diptych.eval.find_sets import one_set
    from diptych.eval.result_file import result_at
    from diptych.eval.suite import file_name, measure_one

    one = one_set(data_path(data), "zero-shot", split=split)
    if follow:
        from diptych.cli.following import follow_run

        def measure(features: "ModelFeatures", folder: Path, asked: "Asked") -> "Iterator[Result]":
            if not result_at(folder / file_name(one, "zero-shot")):
                yield measure_one(lambda: features, one, "zero-shot", asked, folder)

        follow_run(follow, out, options, options.asked(templates), measure)
        return
    print_result(measure_one(options.features, one, "zero-shot", options.asked(templates), out))


def print_result(result: "Result") -> None:
    """The number of the set's metric with its interval, the others, and what the model was told."""
    from diptych.eval.result_tables import percent, span

    facts = {"data": result.data.title, result.metric: percent(result.value), "95% interval": span(result.interval)}
    facts |= {name: percent(value) for name, value in result.other_numbers.items()}
    facts |= {"n": f"{result.n:,}"}
    facts |= {"classes": f"{len(result.prompts.labels):,}"} if result.prompts.labels else {}
    facts |= {"skipped": f"{result.left_out:,}"}
    print_table([list(facts.values())], header=list(facts), numbers=range(1, len(facts)))
    print_prompts(result.prompts, result.shortened)


def print_prompts(prompts: "Prompts", shortened: int = 0) -> None:
    """What the model was told; what was done to names, and how many texts were cut, goes to stderr."""
    print(f"prompts: {one_line(prompts.sentence)}")
    if prompts.naming:
        complain(f"class names: {prompts.naming}.")
    if shortened:
        complain(f"texts that were too long for the model and were cut: {shortened:,}.")
