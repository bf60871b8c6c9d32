"""`diptych evaluate prompts`: the prompt workbench."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, print_table
from diptych.cli.options import Precision, read_templates
from diptych.data.prompts import PLAIN, TEMPLATES, check_templates
from diptych.errors import DataError
from diptych.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from diptych.eval.prompt_search import TemplateScores

_SHOWN = 10  # rows of a table


def prompts(
    *,
    data: Path,
    split: str = "test",
    choose_split: str | None = None,
    model: str | None = None,
    templates: list[str] | None = None,
    templates_file: Path | None = None,
    most: PositiveInt = 7,
    collision: float = 0.97,
    out: Path | None = None,
    cache: Path | None = None,
    precision: Precision = "float32",
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Score prompt templates one by one, choose the best few, and show what each helps or hurts.

    Templates are scored and chosen on one part of the pictures, and what was chosen is measured on another.

    Parameters
    ----------
    data
        A folder of labelled pictures, as for `diptych evaluate zero-shot`.
    split
        The subfolder that the final numbers are measured on.
    choose_split
        The subfolder that templates are chosen on. By default half of each class of `--split`, which the final numbers
        then leave out.
    model
        A name from `diptych models`, or a bundle's folder. By default the model that ships with diptych.
    templates
        A prompt template with {} for the class name, or the name of a published set. May be given several times. By
        default those of the data, else the 80 of ImageNet.
    templates_file
        A text file with one prompt template a line.
    most
        Choose at most so many.
    collision
        Name two classes when the cosine of their texts is at least this.
    out
        A JSON file for the numbers of all templates.
    cache
        A folder for features, which other commands and runs use again.
    precision
        What the model computes in: float32, bfloat16, or auto, the faster of the two on this machine.
    seed
        Of the halves and the intervals.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    chosen = read_templates(templates, templates_file)

    from diptych.eval import prompt_search
    from diptych.eval.conditions import conditions
    from diptych.eval.features import ModelFeatures
    from diptych.eval.zero_shot import score_zero_shot, with_targets
    from diptych.sets.digest import digest
    from diptych.sets.open import read_labelled
    from diptych.weights.registry import DEFAULT_MODEL, load

    labelled = read_labelled(data, split=split)
    candidates = check_templates(chosen or labelled.templates or TEMPLATES["imagenet"])
    candidates = tuple(dict.fromkeys(candidates))
    other = read_labelled(data, split=choose_split) if choose_split else None
    if other and other.classnames != labelled.classnames:
        raise DataError(f"{split} and {choose_split} of {data} must have the same classes. They have not.")
    model_features = ModelFeatures(
        load(model), cache=cache, precision=precision, batch_size=batch_size, on_note=complain
    )
    sha256 = digest(data, split) if cache or out else ""
    features = model_features.template_features(labelled.classnames, candidates)
    bare = model_features.template_features(labelled.classnames, PLAIN)
    encoded = with_targets(model_features.pictures(labelled, sha256), labelled)
    if other:
        of_other = digest(data, other.split) if cache else ""
        to_choose = with_targets(model_features.pictures(other, of_other), other)
        choose_on = (to_choose.image_features, to_choose.targets)
        measure_on = (encoded.image_features, encoded.targets)
    else:
        choose_on, measure_on = (
            (encoded.image_features[rows], encoded.targets[rows])
            for rows in prompt_search.halves(encoded.targets, seed=seed)
        )
    scores = prompt_search.score_templates(features, *choose_on)
    steps = prompt_search.choose_templates(features, *choose_on, most=most)
    best = [step.template for step in steps]
    choices = {
        "class name alone": (bare, [0]),
        f"all {len(candidates)} templates": (features, range(len(candidates))),
        f"the {len(best)} chosen": (features, best),
    }
    measured = {
        name: score_zero_shot(*measure_on, prompt_search.weights_of(some, rows), seed=seed)
        for name, (some, rows) in choices.items()
    }
    collisions = prompt_search.find_collisions(
        labelled.classnames, prompt_search.weights_of(features, range(len(candidates))), cosine=collision
    )

    order = scores.top1.argsort(descending=True, stable=True).tolist()
    _print_templates(candidates, scores, order, labelled.classnames)
    low, median, high = scores.spread
    print(
        f"\n{len(candidates)} templates on {len(choose_on[1]):,} pictures: top-1 {low:.2%} to {high:.2%}, median "
        f"{median:.2%}; {scores.disagreement:.1%} of pictures change their class with the template.\n"
    )
    print_table(
        [[str(place), candidates[step.template], f"{step.top1:.2%}"] for place, step in enumerate(steps, 1)],
        header=["chosen", "template", "top-1 with all before it"],
        numbers=[0, 2],
    )
    print()
    print_table(
        [
            [name, f"{one.top1:.2%}", f"{one.interval.low:.2%} to {one.interval.high:.2%}", f"{one.images:,}"]
            for name, one in measured.items()
        ],
        header=["on other pictures", "top-1", "95% interval", "n"],
        numbers=[1, 2, 3],
    )
    if collisions:
        print()
        print_table(
            [
                [labelled.classnames[pair.first], labelled.classnames[pair.second], f"{pair.cosine:.3f}"]
                for pair in collisions[:_SHOWN]
            ],
            header=["class", "hard to tell from", "cosine"],
            numbers=[2],
        )
    if out:
        values = {
            "choose_split": choose_split,
            "templates": [
                {
                    "template": candidates[row],
                    "top1": scores.top1[row].item(),
                    "effect_by_class": _effect(scores.effect(row)),
                }
                for row in order
            ],
            "chosen": [{"template": candidates[step.template], "top1": step.top1} for step in steps],
            "measured": {name: one.to_dict() for name, one in measured.items()},
            "disagreement": scores.disagreement,
            "classnames": list(labelled.classnames),
            "collisions": [
                [labelled.classnames[pair.first], labelled.classnames[pair.second], pair.cosine] for pair in collisions
            ],
        }
        facts = conditions(
            "prompts",
            model_features,
            model=model or DEFAULT_MODEL,
            data=labelled.name,
            split=split,
            sha256=sha256,
            seed=seed,
        )
        write_json(out, facts | values)


def _print_templates(
    candidates: tuple[str, ...], scores: "TemplateScores", order: list[int], classnames: tuple[str, ...]
) -> None:
    """The best and the worst, with the class that each helps and hurts most."""
    shown = order if len(order) <= 2 * _SHOWN else [*order[:_SHOWN], *order[-_SHOWN:]]
    rows = []
    for row in shown:
        effect = scores.effect(row).nan_to_num(0)
        helped, hurt = int(effect.argmax()), int(effect.argmin())
        rows.append(
            [
                candidates[row],
                f"{scores.top1[row]:.2%}",
                f"{classnames[helped]} {100 * effect[helped]:+.0f}" if effect[helped] > 0 else "-",
                f"{classnames[hurt]} {100 * effect[hurt]:+.0f}" if effect[hurt] < 0 else "-",
            ]
        )
    print_table(rows, header=["template", "top-1", "helps most", "hurts most"], numbers=[1])


def _effect(values: "Tensor") -> list[float | None]:
    return [None if value != value else round(value, 6) for value in values.tolist()]  # NaN: no picture
