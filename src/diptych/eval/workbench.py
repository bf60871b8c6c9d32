"""The prompt workbench on one set: every template scored, the best few chosen on one part of the pictures and measured
on another, class names that collide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from diptych.data.prompts import PLAIN, TEMPLATES
from diptych.errors import DataError
from diptych.eval.features import ModelFeatures
from diptych.eval.find_sets import EvaluationSet
from diptych.eval.measure import prompts_of
from diptych.eval.prompt_search import choose_templates, find_collisions, score_templates, template_features, weights_of
from diptych.eval.result import Conditions, DataId, ModelId
from diptych.eval.suite import Asked, OpenedSet
from diptych.eval.tasks import Prompts
from diptych.eval.zero_shot import LabelledFeatures, score_zero_shot, with_targets
from diptych.measures.linear_probe import halves
from diptych.measures.metrics import Interval
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled

PROMPTS_FORMAT = "diptych-prompts-1"


@dataclass(frozen=True, kw_only=True)
class TemplateScore:
    """One template by itself."""

    template: str
    top1: float
    effect_by_class: tuple[float | None, ...]  # what it adds to each class against all together; None: no picture


@dataclass(frozen=True, kw_only=True)
class ChosenTemplate:
    """One step of the greedy choice."""

    template: str
    top1: float  # of this and all before it together, on the pictures they were chosen on


@dataclass(frozen=True, kw_only=True)
class ChoiceScore:
    """Several templates together, on the pictures they were not chosen on."""

    top1: float
    interval: Interval
    mean_per_class: float
    n: int


@dataclass(frozen=True, kw_only=True)
class PromptSearch:
    """What the workbench found, with its conditions."""

    data: DataId
    model: ModelId
    conditions: Conditions
    prompts: Prompts  # the candidates, and the class names
    shortened: int  # sentences of these that were too long for the model and were cut
    choose_split: str | None  # None: half of each class
    chosen_on: int  # pictures
    templates: tuple[TemplateScore, ...]  # best first
    spread: tuple[float, float, float]  # lowest, median and highest top-1 of a template
    disagreement: float  # share of pictures whose predicted class differs between at least two templates
    chosen: tuple[ChosenTemplate, ...]
    measured: Mapping[str, ChoiceScore]  # by what was measured
    collisions: tuple[tuple[str, str, float], ...]  # two classes and the cosine of their texts


def search_prompts(
    load: Callable[[], ModelFeatures],
    one: EvaluationSet,
    asked: Asked,
    *,
    choose_split: str | None = None,
    most: int = 7,
    collision: float = 0.97,
) -> PromptSearch:
    """Score templates one by one and choose the best few.

    Args:
        load: gives the features of the model; called when the data is found and read.
        one: a labelled set; the final numbers are of its split.
        asked: how to measure. Without templates the candidates are those of the rule of `prompts_for`, and where that
            is the bare name alone, the 80 of ImageNet.
        choose_split: what templates are chosen on; by default half of each class, which the final numbers leave out.
        most: choose at most so many.
        collision: from which cosine on two classes are named.

    Raises:
        DataError: the two splits differ in their classes, or no class has two pictures.
        ConfigError: most is below 1.
    """
    opened = OpenedSet(load, one, asked)
    data = opened.pictures
    if not isinstance(data, LabelledImages):
        raise DataError(f"{one.folder} must be a set of labelled pictures to choose prompts. It is of kind {one.kind}.")
    prompts = _candidates(data, one, asked)
    other = read_labelled(one.folder, split=choose_split) if choose_split else None
    if other and other.classnames != data.classnames:
        raise DataError(f"{one.split} and {choose_split} of {one.folder} must have the same classes. They have not.")
    features = opened.features
    of_templates, bare = (_template_features(features, prompts, some) for some in (prompts.templates, PLAIN))
    encoded = with_targets(features.pictures(data, opened.digest(one.split)), data)
    if other:
        to_choose = with_targets(features.pictures(other, opened.digest(other.split)), other)
        choose_on, measure_on = _columns(to_choose), _columns(encoded)
    else:
        choose_on, measure_on = (
            (encoded.image_features[rows], encoded.targets[rows]) for rows in halves(encoded.targets, seed=asked.seed)
        )
    scores = score_templates(of_templates, *choose_on)
    steps = choose_templates(of_templates, *choose_on, most=most)
    everything, best = range(len(prompts.templates)), [step.template for step in steps]
    choices = {
        "class name alone": (bare, [0]),
        f"all {len(everything)} templates": (of_templates, everything),
        f"the {len(best)} chosen": (of_templates, best),
    }
    measured = {
        name: score_zero_shot(*measure_on, weights_of(some, rows), seed=asked.seed)
        for name, (some, rows) in choices.items()
    }
    return PromptSearch(
        data=opened.data_id(one.split),
        model=opened.model_id,
        conditions=opened.conditions,
        prompts=prompts,
        shortened=features.too_long(prompts.sentences) if features.truncate else 0,
        choose_split=choose_split,
        chosen_on=len(choose_on[1]),
        templates=tuple(
            TemplateScore(
                template=prompts.templates[row],
                top1=scores.top1[row].item(),
                effect_by_class=_effect(scores.effect(row)),
            )
            for row in scores.top1.argsort(descending=True, stable=True).tolist()
        ),
        spread=scores.spread,
        disagreement=scores.disagreement,
        chosen=tuple(ChosenTemplate(template=prompts.templates[step.template], top1=step.top1) for step in steps),
        measured={
            name: ChoiceScore(top1=one.top1, interval=one.interval, mean_per_class=one.mean_per_class, n=one.images)
            for name, one in measured.items()
        },
        collisions=tuple(
            (prompts.names[pair.first], prompts.names[pair.second], pair.cosine)
            for pair in find_collisions(prompts.classnames, weights_of(of_templates, everything), cosine=collision)
        ),
    )


def _template_features(features: ModelFeatures, prompts: Prompts, templates: Sequence[str]) -> Tensor:
    """[T, C, D], from the cache where they are there."""

    def encode() -> dict[str, Tensor]:
        rows = template_features(features, prompts.classnames, templates, batch_size=features.batch_size)
        return {"features": rows}

    facts = {"labels": list(prompts.classnames), "templates": list(templates)}
    return features.kept("templates", facts, encode)["features"]


def _candidates(data: LabelledImages, one: EvaluationSet, asked: Asked) -> Prompts:
    chosen = tuple(dict.fromkeys(asked.templates)) if asked.templates else None
    if not chosen and not one.task and not data.templates:
        return replace(prompts_of(data, None, TEMPLATES["imagenet"]), source="the 80 of ImageNet")
    prompts = prompts_of(data, one.task, chosen)
    return replace(prompts, templates=tuple(dict.fromkeys(prompts.templates)))


def _columns(encoded: LabelledFeatures) -> tuple[Tensor, Tensor]:
    return encoded.image_features, encoded.targets


def _effect(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if value != value else round(value, 6) for value in values.tolist())  # NaN: no picture
