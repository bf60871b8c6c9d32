"""The table of kinds: how a set of each kind is opened, what is measured on it, and how it is scored from features.

Scoring is pure: features that are there, and the model's words. Sources: CLIP, arXiv:2103.00020, tables 9 and 13 to
17; the modules that hold the measures. Letters: N, C, D, F frames, n rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diptych.classify import Encoder, class_weights
from diptych.data.prompts import fill
from diptych.data.tokenizer import Tokenizer
from diptych.errors import DataError
from diptych.eval.picture_features import PictureFeatures
from diptych.eval.result import DataId, Measurement, Result, Rows, interval_of, metric_of
from diptych.eval.tasks import Kind, Metric, Prompts
from diptych.eval.zero_shot import (
    LabelledFeatures,
    Temperature,
    ZeroShotScores,
    rejection_of,
    score_zero_shot,
    temperature_of,
    with_targets,
)
from diptych.measures import metrics
from diptych.measures.calibration import reliability
from diptych.measures.geolocation import great_circle_km, share_within
from diptych.measures.pooling import average_frames, lexicon_correct
from diptych.measures.retrieval import retrieval
from diptych.measures.robustness import mean_of_pm0_and_pm10, pm_k_accuracy
from diptych.sets.captioned import CaptionedImages, read_retrieval
from diptych.sets.choices import ChoiceImages, read_choices
from diptych.sets.clips import AnchoredFrames, Clips, RareActions, read_anchors, read_clips, read_rare_actions
from diptych.sets.geotagged import PlacedImages, read_places
from diptych.sets.labelled import LabelledImages
from diptych.sets.lexicons import WordImages, read_words
from diptych.sets.multilabel import MultilabelImages, read_multilabel
from diptych.sets.open import read_labelled
from diptych.sets.pictures import Pictures

THRESHOLDS = (1, 25, 200, 750, 2500)  # km, of IM2GPS
_SCORES_AT_ONCE = 1 << 24  # 64 MiB of them


class TextSide(Protocol):
    """The text side of a model, as scoring needs it; `ModelFeatures` is one, whose texts come from a cache."""

    @property
    def truncate(self) -> bool: ...  # whether class names are cut where too long

    def class_weights(self, labels: Sequence[str | Sequence[str]], templates: Sequence[str], /) -> Tensor: ...  # [C, D]

    def texts(self, texts: Sequence[str], /) -> Tensor: ...  # [N, D] float32, unit length, cut where too long

    def too_long(self, texts: Sequence[str], /) -> int: ...

    def logits_per_image(self, image_features: Tensor, text_features: Tensor, /) -> Tensor: ...  # [N, C]

    def probabilities(self, logits_per_image: Tensor, /) -> Tensor: ...  # [N, C]


class TaskEncoder(Encoder, Protocol):
    """What measuring needs of a bundle: captions of others may be too long for it."""

    def encode_texts(self, texts: Sequence[str], /, *, truncate: bool = False) -> np.ndarray: ...  # [N, D], unit length


@dataclass(frozen=True)
class _Cutting:
    """The texts of an encoder, cut where they are too long."""

    encoder: TaskEncoder

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        return self.encoder.encode_texts(texts, truncate=True)


@dataclass(frozen=True)
class EncoderWords:
    """The words of any encoder, not kept."""

    encoder: TaskEncoder
    batch_size: int = 256
    truncate: bool = False

    def class_weights(self, labels: Sequence[str | Sequence[str]], templates: Sequence[str], /) -> Tensor:
        encoder = _Cutting(self.encoder) if self.truncate else self.encoder
        return torch.from_numpy(class_weights(encoder, labels, templates, batch_size=self.batch_size))

    def texts(self, texts: Sequence[str], /) -> Tensor:
        batches = (texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size))
        return torch.cat([torch.as_tensor(self.encoder.encode_texts(batch, truncate=True)) for batch in batches])

    def too_long(self, texts: Sequence[str], /) -> int:
        """0 of an encoder that does not show its tokenizer."""
        tokenizer = getattr(self.encoder, "tokenizer", None)
        return tokenizer.count_too_long(texts) if isinstance(tokenizer, Tokenizer) else 0

    def logits_per_image(self, image_features: Tensor, text_features: Tensor, /) -> Tensor:
        return torch.from_numpy(self.encoder.logits_per_image(image_features.numpy(), text_features.numpy()))

    def probabilities(self, logits_per_image: Tensor, /) -> Tensor:
        return torch.from_numpy(self.encoder.probabilities(logits_per_image.numpy()))


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a set's features are scored with."""

    words: TextSide
    prompts: Prompts
    metric: Metric
    sureness: bool = False  # whether to look for a temperature, and for what rejection does
    seed: int

    def class_weights(self) -> Tensor:
        """[C, D] float32, unit length."""
        return self.words.class_weights(self.prompts.classnames, self.prompts.templates)

    def shortened_names(self) -> int:
        """How many sentences of classes were cut; none where they would have been refused."""
        return self.words.too_long(self.prompts.sentences) if self.words.truncate else 0

    def filled(self, texts: Sequence[str]) -> list[str]:
        """Captions or words through the one template there is.

        Raises:
            DataError: there are several templates.
        """
        if len(self.prompts.templates) > 1:
            raise DataError(f"captions and words take one prompt template. Got {len(self.prompts.templates)}.")
        return [text for one in texts for text in fill(self.prompts.templates, one)]

    def logits(self, image_features: Tensor, weights: Tensor) -> Tensor:
        """[N, D] and [C, D] to [N, C]."""
        return self.words.logits_per_image(image_features.to(weights), weights)

    def chances(self, image_features: Tensor, weights: Tensor) -> Tensor:
        """[N, D] and [C, D] to probabilities [N, C]."""
        return self.words.probabilities(self.logits(image_features, weights))


