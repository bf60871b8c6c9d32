"""`diptych classify`: pictures and labels in, probabilities out."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cyclopts.types import PositiveInt

from diptych.cli.console import complain, one_line, print_table
from diptych.cli.options import BY_MEASURE, MANY, MEGAPIXELS, EngineOptions, find_pictures, read_templates
from diptych.data.prompts import PLAIN, check_labels, read_lines
from diptych.errors import ConfigError, DataError, ImageError
from diptych.files import expanded, shown
from diptych.weights.packaged import DEFAULT_MODEL, check_model_name, packaged_models

if TYPE_CHECKING:
    from diptych.classify import ZeroShotClassifier
    from diptych.data.images import ImageSource
    from diptych.probe import Probe
    from diptych.weights.dual_encoder import DualEncoder

Answer: TypeAlias = list[tuple[str, float]] | ImageError  # labels and their probabilities, or why there are none

_BAR = 20  # columns of a probability of 1
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def classify(
    *pictures: str,
    labels: list[str] | None = None,
    labels_file: Path | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    probe: Path | None = None,
    model: str | None = None,
    top: PositiveInt = 5,
    engines: EngineOptions = BY_MEASURE,
    batch_size: PositiveInt = 64,
    max_pixels: PositiveInt = MEGAPIXELS,
    json_: bool = False,
) -> None:
    """Say which of some labels fits each picture best. No training is needed: a label is any words.

    The probabilities are a softmax over the labels given, so they add up to 100 % whatever the picture shows, and one
    label alone is always 100 %. Add a label for what else could be there. A SigLIP model judges each label by itself:
    its probabilities need not add up to 100 %, and all of them may be near 0.

    Parameters
    ----------
    pictures
        Files, folders with their subfolders, or patterns such as "photos/*.jpg"; a lone - reads one picture from
        standard input.
    labels
        One label, e.g. --labels "a cat" --labels "a dog": each has its own --labels.
    labels_file
        A text file with one label a line.
    templates
        A prompt template with {} for the label, e.g. "a photo of a {}.", or the name of a published set, e.g. imagenet.
        May be given several times; each label is then their mean. Without one a label stands as it is.
    templates_file
        A text file with one prompt template a line.
    probe
        Classes that `diptych evaluate probe --save` learned from labelled pictures, instead of labels.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych, or that of the
        probe where it ships.
    top
        Labels shown for each picture.
    batch_size
        Pictures in one forward pass.
    max_pixels
        Millions of pixels that are decoded of one picture at most; a JPEG with more is decoded at a part of its size.
    json_
        Print JSON.
    """
    check_model_name(model)
    if probe and (labels or labels_file or templates or templates_file):
        raise ConfigError("--probe has labels of its own, and no templates. Leave --labels and --templates out.")
    names = () if probe else _read_labels(labels, labels_file)
    prompts = read_templates(templates, templates_file) or (() if probe else PLAIN)
    sources = _read_pictures(pictures)
    learned = _read_probe(probe) if probe else None
    model = _model_of(learned, probe) if learned and probe and model is None else model
    bundle = engines.load(model, max_pixels, many=len(sources) >= MANY)
    if learned:
        learned.check_model(bundle.fingerprint())
    classifier = learned or _by_names(bundle, names, prompts)
    unread = getattr(classifier, "unread", ())
    answered: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for path, answer in _classified(bundle, classifier, sources, batch_size):
        if isinstance(answer, ImageError):
            skipped.append({"path": shown(path), "cause": answer.cause, "message": shown(str(answer))})
            if len(sources) > 1:
                complain(f"skipped: {answer}")
            continue
        best = sorted(answer, key=lambda guess: -guess[1])[:top]
        labelled = [{"label": name, "probability": share} for name, share in best]
        answered.append({"path": shown(path), "labels": labelled})
        if not json_:
            _print_answer(path, best, is_first=len(answered) == 1)
    if json_:
        result = {"model": model or DEFAULT_MODEL, "templates": prompts, "images": answered, "skipped": skipped}
        result["unread"] = [asdict(text) for text in unread]
        if probe:
            result["probe"] = shown(probe)
        print(json.dumps(result, indent=2))
    if skipped and not answered:
        count = len(sources)
        raise DataError(skipped[0]["message"] if count == 1 else f"none of {count:,} pictures could be read.")
    if skipped:
        complain(f"{len(skipped):,} of {len(sources):,} pictures could not be read.")


def _by_names(bundle: "DualEncoder", names: Sequence[str], prompts: Sequence[str]) -> "ZeroShotClassifier":
    from diptych.classify import ZeroShotClassifier

    if len(names) == 1 and bundle.head.kind == "softmax":
        complain(f"{names[0]} is the only label, so it gets 100 % whatever a picture shows. Add one for all else.")
    classifier = ZeroShotClassifier(bundle, names, prompts)
    for text in classifier.unread:
        complain(str(text))
    return classifier


def _read_probe(path: Path) -> "Probe":
    from diptych.probe import Probe

    return Probe.load(expanded(path))


def _model_of(probe: "Probe", path: Path) -> str:
    """The model that a probe names, where it ships: a file from elsewhere does not say what is fetched or opened."""
    if probe.model in packaged_models():
        return probe.model
    raise ConfigError(
        f"{path} was fitted to a model that does not ship with diptych: {probe.model or probe.fingerprint[:12]}. Say "
        "with --model where it is."
    )


def _read_labels(labels: Sequence[str] | None, file: Path | None) -> tuple[str, ...]:
    chosen = [*(labels or ()), *(read_lines(file) if file else ())]
    if not chosen:
        raise ConfigError('there must be labels to choose from. Add e.g. --labels "a cat", or --labels-file FILE.')
    return check_labels(chosen)


def _read_pictures(pictures: Sequence[str]) -> dict[str, "ImageSource"]:
    if not pictures:
        raise ConfigError("there must be a picture to classify. Name a file, a folder, a pattern, or - for stdin.")
    sources: dict[str, ImageSource] = {}
    if "-" in pictures:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError("- reads a picture from standard input, and nothing is piped in. Name a file instead.")
        sources["-"] = sys.stdin.buffer
    if paths := [name for name in pictures if name != "-"]:
        hint = "If it is meant as a label, put --labels before it."
        sources |= {str(path): path for path in find_pictures(paths, hint=hint)}
    return sources


def _classified(
    bundle: "DualEncoder",
    classifier: "ZeroShotClassifier | Probe",
    sources: dict[str, "ImageSource"],
    batch_size: int,
) -> Iterator[tuple[str, Answer]]:
    import numpy as np

    from diptych.data.ahead import batched, decoded_ahead, or_error

    with decoded_ahead(or_error(bundle.preprocess.pixels), sources.values(), batch_size) as pictures:
        for batch in batched(zip(sources, pictures, strict=True), batch_size):
            good = [pixels for _, pixels in batch if not isinstance(pixels, ImageError)]
            rows = iter(classifier.probabilities(bundle.encode_pixels(np.stack(good))).tolist() if good else ())
            for path, pixels in batch:
                fault = pixels if isinstance(pixels, ImageError) else None
                yield path, fault or list(zip(classifier.labels, next(rows), strict=True))


def _print_answer(path: str, best: Sequence[tuple[str, float]], *, is_first: bool) -> None:
    print(f"{'' if is_first else chr(10)}{one_line(path)}")
    on_terminal = sys.stdout.isatty()
    rows = [(f"{share:.1%}", label, *([_bar(share)] if on_terminal else [])) for label, share in best]
    print_table(rows, numbers=[0])


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * _BAR * 8), 8)
    return "█" * whole + _EIGHTHS[rest].strip()
