"""`diptych evaluate retrieval`: captioned pictures in, recall both ways out."""

from pathlib import Path
from typing import Any

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import Precision
from diptych.files import write_json

_WAYS = {"image_to_text": "picture to texts", "text_to_image": "text to pictures"}


def retrieval(
    *,
    data: Path,
    split: str = "test",
    model: str | None = None,
    template: str = "{}",
    out: Path | None = None,
    cache: Path | None = None,
    precision: Precision = "float32",
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Measure how often a picture finds one of its captions among all, and a caption its picture (CLIP, table 13).

    A tie counts against the model. The intervals are 95 % bootstraps over pictures, each with all its captions.

    Parameters
    ----------
    data
        A WebDataset evaluation folder of pictures with captions.
    split
        Its subfolder.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    template
        A prompt template with {} for the caption, e.g. "a photo of {}". By default the caption alone.
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
    from diptych.data.prompts import check_templates
    from diptych.eval.conditions import conditions
    from diptych.eval.features import ModelFeatures
    from diptych.eval.measure import measure_retrieval
    from diptych.sets.captioned import read_retrieval
    from diptych.sets.digest import digest
    from diptych.weights.registry import DEFAULT_MODEL, load

    [prompt] = check_templates([template])
    captioned = read_retrieval(data, split=split)
    features = ModelFeatures(load(model), cache=cache, precision=precision, batch_size=batch_size, on_note=complain)
    sha256 = digest(data, split) if cache or out else ""
    values = measure_retrieval(features, captioned, features.pictures(captioned, sha256), template=prompt, seed=seed)
    if values["shortened"]:
        complain(f"{values['shortened']:,} of {values['texts']:,} captions are too long for the model and were cut.")
    print_retrieval(captioned.name, values)
    if out:
        facts = conditions(
            "retrieval",
            features,
            model=model or DEFAULT_MODEL,
            data=captioned.name,
            split=split,
            sha256=sha256,
            seed=seed,
        )
        write_json(out, facts | values)


def print_retrieval(name: str, values: dict[str, Any]) -> None:
    """A row for each way."""
    header = [name, *(f"recall@{k}" for k in values["image_to_text"]["recall"]), "95% interval of the first"]
    header += ["median rank", "queries", "among"]
    rows = []
    for way, title in _WAYS.items():
        found = values[way]
        interval = next(iter(found["intervals"].values()))
        rows.append(
            [
                title,
                *(f"{share:.2%}" for share in found["recall"].values()),
                f"{interval['low']:.2%} to {interval['high']:.2%}",
                f"{found['median_rank']:g}",
                f"{found['queries']:,}",
                f"{found['candidates']:,}",
            ]
        )
    print_table(rows, header=header, numbers=range(1, len(header)))