def _classification(scoring: Scoring, pictures: LabelledImages, encoded: PictureFeatures) -> Result:
    """One class a picture, by the metric of the task."""
    keys = tuple(pictures.keys[index] for index in encoded.kept)
    return _one_class_each("classification", scoring, pictures, encoded, with_targets(encoded, pictures), keys)


def _video(scoring: Scoring, pictures: Clips, encoded: PictureFeatures) -> Result:
    """One class a clip: the features of its frames are averaged."""
    clips, features = _averaged(pictures, encoded)
    targets = torch.tensor(pictures.targets)[clips]
    labelled = LabelledFeatures(features, targets, tuple(clips.tolist()), encoded.skipped)
    keys = tuple(pictures.clips[clip] for clip in clips)
    folds = torch.tensor(pictures.folds[clips.numpy()]) if scoring.metric == "mean of 3 splits" else None
    return _one_class_each("video", scoring, pictures, encoded, labelled, keys, folds)


def _averaged(pictures: Clips | RareActions, encoded: PictureFeatures) -> tuple[Tensor, Tensor]:
    """The clips of which a frame can be read, [N], and the means of their frames, [N, D]."""
    clips, row = torch.tensor(pictures.clip_of[list(encoded.kept)]).unique(return_inverse=True)
    return clips, average_frames(encoded.image_features.float(), row)


