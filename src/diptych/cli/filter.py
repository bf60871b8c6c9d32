"""`diptych filter`: pictures and a deny list in, those that show what it names out."""

import json
from dataclasses import asdict
from pathlib import Path

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import BY_MEASURE, MANY, MEGAPIXELS, EngineOptions, find_pictures
from diptych.data.prompts import read_lines
from diptych.errors import ConfigError, DataError, TextError
from diptych.files import expanded, shown
from diptych.weights.packaged import check_model_name


def filter_(
    *pictures: str,
    deny_list: Path,
    threshold: float | None = None,
    examples: Path | None = None,
    max_false: float = 0.01,
    model: str | None = None,
    engines: EngineOptions = BY_MEASURE,
    batch_size: PositiveInt = 64,
    max_pixels: PositiveInt = MEGAPIXELS,
    json_: bool = False,
) -> None:
    """Name the pictures that show what a deny list names; nothing is moved or removed.

    A picture's score is its highest cosine with a line of the list. Cosines differ from model to model and from concept
    to concept, so the threshold is chosen on labelled examples. A filter like this misses pictures and denies others
    wrongly: it sorts for people, it does not decide for them.

    Parameters
    ----------
    pictures
        Files, folders with their subfolders, or patterns such as "photos/*.jpg".
    deny_list
        A text file with one concept a line, e.g. "a photo of a gun".
    threshold
        The score from which a picture is denied.
    examples
        A folder with labelled examples in deny/ and keep/, on which the threshold is chosen instead.
    max_false
        Largest share of keep/ that the chosen threshold may deny.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    json_
        Print JSON.
    """
    if (threshold is None) == (examples is None):
        raise ConfigError("a filter must have either --threshold or --examples, a folder with deny/ and keep/.")
    if not pictures:
        raise ConfigError("there must be a picture to filter. Name a file, a folder or a pattern.")
    check_model_name(model)
    concepts = read_lines(deny_list)
    if not concepts:
        raise DataError(f"{deny_list} must hold a concept a line, and is empty.")
    files = find_pictures(pictures)

    from diptych.eval.deny_list import LabelledExamples, filter_pictures

    limit = LabelledExamples(folder=expanded(examples), max_false=max_false) if examples else threshold
    assert limit is not None
    bundle = engines.load(model, max_pixels, many=len(files) >= MANY)
    unread = bundle.unread(concepts)
    if len([text for text in unread if text.is_whole]) == len(concepts):
        raise TextError(str(unread[0]))
    for text in unread:
        complain(str(text))
    found = filter_pictures(bundle, files, concepts, limit, batch_size=batch_size)
    for message in found.skipped.values():
        complain(f"skipped: {message}")
    if chosen := found.chosen:
        complain(
            f"threshold {chosen.value:.4f}: of the examples it denies {chosen.caught:.1%} of {chosen.denied:,} to deny "
            f"and {chosen.false:.1%} of {chosen.kept:,} to keep."
        )
    if json_:
        rows = [{"path": shown(row.path), "score": round(row.score, 6), "concept": row.concept} for row in found.denied]
        result = {"threshold": found.threshold, "pictures": found.pictures, "denied": rows}
        print(json.dumps({**result, "unread": [asdict(text) for text in unread]}, indent=2))
        return
    if found.denied:
        print_table([(f"{row.score:.3f}", row.path, row.concept) for row in found.denied], numbers=[0])
    complain(f"{len(found.denied):,} of {found.pictures:,} pictures are denied.")
