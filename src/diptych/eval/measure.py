"""One measurement, from pictures to a `Result`: zero-shot of any kind of set, and the linear probe.

Three steps, so that features may come from a cache: `open_task` finds the pictures, `encode_pictures` makes features of
them, `score_pictures` needs nothing but these and the model's words.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diptych.errors import ConfigError, DataError
from diptych.eval.features import ModelFeatures, TrunkFeatures
from diptych.eval.kinds import KINDS, EncoderWords, Scoring, TaskEncoder, TextSide, auc_margin
from diptych.eval.picture_features import PictureFeatures, encode_pictures
from diptych.eval.result import DataId, FewShotScore, ProbeFit, Result, Rows, interval_of, metric_of
from diptych.eval.tasks import FewShot, Kind, LearnerName, Metric, Prompts, Task, prompts_for, task_named
from diptych.eval.zero_shot import score_zero_shot
from diptych.measures.few_shot import Learner, few_shot_curve, probe_learner, shots_to_match, tip_adapter_learner
from diptych.measures.linear_probe import hold_out, train_linear_probe
from diptych.measures.logistic import Examples
from diptych.measures.metrics import Interval, mean_per_class, top_k_correct
from diptych.probe import Probe
from diptych.sets.clips import RareActions
from diptych.sets.labelled import LabelledImages
from diptych.sets.pictures import Pictures

HELD_OUT_SHARE = 0.2  # of the training pictures, where there is no validation split


def evaluate_zero_shot(
    encoder: TaskEncoder,
    pictures: Pictures,
    *,
    task: Task | None = None,
    templates: Sequence[str] | None = None,
    batch_size: int = 256,
    truncate: bool = False,
    seed: int = 0,
) -> Result:
    """Measure a model on a set that it was not trained for.

    Args:
        encoder: a bundle.
        pictures: one split of a set: labelled, captioned or of any other kind.
        task: a row of the table; by default the one of the set's name, where it is one.
        templates: prompt templates; by default by the rule of `prompts_for`.
        batch_size: texts, and pictures, in one forward pass.
        truncate: cut class names that are too long for the model, with their template, instead of refusing them.
        seed: of the intervals.

    Raises:
        DataError: no picture can be read, or a template is not valid.
        TextError: a class name is too long for the model.
    """
    encoded = encode_pictures(encoder.encode_images, pictures, batch_size=batch_size)
    words = EncoderWords(encoder, batch_size, truncate)
    return score_pictures(words, pictures, encoded, task=task, templates=templates, seed=seed)


def open_task(task: Task, folder: Path, *, split: str | None = None) -> Pictures:
    """The pictures of a task, to be encoded by `encode_pictures`; what else its kind needs comes with them.

    Raises:
        DataError: the data is not there, or not in a layout that can be read.
    """
    frames = {"frames": task.frames} if task.kind == "video" else {}
    return KINDS[task.kind].open(folder, split=split or task.split, **frames)


def score_pictures(
    words: TextSide,
    pictures: Pictures,
    encoded: PictureFeatures,
    *,
    task: Task | None = None,
    templates: Sequence[str] | None = None,
    sureness: bool = False,
    seed: int = 0,
) -> Result:
    """The set's own number from features that are there already; texts are encoded here.

    Args:
        words: the text side of a model: `ModelFeatures`, or `EncoderWords` of any encoder.
        pictures: what `open_task`, `read_labelled` or the like gave.
        encoded: their features, from `encode_pictures` or a cache.
        task: a row of the table; by default the one of the set's name, where it is one.
        templates: prompt templates; by default by the rule of `prompts_for`.
        sureness: of classes, whether to look for a temperature and to measure "none of these" as well; takes seconds.
        seed: of the intervals.

    Raises:
        DataError: a template is not valid, or the features do not do for the metric.
    """
    kind = kind_of(pictures)
    task = task or task_of(pictures.name, kind)
    prompts = prompts_of(pictures, task, templates)
    metric = task.metric if task else KINDS[kind].metric
    scoring = Scoring(words=words, prompts=prompts, metric=metric, sureness=sureness, seed=seed)
    result = KINDS[kind].score(scoring, pictures, encoded)
    return replace(result, task=task.name if task else "")


def kind_of(pictures: Pictures) -> Kind:
    """Which row of the table of kinds a set belongs to."""
    return next(kind for kind, row in KINDS.items() if isinstance(pictures, row.pictures))


def task_of(name: str, kind: Kind) -> Task | None:
    """The row of the table of tasks of a folder's name, where it is of this kind."""
    task = task_named(name)
    return task if task and task.kind == kind else None