def _one_class_each(
    kind: Kind,
    scoring: Scoring,
    pictures: Pictures,
    encoded: PictureFeatures,
    labelled: LabelledFeatures,
    keys: tuple[str, ...],
    folds: Tensor | None = None,
) -> Result:
    weights = scoring.class_weights()
    scores = score_zero_shot(
        labelled.image_features, labelled.targets, weights, probabilities=scoring.chances, seed=scoring.seed
    )
    assert scores.confidences is not None
    rows = Rows(
        keys=keys,
        correct=scores.correct,
        targets=scores.targets,
        predictions=scores.predictions,
        confidences=scores.confidences,
        credit=(
            (scores.correct.double() + scores.correct5) / 2 if scoring.metric == "mean of top-1 and top-5" else None
        ),
        folds=folds,
        scores=(
            auc_margin((labelled.image_features.to(weights) @ weights.T).cpu(), pictures.name)
            if scoring.metric == "ROC AUC"
            else None
        ),
    )
    return _result(
        kind,
        scoring,
        pictures,
        encoded,
        rows,
        numbers={"top-1": scores.top1, "mean per class": scores.mean_per_class}
        | ({"top-5": scores.top5} if scores.top5 is not None else {})
        | ({"top-1 by argmax": _by_argmax(scores)} if scoring.prompts.has_shared_names else {}),
        reliability=reliability(scores.confidences, scores.correct),
        temperature=_temperature(scoring, labelled, weights, scores) if scoring.sureness else None,
        rejection=(rejection_of(scoring.chances, labelled, weights, seed=scoring.seed) if scoring.sureness else None),
    )


def _by_argmax(scores: ZeroShotScores) -> float:
    """As others count: of classes that tie the first is taken."""
    return (scores.predictions == scores.targets).double().mean().item()


def _temperature(
    scoring: Scoring, labelled: LabelledFeatures, weights: Tensor, scores: ZeroShotScores
) -> Temperature | None:
    assert scores.confidences is not None
    return temperature_of(scoring.logits, labelled, weights, scores.confidences, scores.correct, seed=scoring.seed)


def auc_margin(scores: Tensor, name: str) -> Tensor:
    """[N, 2] to [N, 1]: how far the second class is ahead.

    Raises:
        DataError: there are not two classes.
    """
    if scores.shape[1] != 2:
        raise DataError(f"{name} must have two classes for an AUC. It has {scores.shape[1]}.")
    return scores[:, 1:] - scores[:, :1]


def _multilabel(scoring: Scoring, pictures: MultilabelImages, encoded: PictureFeatures) -> Result:
    """Mean average precision over classes; pictures too difficult for a class have no say in it."""
    kept = list(encoded.kept)
    weights = scoring.class_weights()
    rows = Rows(
        keys=tuple(pictures.keys[index] for index in kept),
        scores=(encoded.image_features.to(weights) @ weights.T).cpu(),
        shown=torch.tensor(pictures.targets[kept]),
        counted=torch.tensor(pictures.counted[kept]),
    )
    assert rows.scores is not None
    assert rows.shown is not None
    over_all = metrics.average_precision(rows.scores, rows.shown, counted=rows.counted)
    return _result("multilabel", scoring, pictures, encoded, rows, numbers={"mAP over all positives": over_all})


def _anchors(scoring: Scoring, pictures: AnchoredFrames, encoded: PictureFeatures) -> Result:
    """Anchors of which the frames near are right as well: the mean of pm-0 and pm-10."""
    kept = np.array(encoded.kept)
    anchor, offset = pictures.anchor[kept], torch.tensor(pictures.offset[kept])
    weights, targets = scoring.class_weights(), torch.tensor(pictures.targets[kept])
    correct = metrics.top_k_correct((encoded.image_features.to(weights) @ weights.T).cpu(), targets, 1)
    whole = np.isin(anchor, anchor[offset.numpy() == 0])  # an anchor whose own frame cannot be read is left out
    if not whole.any():
        raise DataError(f"{pictures.name} must have an anchor whose own frame can be read. It has none.")
    numbers, number = np.unique(anchor[whole], return_inverse=True)
    number, offset, correct = torch.tensor(number), offset[torch.tensor(whole)], correct[torch.tensor(whole)]
    key_of = {int(pictures.anchor[index]): pictures.keys[index].rpartition("/")[0] for index in kept}

    def near(k: int) -> Tensor:
        right = torch.ones(len(numbers), dtype=torch.bool)
        right[number[~correct & (offset.abs() <= k)]] = False
        return right

    rows = Rows(
        keys=tuple(key_of[int(one)] for one in numbers),
        correct=near(10),
        credit=(near(0).double() + near(10).double()) / 2,
    )
    return _result(
        "anchors", scoring, pictures, encoded, rows,
        value=mean_of_pm0_and_pm10(correct, number, offset),
        numbers={f"pm-{k}": pm_k_accuracy(correct, number, offset, k) for k in (0, 10)},
    )  # fmt: skip


