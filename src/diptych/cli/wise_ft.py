"""`diptych evaluate wise-ft`: what each mean of a model and its fine-tuned self can do."""

from pathlib import Path

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, print_table
from diptych.data.embedded import data_path


def wise_ft(
    a: str,
    b: str,
    *,
    data: str,
    reference: list[str],
    split: str | None = None,
    alphas: list[float] | None = None,
    out: Path | None = None,
    device: str = "auto",
    batch_size: PositiveInt = 256,
    truncate: bool = False,
) -> None:
    """Average a model with its fine-tuned self in several shares, and measure each on the new task and the old.

    Accuracy is zero-shot top-1, with prompt templates and class names as in `diptych evaluate zero-shot`. Choose alpha
    on other pictures than those you report; without any, 0.5 is what the paper advises (WiSE-FT, arXiv:2109.01903).
    `diptych models average` then writes the model.

    Parameters
    ----------
    a
        The model before fine-tuning: a name from `diptych models`, or a bundle's folder.
    b
        The model after it.
    data
        A folder of labelled pictures: the new task.
    reference
        The same of an old task. May be given several times.
    split
        Its subfolder. By default that of the task, else test, else val.
    alphas
        A share of B, from 0 to 1. May be given several times. By default 0, 0.1, ... 1.
    out
        A JSON file for the numbers.
    device
        auto, the GPU where there is one; cpu; or a name that torch knows: cuda, cuda:1, mps.
    batch_size
        Pictures, and texts, in one forward pass.
    truncate
        Cut class names that are too long for the model, with their template, instead of refusing them.
    """
    from diptych.eval.result_file import write_record
    from diptych.eval.wise_ft import ALPHAS, WISE_FT_FORMAT, measure_wise_ft, read_curve_sets
    from diptych.weights.registry import load_in_torch

    folders = [data_path(name) for name in reference]
    sets = read_curve_sets(data_path(data), folders, split=split, alphas=alphas or ALPHAS)
    found = measure_wise_ft(
        load_in_torch(a, device=device),
        load_in_torch(b, device=device),
        sets,
        names=(a, b),
        batch_size=batch_size,
        truncate=truncate,
    )
    for one, prompts in zip(sets.data, sets.prompts, strict=True):
        if prompts.naming:
            complain(f"{one.name}: class names: {prompts.naming}.")
    names = [one.name for one in found.references]
    means = ["mean of old"] if len(names) > 1 else []
    print_table(
        [
            [
                f"{point.alpha:.2f}",
                f"{point.target:.2%}",
                *(f"{point.references[name]:.2%}" for name in names),
                *(f"{point.reference:.2%}" for _ in means),
            ]
            for point in found.points
        ],
        header=["alpha", f"{found.data.name} (new)", *(f"{name} (old)" for name in names), *means],
        numbers=range(2 + len(names) + len(means)),
    )
    if out:
        write_record(out, WISE_FT_FORMAT, found)