def prompts_of(pictures: Pictures, task: Task | None, templates: Sequence[str] | None = None) -> Prompts:
    """`prompts_for` the classes that a set has."""
    if isinstance(pictures, RareActions):
        labels = [f"{verb} {noun}" for verb, noun in pictures.actions]
    else:
        labels = getattr(pictures, "classnames", ())
    own = pictures.templates if isinstance(pictures, LabelledImages) else None
    return prompts_for(task, labels, own, templates, naming=getattr(pictures, "naming", ""))


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One split of a set, read and encoded."""

    data: LabelledImages
    pictures: TrunkFeatures
    sha256: str = ""

    @property
    def id(self) -> DataId:
        return DataId(name=self.data.name, split=self.data.split, sha256=self.sha256)


def measure_probe(
    features: ModelFeatures,
    train: Split,
    test: Split,
    validation: Split | None = None,
    *,
    task: Task | None = None,
    templates: Sequence[str] | None = None,
    few_shot: FewShot = FewShot(),  # noqa: B008, frozen
    seed: int,
) -> Result:
    """A linear classifier on frozen features, and zero-shot on the same pictures beside it.

    Args:
        features: of the model.
        train: to fit on.
        test: to measure on.
        validation: to choose the strength on; by default a fifth of each class of `train`.
        task: a row of the table; by default the one of the set's name, where it is one.
        templates: of the zero-shot score, and of learners that start from it; by default by the rule of `prompts_for`.
        few_shot: curves that shall be measured as well.
        seed: of the validation pictures, the shots and the intervals.

    Raises:
        DataError: splits differ in their classes, a class has no example, or too few for the shots.
    """
    splits = [train, test, *([validation] if validation else [])]
    check_same_classes([split.data for split in splits])
    task = task or task_of(test.data.name, "classification")
    prompts = prompts_of(test.data, task, templates)
    fit_on, choose_on = _to_fit(train, validation, seed, trunk=True)
    probe, chosen = train_linear_probe(fit_on, choose_on)
    metric = probe_metric(task)
    rows = _probe_rows(probe.scores(test.pictures.examples(test.data).features), test, metric)
    assert rows.correct is not None
    assert rows.targets is not None
    top1 = rows.correct.double().mean().item()
    weights = features.class_weights(prompts.classnames, prompts.templates)
    zero_shot = score_zero_shot(test.pictures.image_features, rows.targets, weights, seed=seed)
    curve = _curves(features, train, test, validation, prompts, few_shot, seed)
    a_class = (len(fit_on.targets) + len(choose_on.targets)) / len(test.data.classnames)
    return Result(
        measurement="linear-probe",
        kind="classification",
        task=task.name if task else "",
        data=test.id,
        metric=metric,
        value=metric_of(rows, metric),
        interval=interval_of(rows, metric, seed=seed),
        n=len(rows),
        numbers={"top-1": top1, "mean per class": mean_per_class(rows.correct, rows.targets)},
        prompts=prompts,
        shortened=features.too_long(prompts.sentences) if features.truncate else 0,
        skipped=dict(test.pictures.skipped),
        rows=rows,
        probe=ProbeFit(
            train=train.id,
            validation=validation_of(validation.data.split if validation else None),
            validation_sha256=validation.sha256 if validation else "",
            train_examples=len(fit_on.targets),
            validation_examples=len(choose_on.targets),
            a_class=a_class,
            l2=probe.l2,
            loss=probe.loss,
            converged=probe.converged,
            tried=dict(chosen.tried),
            zero_shot=zero_shot.top1,
            zero_shot_interval=zero_shot.interval,
            few_shot=curve,
            worth=_worth(curve, a_class, top1, zero_shot.top1),
            skipped={split.data.split: dict(split.pictures.skipped) for split in splits},
        ),
    )


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A probe to keep, and its number on the test split."""

    probe: Probe
    metric: Metric
    value: float
    interval: Interval | None