def _rare_actions(scoring: Scoring, pictures: RareActions, encoded: PictureFeatures) -> Result:
    """Segments ranked for each action, those of one film sharing one vote."""
    clips, features = _averaged(pictures, encoded)
    weights, kept = scoring.class_weights(), clips.numpy()
    segment_of = {int(clip): key.rpartition("/")[0] for clip, key in zip(pictures.clip_of, pictures.keys, strict=True)}
    rows = Rows(
        keys=tuple(segment_of[int(clip)] for clip in kept),
        scores=(features.to(weights) @ weights.T).cpu(),
        targets=torch.tensor(pictures.targets[kept]),
        judged=torch.tensor(pictures.judged[kept]),
        film=torch.tensor(pictures.film[kept]),
        group=torch.tensor(pictures.film[kept]),  # segments of one film are not independent
        actions=pictures.actions,
    )
    return _result("rare-actions", scoring, pictures, encoded, rows, interval=None)


def _retrieval(scoring: Scoring, pictures: CaptionedImages, encoded: PictureFeatures) -> Result:
    """Captions to their picture, and back."""
    captions = [
        (row, f"{pictures.keys[index]}#{number}", caption)
        for row, index in enumerate(encoded.kept)
        for number, caption in enumerate(pictures.captions[index])
    ]
    texts, owners = scoring.filled([caption for *_, caption in captions]), torch.tensor([row for row, *_ in captions])
    features = scoring.words.texts(texts)
    found = retrieval(encoded.image_features.to(features), features, owners, seed=scoring.seed)
    ways = {"image to text": found.image_to_text, "text to image": found.text_to_image}
    return _result(
        "retrieval", scoring, pictures, encoded,
        Rows(keys=tuple(key for _, key, _ in captions), correct=found.text_to_image.ranks <= 1, group=owners),
        measurement="retrieval",
        interval=found.text_to_image.intervals[1],
        shortened=scoring.words.too_long(texts),
        numbers={f"{way} recall@{k}": share for way, one in ways.items() for k, share in one.recall.items()},
        retrieval=found,
    )  # fmt: skip


def _ocr(scoring: Scoring, pictures: WordImages, encoded: PictureFeatures) -> Result:
    """Each picture's word among those of its own lexicon."""
    lexicons = [pictures.lexicons[index] for index in encoded.kept]
    words = {word: number for number, word in enumerate(dict.fromkeys(word for one in lexicons for word in one))}
    texts = scoring.filled(list(words))
    features = scoring.words.texts(texts)
    correct = lexicon_correct(
        encoded.image_features.to(features),
        features,
        torch.tensor([words[pictures.words[index]] for index in encoded.kept]),
        [[words[word] for word in one] for one in lexicons],
    )
    keys = tuple(pictures.keys[index] for index in encoded.kept)
    rows, shortened = Rows(keys=keys, correct=correct.cpu()), scoring.words.too_long(texts)
    return _result("ocr", scoring, pictures, encoded, rows, shortened=shortened)


def _geolocation(scoring: Scoring, pictures: PlacedImages, encoded: PictureFeatures) -> Result:
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
    limit = int(scoring.metric.split()[1])
    rows = Rows(
        keys=tuple(pictures.keys[index] for index in kept[is_query]), correct=torch.tensor(distances <= limit)
    )  # fmt: skip
    shares = {f"within {limit} km": share_within(distances, limit) for limit in THRESHOLDS}
    return _result("geolocation", scoring, pictures, encoded, rows, numbers=shares)


