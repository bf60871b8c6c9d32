"""`diptych filter`: pictures and a deny list in, those that show what it names out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import find_pictures
from diptych.data.prompts import read_lines
from diptych.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from diptych.weights.bundle import Bundle


def filter_(
    *pictures: str,
    deny_list: Path,
    threshold: float | None = None,
    examples: Path | None = None,
    max_false: float = 0.01,
    model: str | None = None,
    batch_size: PositiveInt = 64,
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
    json_
        Print JSON.
    """
    if (threshold is None) == (examples is None):
        raise ConfigError("a filter must have either --threshold or --examples, a folder with deny/ and keep/.")
    if not pictures:
        raise ConfigError("there must be a picture to filter. Name a file, a folder or a pattern.")
    concepts = read_lines(deny_list)
    if not concepts:
        raise DataError(f"{deny_list} must hold a concept a line, and is empty.")
    files = find_pictures(pictures)

    from diptych.eval.deny_list import choose_threshold, deny_scores
    from diptych.weights.registry import load

    bundle = load(model)
    texts = bundle.encode_texts(concepts)
    if examples is not None:
        denied, kept = (
            deny_scores(_features(bundle, [str(examples / kind)], batch_size)[1], texts)[0] for kind in ("deny", "keep")
        )
        chosen = choose_threshold(denied, kept, max_false=max_false)
        threshold = chosen.value
        complain(
            f"threshold {chosen.value:.4f}: of the examples it denies {chosen.caught:.1%} of {chosen.denied:,} to deny "
            f"and {chosen.false:.1%} of {chosen.kept:,} to keep."
        )
    assert threshold is not None
    paths, features = _features(bundle, list(map(str, files)), batch_size)
    scores, which = deny_scores(features, texts)
    order = scores.argsort(descending=True).tolist()
    found = [(scores[i].item(), paths[i], concepts[int(which[i])]) for i in order if scores[i] >= threshold]
    if json_:
        rows = [{"path": path, "score": round(value, 6), "concept": concept} for value, path, concept in found]
        print(json.dumps({"threshold": threshold, "pictures": len(paths), "denied": rows}, indent=2))
        return
    if found:
        print_table([(f"{value:.3f}", path, concept) for value, path, concept in found], numbers=[0])
    complain(f"{len(found):,} of {len(paths):,} pictures are denied.")


def _features(bundle: "Bundle", pictures: list[str], batch_size: int) -> "tuple[tuple[str, ...], Tensor]":
    from diptych.embed import embed_images

    embedded = embed_images(bundle, find_pictures(pictures), batch_size=batch_size)
    for message in embedded.skipped.values():
        complain(f"skipped: {message}")
    return embedded.keys, embedded.features