def fit_probe_to_keep(
    features: ModelFeatures,
    train: Split,
    test: Split,
    validation: Split | None = None,
    *,
    task: Task | None = None,
    model: str = "",
    seed: int,
) -> FittedProbe:
    """A linear classifier on the features that everything else reads, after the projection and of unit length.

    Its strength is chosen by likelihood: where every strength is right about all pictures of the validation split, the
    best by accuracy would be the strongest, and its probabilities would tell classes hardly apart.

    Args:
        features: of the model.
        train: to fit on.
        test: to measure on.
        validation: to choose the strength on; by default a fifth of each class of `train`.
        task: a row of the table; by default the one of the set's name, where it is one.
        model: what the model is called.
        seed: of the validation pictures and the interval.

    Raises:
        DataError: splits differ in their classes, a class has no example, or two classes have one name.
    """
    check_same_classes([split.data for split in (train, test, *([validation] if validation else []))])
    task = task or task_of(test.data.name, "classification")
    fit_on, choose_on = _to_fit(train, validation, seed, trunk=False)
    fitted, _ = train_linear_probe(fit_on, choose_on, metric=_likelihood)
    metric = probe_metric(task)
    rows = _probe_rows(fitted.scores(test.pictures.projected_examples(test.data).features), test, metric)
    value = metric_of(rows, metric)
    about = {
        "train": asdict(train.id),
        "test": asdict(test.id),
        "examples": len(fit_on.targets) + len(choose_on.targets),
        "l2": fitted.l2,
        "converged": fitted.converged,
        "seed": seed,
        "metric": metric,
        "value": value,
    }
    probe = Probe(
        labels=_distinct(prompts_of(test.data, task).names),
        weights=fitted.weights.cpu().numpy(),
        bias=fitted.bias.cpu().numpy(),
        fingerprint=features.fingerprint,
        model=model,
        about=about,
    )
    return FittedProbe(probe=probe, metric=metric, value=value, interval=interval_of(rows, metric, seed=seed))


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Two classes of ImageNet are called crane: the second one gets its number."""
    return tuple(f"{name} ({number})" if name in names[:number] else name for number, name in enumerate(names))


def _likelihood(scores: Tensor, targets: Tensor) -> float:
    """[N, C] logits and class numbers to the mean logarithm of what the right class got."""
    return -cross_entropy(scores.double(), targets).item()


def probe_metric(task: Task | None) -> Metric:
    """What a probe is scored by. The ten folds of STL-10 are of its training pictures; a probe here is fitted once."""
    return task.metric if task and task.metric != "mean of 10 folds" else "accuracy"


def validation_of(split: str | None) -> str:
    """What a probe's strength is chosen on, in words."""
    return split or f"{HELD_OUT_SHARE} of each class"


def check_same_classes(splits: Sequence[LabelledImages]) -> None:
    """Raises DataError when splits of one set differ in their classes, as a probe needs them alike."""
    if len({split.classnames for split in splits}) > 1:
        names = ", ".join(split.split for split in splits)
        raise DataError(f"{names} of {splits[0].name} must have the same classes. They have not.")


def _probe_rows(scores: Tensor, test: Split, metric: str) -> Rows:
    """Rows of a classifier whose scores [N, C] are logits of a softmax."""
    targets = torch.tensor(test.data.targets[list(test.pictures.kept)])
    return Rows(
        keys=tuple(test.data.keys[index] for index in test.pictures.kept),
        targets=targets,
        predictions=scores.argmax(dim=1).cpu(),
        correct=top_k_correct(scores, targets, 1).cpu(),
        confidences=scores.softmax(dim=1).amax(dim=1).float().cpu(),
        scores=auc_margin(scores.cpu(), test.data.name) if metric == "ROC AUC" else None,
    )


def _curves(
    features: ModelFeatures,
    train: Split,
    test: Split,
    validation: Split | None,
    prompts: Prompts,
    asked: FewShot,
    seed: int,
) -> tuple[FewShotScore, ...]:
    found: list[FewShotScore] = []
    for name in dict.fromkeys(asked.learners) if asked.shots else ():
        points = few_shot_curve(
            _learner(name, features, train, validation, prompts, seed),
            _to_fit(train, validation, seed, trunk=name == "probe")[0],
            test.pictures.examples(test.data) if name == "probe" else test.pictures.projected_examples(test.data),
            seed=seed,
            shots=sorted(set(asked.shots)),
            repeats=asked.repeats,
        )
        found += [FewShotScore(learner=name, point=point) for point in points]
    return tuple(found)


def _to_fit(train: Split, validation: Split | None, seed: int, *, trunk: bool) -> tuple[Examples, Examples]:
    """Examples to fit on and to choose on: before the projection, or after it."""

    def examples(split: Split) -> Examples:
        return split.pictures.examples(split.data) if trunk else split.pictures.projected_examples(split.data)

    if validation:
        return examples(train), examples(validation)
    return hold_out(examples(train), share=HELD_OUT_SHARE, seed=seed)  # the same rows for both: it looks at targets


def _learner(
    name: LearnerName,
    features: ModelFeatures,
    train: Split,
    validation: Split | None,
    prompts: Prompts,
    seed: int,
) -> Learner:
    choose_on = _to_fit(train, validation, seed, trunk=name == "probe")[1]
    if name == "probe":
        return probe_learner(choose_on)
    weights, scale = features.class_weights(prompts.classnames, prompts.templates), features.bundle.logit_scale
    if name == "prompt-weights":
        return probe_learner(choose_on, prior=scale * weights)
    if name == "tip-adapter":
        return tip_adapter_learner(weights, scale, choose_on)
    raise ConfigError(f"a learner must be probe, prompt-weights or tip-adapter. Got {name!r}.")


def _worth(curve: Sequence[FewShotScore], a_class: float, full: float, zero_shot: float) -> float | None:
    """Labelled pictures a class that the class names are worth, see `shots_to_match`; None without a probe's curve, and
    where no number of pictures is enough.
    """
    points = [
        (float(one.point.shots), one.point.mean)
        for one in curve
        if one.learner == "probe" and one.point.shots < a_class
    ]
    if not points:
        return None
    worth = shots_to_match([*points, (a_class, full)], zero_shot)
    return worth if worth != float("inf") else None