def _compositional(scoring: Scoring, pictures: ChoiceImages, encoded: PictureFeatures) -> Result:
    """Whether the right caption scores higher than the wrong one; a tie counts against us."""
    row_of = {index: row for row, index in enumerate(encoded.kept)}
    choices = [number for number, image in enumerate(pictures.image_of.tolist()) if image in row_of]
    pictured = [int(pictures.image_of[number]) for number in choices]
    sides = [scoring.filled([side[number] for number in choices]) for side in (pictures.right, pictures.wrong)]
    right, wrong = map(scoring.words.texts, sides)
    features = encoded.image_features.to(right)[[row_of[image] for image in pictured]]  # [Q, D]
    correct = ((features * right).sum(dim=1) > (features * wrong).sum(dim=1)).cpu()
    kinds = np.array([pictures.kinds[number] for number in choices])
    each = {str(kind): correct[kinds == kind].double().mean().item() for kind in sorted(set(kinds.tolist()))}
    keys = (
        f"{kind}/{pictures.keys[image]}#{number}" for kind, image, number in zip(kinds, pictured, choices, strict=True)
    )
    return _result(
        "compositional", scoring, pictures, encoded,
        Rows(keys=tuple(keys), correct=correct),
        numbers=each if len(each) > 1 else {},
        shortened=sum(map(scoring.words.too_long, sides)),
    )  # fmt: skip


def _result(
    kind: Kind, scoring: Scoring, pictures: Pictures, encoded: PictureFeatures, rows: Rows, **more: Any
) -> Result:
    found = {
        "measurement": "zero-shot",
        "shortened": scoring.shortened_names(),
        "value": more["value"] if "value" in more else metric_of(rows, scoring.metric),
        "interval": more["interval"] if "interval" in more else interval_of(rows, scoring.metric, seed=scoring.seed),
    }
    return Result(
        kind=kind,
        data=DataId(name=pictures.name, split=pictures.split),
        metric=scoring.metric,
        n=len(rows),
        prompts=scoring.prompts,
        skipped=dict(encoded.skipped),
        rows=rows,
        **found | more,
    )


@dataclass(frozen=True, kw_only=True)
class SetKind:
    """One row of the table of kinds."""

    pictures: type[Pictures]
    open: Callable[..., Pictures]  # (folder, split=)
    score: Callable[..., Result]  # (scoring, pictures, their features)
    metric: Metric  # of a set that is no row of the table of tasks
    measurements: tuple[Measurement, ...] = ("zero-shot",)  # the first is what `score` gives


KINDS: Mapping[Kind, SetKind] = {
    "classification": SetKind(
        pictures=LabelledImages,
        open=read_labelled,
        score=_classification,
        metric="accuracy",
        measurements=("zero-shot", "linear-probe"),
    ),
    "multilabel": SetKind(
        pictures=MultilabelImages, open=read_multilabel, score=_multilabel, metric="11-point mAP"
    ),
    "video": SetKind(pictures=Clips, open=read_clips, score=_video, metric="accuracy"),
    "anchors": SetKind(pictures=AnchoredFrames, open=read_anchors, score=_anchors, metric="mean of pm-0 and pm-10"),
    "rare-actions": SetKind(pictures=RareActions, open=read_rare_actions, score=_rare_actions, metric="mWAP"),
    "retrieval": SetKind(
        pictures=CaptionedImages,
        open=read_retrieval,
        score=_retrieval,
        metric="text-to-image recall@1",
        measurements=("retrieval",),
    ),
    "ocr": SetKind(pictures=WordImages, open=read_words, score=_ocr, metric="accuracy"),
    "geolocation": SetKind(pictures=PlacedImages, open=read_places, score=_geolocation, metric="within 25 km"),
    "compositional": SetKind(pictures=ChoiceImages, open=read_choices, score=_compositional, metric="accuracy"),
}  # fmt: skip
