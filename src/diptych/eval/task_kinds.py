"""How each kind of task is scored from features that are there: pure functions of these and of the model's words.

Sources: CLIP, arXiv:2103.00020, tables 9 and 13 to 17; the modules that hold the measures. Letters: N, C, D, F frames,
Q choices.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diptych.errors import DataError
from diptych.eval.outcomes import zero_shot_outcomes
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.task_result import Scoring, TaskResult
from diptych.eval.tasks import names_of
from diptych.eval.zero_shot import LabelledFeatures, score_zero_shot, with_targets
from diptych.measures import metrics
from diptych.measures.geolocation import great_circle_km, share_within
from diptych.measures.metrics import Interval, bootstrap_interval, bootstrap_of
from diptych.measures.pooling import average_frames, lexicon_correct
from diptych.measures.rare_actions import mean_weighted_precision
from diptych.measures.retrieval import retrieval as rank
from diptych.measures.robustness import mean_of_pm0_and_pm10, pm_k_accuracy
from diptych.sets.captioned import CaptionedImages
from diptych.sets.choices import ChoiceImages
from diptych.sets.clips import AnchoredFrames, Clips, RareActions
from diptych.sets.geotagged import PlacedImages
from diptych.sets.labelled import LabelledImages
from diptych.sets.lexicons import WordImages
from diptych.sets.multilabel import MultilabelImages

THRESHOLDS = (1, 25, 200, 750, 2500)  # km, of IM2GPS
_FEW = 300  # resamples of what takes long
_SCORES_AT_ONCE = 1 << 24  # 64 MiB of them


def classification(scoring: Scoring, pictures: LabelledImages, encoded: PictureFeatures) -> TaskResult:
    """One class a picture, by the metric of the task."""
    return _one_class_each(scoring, pictures, encoded, with_targets(encoded, pictures), pictures.classnames)


def video(scoring: Scoring, pictures: Clips, encoded: PictureFeatures) -> TaskResult:
    """One class a clip: the features of its frames are averaged."""
    clip_of = torch.tensor(pictures.clip_of[list(encoded.kept)])
    clips, row = clip_of.unique(return_inverse=True)  # clips without a frame that can be read are left out
    labelled = LabelledFeatures(
        average_frames(encoded.image_features.float(), row),
        torch.tensor(pictures.targets)[clips],
        tuple(clips.tolist()),
        encoded.skipped,
    )
    folds = pictures.folds[clips.numpy()] if scoring.task.metric == "mean of 3 splits" else None
    return _one_class_each(scoring, pictures, encoded, labelled, pictures.classnames, folds)


def _one_class_each(
    scoring: Scoring,
    pictures: LabelledImages | Clips,
    encoded: PictureFeatures,
    labelled: LabelledFeatures,
    labels: Sequence[str],
    folds: np.ndarray | None = None,
) -> TaskResult:
    names = names_of(scoring.task, labels)
    weights = scoring.class_weights(names)
    scores = score_zero_shot(labelled.image_features, labelled.targets, weights, seed=scoring.seed)
    outcomes = zero_shot_outcomes(scoring.encoder, labelled, weights)
    others = {"top-1": scores.top1, "mean per class": scores.mean_per_class}
    others |= {"top-5": scores.top5} if scores.top5 is not None else {}

    def cosines() -> Tensor:  # [N, C]; large, and few metrics ask for it
        return (labelled.image_features.to(weights) @ weights.T).cpu()

    value, interval = _measured(scoring, cosines, labelled.targets, outcomes.correct, folds, scores.interval)
    return scoring.result(
        pictures,
        encoded,
        value=value,
        interval=interval,
        n=scores.images,
        others=others,
        classnames=tuple(names_of_class[0] for names_of_class in names),
        correct=outcomes.correct,
        outcomes=outcomes,
    )


def _measured(
    scoring: Scoring,
    cosines: Callable[[], Tensor],
    targets: Tensor,
    correct: Tensor,
    folds: np.ndarray | None,
    of_accuracy: Interval,
) -> tuple[float, Interval]:
    """The number of one of the metrics that sets with one class each are scored by."""
    seed = scoring.seed

    def resampled(measure: Callable[[np.ndarray], float]) -> tuple[float, Interval]:
        everything = np.arange(len(correct))
        return measure(everything), bootstrap_of(measure, len(correct), seed=seed, samples=_FEW)

    match scoring.task.metric:
        case "mean per class":
            return resampled(lambda rows: metrics.mean_per_class(correct[rows], targets[rows]))
        case "mean of top-1 and top-5":
            each = (correct.double() + metrics.top_k_correct(cosines(), targets, 5)) / 2
            return each.mean().item(), bootstrap_interval(each, seed=seed)
        case "ROC AUC":
            of_classes = cosines()
            if of_classes.shape[1] != 2:
                raise DataError(f"{scoring.task.name} must have two classes for an AUC. It has {of_classes.shape[1]}.")
            margin = of_classes[:, 1] - of_classes[:, 0]
            return resampled(lambda rows: metrics.roc_auc(margin[rows], targets[rows]))
        case "mean of 3 splits" if folds is not None:
            return resampled(lambda rows: _mean_over_folds(correct.numpy()[rows], folds[rows]))
        case _:
            # The ten folds of STL-10 are of its training pictures: zero-shot has the same number on each.
            return correct.double().mean().item(), of_accuracy


def _mean_over_folds(correct: np.ndarray, folds: np.ndarray) -> float:
    if not folds.any(axis=0).all():
        raise DataError("Each split must have a clip.")
    return float(np.mean([correct[fold].mean() for fold in folds.T]))


def multilabel(scoring: Scoring, pictures: MultilabelImages, encoded: PictureFeatures) -> TaskResult:
    """Mean average precision over classes; pictures too difficult for a class have no say in it."""
    names = names_of(scoring.task, pictures.classnames)
    weights = scoring.class_weights(names)
    kept = list(encoded.kept)
    scores = (encoded.image_features.to(weights) @ weights.T).cpu()
    targets, counted = torch.tensor(pictures.targets[kept]), torch.tensor(pictures.counted[kept])

    def precision(rows: np.ndarray) -> float:
        return metrics.average_precision_11_point(scores[rows], targets[rows], counted=counted[rows])

    return scoring.result(
        pictures,
        encoded,
        value=precision(np.arange(len(scores))),
        interval=bootstrap_of(precision, len(scores), seed=scoring.seed, samples=_FEW),
        n=len(scores),
        others={"mAP over all positives": metrics.average_precision(scores, targets, counted=counted)},
        classnames=tuple(names_of_class[0] for names_of_class in names),
    )


def anchors(scoring: Scoring, pictures: AnchoredFrames, encoded: PictureFeatures) -> TaskResult:
    """Anchors of which the frames near are right as well: the mean of pm-0 and pm-10."""
    names = names_of(scoring.task, pictures.classnames)
    weights = scoring.class_weights(names)
    kept = np.array(encoded.kept)
    anchor, offset = pictures.anchor[kept], torch.tensor(pictures.offset[kept])
    targets = torch.tensor(pictures.targets[kept])
    correct = metrics.top_k_correct((encoded.image_features.to(weights) @ weights.T).cpu(), targets, 1)
    whole = np.isin(anchor, anchor[offset.numpy() == 0])  # an anchor whose own frame cannot be read is left out
    if not whole.any():
        raise DataError(f"{pictures.name} must have an anchor whose own frame can be read. It has none.")
    number = torch.tensor(np.unique(anchor[whole], return_inverse=True)[1])
    offset, correct = offset[torch.tensor(whole)], correct[torch.tensor(whole)]
    count = int(number.max()) + 1

    def near(k: int) -> Tensor:
        right = torch.ones(count, dtype=torch.bool)
        right[number[~correct & (offset.abs() <= k)]] = False
        return right

    each = (near(0).double() + near(10).double()) / 2
    return scoring.result(
        pictures,
        encoded,
        value=mean_of_pm0_and_pm10(correct, number, offset),
        interval=bootstrap_interval(each, seed=scoring.seed),
        n=count,
        others={"pm-0": pm_k_accuracy(correct, number, offset, 0), "pm-10": pm_k_accuracy(correct, number, offset, 10)},
        classnames=tuple(names_of_class[0] for names_of_class in names),
        correct=near(10),
    )


def rare_actions(scoring: Scoring, pictures: RareActions, encoded: PictureFeatures) -> TaskResult:
    """Segments ranked for each action, those of one film sharing one vote."""
    clip_of = torch.tensor(pictures.clip_of[list(encoded.kept)])
    clips, row = clip_of.unique(return_inverse=True)
    features = average_frames(encoded.image_features.float(), row)
    weights = scoring.class_weights([(f"{verb} {noun}",) for verb, noun in pictures.actions])
    scores = (features.to(weights) @ weights.T).cpu().numpy()
    kept = clips.numpy()
    arguments = (pictures.targets[kept], pictures.judged[kept], pictures.film[kept])
    return scoring.result(
        pictures,
        encoded,
        value=mean_weighted_precision(scores, *arguments, pictures.actions),
        interval=None,
        n=len(kept),
        classnames=tuple(f"{verb} {noun}" for verb, noun in pictures.actions),
    )


def retrieval(scoring: Scoring, pictures: CaptionedImages, encoded: PictureFeatures) -> TaskResult:
    """Captions to their picture, and back."""
    captions = [(row, caption) for row, index in enumerate(encoded.kept) for caption in pictures.captions[index]]
    texts = scoring.texts([caption for _, caption in captions])
    owners = torch.tensor([row for row, _ in captions])
    found = rank(encoded.image_features.to(texts), texts, owners, seed=scoring.seed)
    ways = {"image to text": found.image_to_text, "text to image": found.text_to_image}
    hits = found.text_to_image.ranks <= 1
    return scoring.result(
        pictures,
        encoded,
        value=hits.double().mean().item(),
        interval=bootstrap_interval(hits, seed=scoring.seed, group=owners),
        n=len(hits),
        shortened=scoring.too_long([caption for _, caption in captions]),
        others={f"{way} recall@{k}": share for way, one in ways.items() for k, share in one.recall.items()},
        correct=hits,
    )


def ocr(scoring: Scoring, pictures: WordImages, encoded: PictureFeatures) -> TaskResult:
    """Each picture's word among those of its own lexicon."""
    lexicons = [pictures.lexicons[index] for index in encoded.kept]
    words = {word: number for number, word in enumerate(dict.fromkeys(word for one in lexicons for word in one))}
    features = scoring.texts(list(words))
    correct = lexicon_correct(
        encoded.image_features.to(features),
        features,
        torch.tensor([words[pictures.words[index]] for index in encoded.kept]),
        [[words[word] for word in one] for one in lexicons],
    )
    return _shares(scoring, pictures, encoded, correct, {})


