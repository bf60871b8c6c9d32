"""`diptych evaluate retrieval`: captioned pictures in, recall both ways out."""

from pathlib import Path

from diptych.cli.console import complain, print_table
from diptych.cli.evaluate import print_prompts
from diptych.cli.options import AS_USUAL, ModelOptions


def retrieval(
    *,
    data: Path,
    split: str | None = None,
    template: str | None = None,
    out: Path | None = None,
    options: ModelOptions = AS_USUAL,
) -> None:
    """Measure how often a picture finds one of its captions among all, and a caption its picture (CLIP, table 13).

    A tie counts against the model. The intervals are 95 % bootstraps over pictures, each with all its captions.

    Parameters
    ----------
    data
        A folder of pictures with captions.
    split
        Its subfolder. By default that of the task, else test, else val.
    template
        A prompt template with {} for the caption, e.g. "a photo of {}". By default that of the table of tasks, where
        the data is one of them, else the caption alone.
    out
        A JSON file for the result with its conditions, or a folder, where it is called as in a suite.
    """
    from diptych.data.prompts import check_templates
    from diptych.eval.find_sets import one_set
    from diptych.eval.result_tables import retrieval_table
    from diptych.eval.suite import measure_one

    templates = check_templates([template]) if template is not None else None
    one = one_set(data, "retrieval", split=split)
    result = measure_one(options.features, one, "retrieval", options.asked(templates), out)
    if result.shortened:
        complain(f"{result.shortened:,} of {result.n:,} captions are too long for the model and were cut.")
    header, rows = retrieval_table([result])
    print_table(rows, header=header, numbers=range(1, len(header)))
    print_prompts(result.prompts)
