"""The demo's page: a model that has just been trained is measured on drawings in a style that it has never seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diptych.classify import class_weights
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.prompts import PLAIN
from diptych.eval.zero_shot import LabelledFeatures, ZeroShotScores, encode_labelled, score_zero_shot
from diptych.pages.page import Headline, LinePlot, Prediction, ReportPage
from diptych.pages.showcase import Showcase, free_labels, showcase
from diptych.runtime import hardware
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.train.bottleneck import bottleneck
from diptych.train.laps import time_shares
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import TrainResult
from diptych.version import __version__
from diptych.weights.bundle import Bundle
from diptych.where import Locator

# Sentences to search with; the first four are class names, so a match is known.
QUERIES = ("red apple", "sailboat", "crying face", "flag: japan", "something to eat", "wild animal", "it is raining")
LABELS = (
    "an animal",
    "something to eat",
    "a vehicle",
    "a face",
    "a flag",
    "a plant",
    "a sport",
    "a building",
    "a tool",
)
_PICTURES_IN_WORDS = 8


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo came to."""

    scored: ZeroShotScores
    page: ReportPage
    results: Mapping[str, Any]  # the number with its conditions, for JSON


def demo_report(
    result: TrainResult, recipe: TrainRecipe, lines: Sequence[Mapping[str, Any]], *, date: str, planned_steps: int
) -> DemoReport:
    """Measure a model on the embedded set that no recipe trains on, and lay out what it does there.

    Args:
        result: of the run.
        recipe: of the run.
        lines: of its log.
        date: of today, as the results say it.
        planned_steps: of the demo on a machine that is fast enough for all of them.
    """
    bundle, data = result.bundle, read_labelled(data_path(HELD_OUT))
    templates = data.templates or PLAIN
    encoded = encode_labelled(bundle, data)
    weights = torch.from_numpy(class_weights(bundle, data.classnames, templates))
    scored = score_zero_shot(
        encoded.image_features, encoded.targets, weights, templates=templates, skipped=encoded.skipped, seed=recipe.seed
    )
    machine = hardware()
    results = scored.to_dict() | {
        "data": HELD_OUT,
        "train_seconds": result.counts["train_seconds"],
        "pairs_seen": result.counts["pairs"],
        "steps": recipe.train.steps,
        "planned_steps": planned_steps,
        "bottleneck": bottleneck(time_shares(result.counts["time"]), recipe, cores=int(machine["cores"])),
        "seed": recipe.seed,
        "hardware": machine,
        "date": date,
        "model": bundle.fingerprint(),
        "diptych": __version__,
    }
    parts, described = _pictures(result, data, encoded, class_features=weights, seed=recipe.seed)
    page = ReportPage(
        title="Two panels that meet",
        summary=(
            f"A small CLIP, trained from scratch in {_minutes(results)} minutes on drawings with captions, names "
            f"{scored.top1:.0%} of {scored.images:,} pictures right, in an art style it has never seen, out of "
            f"{scored.classes:,} names."
        ),
        headline=_headline(scored, results),
        conditions=_conditions(scored, results, recipe),
        curves=_curves(lines, scored, metric=f"{data.name}/top1"),
        right=parts.right,
        wrong=parts.wrong,
        confusions=parts.confusions,
        retrievals=parts.retrievals,
        classified=described,
        credits="Drawings: openly licensed icon sets; authors and licences in diptych_pictograms, CREDITS.md.",
    )
    return DemoReport(scored=scored, page=page, results=results)


def _pictures(
    result: TrainResult, data: LabelledImages, encoded: LabelledFeatures, *, class_features: Tensor, seed: int
) -> tuple[Showcase, list[Prediction]]:
    """Examples of what was right and wrong, and some pictures in words that are no class names."""
    bundle = result.bundle
    image_features = encoded.image_features.numpy()
    of_classes, of_labels = (
        torch.from_numpy(bundle.probabilities(bundle.logits_per_image(image_features, text_features)))
        for text_features in (class_features.numpy(), bundle.encode_texts(LABELS))
    )
    parts = showcase(
        data,
        encoded,
        of_classes,
        queries=QUERIES,
        query_features=torch.from_numpy(bundle.encode_texts(QUERIES)),
        why=_why(bundle) if bundle.model.config.image.has_grid else None,
        seed=seed,
    )
    apart = max(1, len(encoded.kept) // _PICTURES_IN_WORDS)
    return parts, free_labels(data, encoded, of_labels, LABELS, rows=range(0, len(encoded.kept), apart))


def _why(bundle: Bundle) -> Callable[[str, Image.Image], Image.Image]:
    """A picture under the map of a query."""
    locators = {query: Locator(bundle, [query]) for query in QUERIES}
    return lambda query, picture: locators[query](picture).overlay()


def _headline(scored: ZeroShotScores, results: Mapping[str, Any]) -> list[Headline]:
    interval, pairs = scored.interval, results["pairs_seen"]
    return [
        (
            "top-1",
            f"{scored.top1:.1%}",
            f"95% interval {interval.low:.1%} to {interval.high:.1%}; chance {1 / scored.classes:.2%}",
        ),
        ("top-5", f"{scored.top5:.1%}", f"of {scored.classes:,} names"),
        ("pairs seen", f"{pairs:,}", f"{pairs / results['train_seconds']:,.0f} a second"),
        ("training", f"{_minutes(results)} min", f"{results['hardware']['cores']} cores, no GPU"),
    ]


def _minutes(results: Mapping[str, Any]) -> str:
    return f"{results['train_seconds'] / 60:.1f}"


def _conditions(scored: ZeroShotScores, results: Mapping[str, Any], recipe: TrainRecipe) -> dict[str, str]:
    machine = results["hardware"]
    return {
        "measured": "zero-shot accuracy: class names alone, through " + ", ".join(scored.templates),
        "on": f"Twemoji, {scored.images:,} pictures, one a class; no picture of it nor a near copy is in training",
        "trained on": recipe.about_data,
        **_shortened(results),
        "seed": str(recipe.seed),
        "hardware": ", ".join(
            [machine["cpu"], f"{machine['cores']} cores", *([machine["gpu"]] if "gpu" in machine else [])]
        ),
        "versions": f"diptych {__version__}, torch {machine['torch']}, Python {machine['python']}",
        "date": results["date"],
        "model": results["model"],
    }


def _shortened(results: Mapping[str, Any]) -> dict[str, str]:
    steps, planned = results["steps"], results["planned_steps"]
    return {"steps": f"{steps:,} of {planned:,}, as this machine was slow"} if steps < planned else {}


def _curves(lines: Sequence[Mapping[str, Any]], scored: ZeroShotScores, *, metric: str) -> list[LinePlot]:
    found = [
        LinePlot(title="Training loss", points=_points(lines, "loss"), unit="nats"),
        LinePlot(title="Zero-shot top-1", points=_points(lines, metric), is_share=True, chance=1 / scored.classes),
    ]
    return [plot for plot in found if plot.points]


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if key in line]
