"""`diptych demo`: the main job, from raw pairs to a zero-shot table and a page."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.errors import missing_extra
from diptych.version import __version__

if TYPE_CHECKING:
    from diptych.pages.page import ReportPage
    from diptych.train.recipe import TrainRecipe
    from diptych.train.trainer import TrainResult

RECIPE = Path(__file__).parent / "demo.toml"

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
PICTURES_IN_WORDS = 8


def demo(
    *,
    out: Path = Path("runs/demo"),
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
) -> None:
    """Train a small CLIP from scratch on the embedded pairs, then name pictures of an art style it has never seen.

    Takes about ten minutes on two cores. Stopped, it goes on where it was when started again.

    Parameters
    ----------
    out
        Folder of the run: the model in bundle/, report.html, results.json, log.jsonl.
    set_
        One option of the demo's recipe, e.g. train.steps=200 for a quick look. May be given several times.
    """
    if importlib.util.find_spec("matplotlib") is None:  # now, not after ten minutes of training
        raise missing_extra("the demo's report", "eval", "Training does not: diptych train.")
    from diptych.cli.training import TrainingView, zero_shot_evaluators
    from diptych.files import write_json
    from diptych.pages.page import write_report
    from diptych.train.recipe import read_recipe
    from diptych.train.trainer import train

    recipe = read_recipe(RECIPE, set_ or ())
    with TrainingView(recipe) as view:
        result = train(recipe, out, evaluators=zero_shot_evaluators(recipe), on_progress=view)
    if not result.finished:
        print(
            f"stopped and saved at step {result.step:,} of {recipe.train.steps:,}; the same command goes on from there"
        )
        raise SystemExit(130)
    page, results = _measure(result, recipe, out)
    write_json(out / "results.json", results)
    write_report(page, out / "report.html")
    interval = results["interval"]
    print(
        f"zero-shot top-1 {results['top1']:.1%} ({interval['low']:.1%} to {interval['high']:.1%}), "
        f"top-5 {results['top5']:.1%}, over {results['classes']:,} names in an art style it has never seen; "
        f"chance {1 / results['classes']:.2%}"
    )
    for described in page.classified:
        print(f"  {described.truth}: " + ", ".join(f"{label} {share:.0%}" for label, share in described.guesses))
    print(f"report  {out / 'report.html'}\nresults {out / 'results.json'}\nmodel   {out / 'bundle'}")


def _measure(result: "TrainResult", recipe: "TrainRecipe", out: Path) -> "tuple[ReportPage, dict[str, Any]]":
    import datetime

    from diptych.classify import class_weights
    from diptych.data.embedded import HELD_OUT, data_path
    from diptych.data.prompts import PLAIN
    from diptych.eval.zero_shot import encode_labelled, score_zero_shot
    from diptych.pages.page import ReportPage
    from diptych.pages.showcase import free_labels, showcase
    from diptych.runtime import hardware
    from diptych.sets.open import read_labelled
    from diptych.train.bottleneck import bottleneck
    from diptych.train.laps import shares
    from diptych.train.log import read_log

    bundle, data = result.bundle, read_labelled(data_path(HELD_OUT))
    templates = data.templates or PLAIN
    encoded = encode_labelled(bundle, data)
    weights = class_weights(bundle, data.classnames, templates)
    scored = score_zero_shot(
        encoded.image_features, encoded.targets, weights, templates=templates, skipped=encoded.skipped, seed=recipe.seed
    )
    machine = hardware()
    results = scored.to_dict() | {
        "data": HELD_OUT,
        "train_seconds": result.counts["train_seconds"],
        "pairs_seen": result.counts["pairs"],
        "bottleneck": bottleneck(shares(result.counts["time"]), recipe, cores=int(machine["cores"])),
        "seed": recipe.seed,
        "hardware": machine,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model": bundle.fingerprint(),
        "diptych": __version__,
    }
    of_classes, of_labels = (
        bundle.probabilities(bundle.logits_per_image(encoded.image_features, text_features))
        for text_features in (weights, bundle.encode_texts(LABELS))
    )
    parts = showcase(
        data, encoded, of_classes, queries=QUERIES,
        query_features=bundle.encode_texts(QUERIES), seed=recipe.seed,
    )  # fmt: skip
    described = free_labels(
        data, encoded, of_labels, LABELS,
        rows=range(0, len(encoded.kept), max(1, len(encoded.kept) // PICTURES_IN_WORDS)),
    )  # fmt: skip
    lines = read_log(out / "log.jsonl")
    metric = f"{data.name}/top1"
    interval = scored.interval
    page = ReportPage(
        title="Two panels that meet",
        summary=(
            f"A small CLIP, trained from scratch in {result.counts['train_seconds'] / 60:.1f} minutes on drawings with "
            f"captions, names {scored.top1:.0%} of {scored.images:,} pictures right, in an art style it has never "
            f"seen, out of {scored.classes:,} names."
        ),
        headline=[
            (
                "top-1",
                f"{scored.top1:.1%}",
                f"95% interval {interval.low:.1%} to {interval.high:.1%}; chance {1 / scored.classes:.2%}",
            ),
            ("top-5", f"{scored.top5:.1%}", f"of {scored.classes:,} names"),
            (
                "pairs seen",
                f"{result.counts['pairs']:,}",
                f"{result.counts['pairs'] / result.counts['train_seconds']:,.0f} a second",
            ),
            ("training", f"{result.counts['train_seconds'] / 60:.1f} min", f"{machine['cores']} cores, no GPU"),
        ],
        conditions={
            "measured": "zero-shot accuracy: class names alone, through " + ", ".join(templates),
            "on": f"Twemoji, {scored.images:,} pictures, one a class; no picture of it nor a near copy is in training",
            "trained on": recipe.about_data,
            "seed": str(recipe.seed),
            "hardware": f"{machine['cpu']}, {machine['cores']} cores",
            "versions": f"diptych {__version__}, torch {machine['torch']}, Python {machine['python']}",
            "date": results["date"],
            "model": results["model"],
        },
        loss_curve=[(line["step"], line["loss"]) for line in lines],
        accuracy_curve=[(line["step"], line[metric]) for line in lines if metric in line],
        right=parts.right,
        wrong=parts.wrong,
        confusions=parts.confusions,
        retrievals=parts.retrievals,
        classified=described,
        credits="Drawings: openly licensed icon sets; authors and licences in diptych/data/pictograms/CREDITS.md.",
    )
    return page, results