def geolocation(scoring: Scoring, pictures: PlacedImages, encoded: PictureFeatures) -> TaskResult:
    """The place of the nearest picture whose place is known; no word is looked at."""
    kept = np.array(encoded.kept)
    is_query = kept < pictures.queries
    if is_query.all() or not is_query.any():
        raise DataError(f"{pictures.name} must have pictures to be found and pictures with a place that can be read.")
    features, places = encoded.image_features.float().cpu(), pictures.places[kept]
    queries, known = features[torch.tensor(is_query)], features[torch.tensor(~is_query)]
    at_once = max(1, _SCORES_AT_ONCE // len(known))
    nearest = torch.cat([(rows @ known.T).argmax(dim=1) for rows in queries.split(at_once)]).numpy()
    distances = great_circle_km(places[is_query], places[~is_query][nearest])
    shares = {f"within {limit} km": share_within(distances, limit) for limit in THRESHOLDS}
    limit = int(scoring.task.metric.split()[1])
    return _shares(scoring, pictures, encoded, torch.tensor(distances <= limit), shares)


def compositional(scoring: Scoring, pictures: ChoiceImages, encoded: PictureFeatures) -> TaskResult:
    """Whether the right caption scores higher than the wrong one; a tie counts against us."""
    row_of = {index: row for row, index in enumerate(encoded.kept)}
    choices = [number for number, image in enumerate(pictures.image_of.tolist()) if image in row_of]
    rows = [row_of[int(pictures.image_of[number])] for number in choices]
    sides = [[side[number] for number in choices] for side in (pictures.right, pictures.wrong)]
    right, wrong = map(scoring.texts, sides)
    features = encoded.image_features.to(right)[rows]  # [Q, D]
    correct = ((features * right).sum(dim=1) > (features * wrong).sum(dim=1)).cpu()
    kinds = np.array([pictures.kinds[number] for number in choices])
    each = {str(kind): correct[kinds == kind].double().mean().item() for kind in sorted(set(kinds.tolist()))}
    others = each if len(each) > 1 else {}
    return _shares(scoring, pictures, encoded, correct, others, shortened=sum(map(scoring.too_long, sides)))


def _shares(
    scoring: Scoring,
    pictures: WordImages | PlacedImages | ChoiceImages,
    encoded: PictureFeatures,
    correct: Tensor,
    others: dict[str, float],
    shortened: int = 0,
) -> TaskResult:
    return scoring.result(
        pictures,
        encoded,
        value=correct.double().mean().item(),
        interval=bootstrap_interval(correct, seed=scoring.seed),
        n=len(correct),
        shortened=shortened,
        others=others,
        correct=correct,
    )
