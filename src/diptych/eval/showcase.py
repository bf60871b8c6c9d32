"""What a zero-shot result looks like: the pictures behind the numbers, as parts of a report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diptych.data.labelled import LabelledImages
from diptych.eval.report import Confusion, Prediction, Retrieval
from diptych.eval.zero_shot import LabelledFeatures


@dataclass(frozen=True)
class Showcase:
    """Pictures for `ReportPage`."""

    right: list[Prediction]
    wrong: list[Prediction]
    confusions: list[Confusion]
    retrievals: list[Retrieval]


def showcase(
    data: LabelledImages,
    encoded: LabelledFeatures,
    weights: Tensor,
    *,
    logit_scale: float,
    queries: Sequence[str],
    query_features: Tensor,
    seed: int = 0,
    cards: int = 12,
    hits: int = 8,
) -> Showcase:
    """Draw examples from a result; they are a random sample of the right and of the wrong ones, not picked by hand.

    Args:
        data: the labelled set.
        encoded: its pictures as features.
        weights: [C, D], the classifier.
        logit_scale: the factor, for probabilities.
        queries: Q sentences to search the set with; one that is a class name has its pictures as matches.
        query_features: [Q, D], unit length.
        seed: of the draw.
        cards: examples of each kind.
        hits: pictures a query.
    """
    scores = logit_scale * encoded.image_features @ weights.T  # [N, C]
    guessed = scores.argmax(dim=1)
    correct = guessed == encoded.targets
    generator = np.random.Generator(np.random.PCG64(seed))

    def predictions(rows: Tensor) -> list[Prediction]:
        chosen = generator.permutation(rows.numpy())[:cards]
        return [_prediction(data, encoded, scores, int(row)) for row in chosen]

    found = encoded.image_features @ query_features.T  # [N, Q]
    return Showcase(
        right=predictions(correct.nonzero()[:, 0]),
        wrong=predictions((~correct).nonzero()[:, 0]),
        confusions=_confusions(data, encoded, scores, cards),
        retrievals=[
            (
                query,
                [
                    (
                        data.open(encoded.kept[int(row)]),
                        data.classnames[int(encoded.targets[row])] == query,
                        found[row, column].item(),
                    )
                    for row in found[:, column].topk(min(hits, len(found))).indices
                ],
            )
            for column, query in enumerate(queries)
        ],
    )


def _prediction(data: LabelledImages, encoded: LabelledFeatures, scores: Tensor, row: int) -> Prediction:
    best = scores[row].softmax(dim=0).topk(min(3, scores.shape[1]))
    guesses = tuple(
        (data.classnames[int(index)], value.item()) for value, index in zip(best.values, best.indices, strict=True)
    )
    truth = data.classnames[int(encoded.targets[row])]
    return Prediction(picture=data.open(encoded.kept[row]), truth=truth, guesses=guesses)


def _confusions(data: LabelledImages, encoded: LabelledFeatures, scores: Tensor, count: int) -> list[Confusion]:
    """Pairs of classes taken for one another, the most frequent first; among equals, the surest mistake."""
    sure = scores.softmax(dim=1).amax(dim=1)
    guessed = scores.argmax(dim=1)
    pairs: Counter[tuple[int, int]] = Counter()
    surest: dict[tuple[int, int], float] = {}
    first_of = {int(target): row for row, target in reversed(list(enumerate(encoded.targets)))}
    for row in (guessed != encoded.targets).nonzero()[:, 0].tolist():
        pair = (int(encoded.targets[row]), int(guessed[row]))
        pairs[pair] += 1
        surest[pair] = max(surest.get(pair, 0.0), sure[row].item())
    shown = sorted((pair for pair in pairs if pair[1] in first_of), key=lambda pair: (-pairs[pair], -surest[pair]))
    return [
        (
            data.classnames[truth],
            data.open(encoded.kept[first_of[truth]]),
            data.classnames[guess],
            data.open(encoded.kept[first_of[guess]]),
        )
        for truth, guess in shown[:count]
    ]


def free_labels(
    data: LabelledImages,
    encoded: LabelledFeatures,
    label_features: Tensor,
    labels: Sequence[str],
    *,
    logit_scale: float,
    rows: Sequence[int],
) -> list[Prediction]:
    """Pictures described with labels that are nobody's class names.

    Args:
        data: where the pictures are.
        encoded: the same as features.
        label_features: [C, D], unit length.
        labels: C of them.
        logit_scale: the factor.
        rows: of `encoded`.
    """
    probabilities = torch.softmax(logit_scale * encoded.image_features[list(rows)] @ label_features.T, dim=1)
    described = []
    for row, chances in zip(rows, probabilities, strict=True):
        best = chances.topk(min(3, len(labels)))
        guesses = tuple(
            (labels[int(index)], value.item()) for value, index in zip(best.values, best.indices, strict=True)
        )
        truth = data.classnames[int(encoded.targets[row])]
        described.append(Prediction(picture=data.open(encoded.kept[row]), truth=truth, guesses=guesses))
    return described
