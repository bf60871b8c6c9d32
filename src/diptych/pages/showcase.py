"""What a zero-shot result looks like: the pictures behind the numbers, as parts of a report."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from diptych.eval.zero_shot import LabelledFeatures
from diptych.pages.page import Confusion, Prediction, RankedPicture, Retrieval
from diptych.sets.labelled import LabelledImages


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
    probabilities: Tensor,
    *,
    queries: Sequence[str],
    query_features: Tensor,
    why: Callable[[str, Image.Image], Image.Image] | None = None,
    seed: int = 0,
    cards: int = 12,
    hits: int = 8,
) -> Showcase:
    """Draw examples from a result; they are a random sample of the right and of the wrong ones, not picked by hand.

    Args:
        data: the labelled set.
        encoded: its pictures as features.
        probabilities: [N, C], of its classes.
        queries: Q sentences to search the set with; one that is a class name has its pictures as matches, of others
            nobody knows what matches.
        query_features: [Q, D], unit length.
        why: a picture that a query has found, under the map of that query.
        seed: of the draw.
        cards: examples of each kind.
        hits: pictures a query.
    """
    guessed = probabilities.argmax(dim=1)
    correct = guessed == encoded.targets
    generator = np.random.Generator(np.random.PCG64(seed))

    def predictions(rows: Tensor) -> list[Prediction]:
        chosen = generator.permutation(rows.numpy())[:cards]
        return [_prediction(data, encoded, probabilities[row], int(row), data.classnames) for row in chosen]

    found = encoded.image_features @ query_features.T  # [N, Q]

    def best_of(column: int) -> Tensor:
        return found[:, column].topk(min(hits, len(found))).indices

    def hit(query: str, row: int, score: float) -> RankedPicture:
        picture, label = data.open(encoded.kept[row]), data.classnames[int(encoded.targets[row])]
        return RankedPicture(
            picture=picture,
            score=score,
            is_match=label == query if query in data.classnames else None,
            why=why(query, picture) if why else None,
        )

    return Showcase(
        right=predictions(correct.nonzero()[:, 0]),
        wrong=predictions((~correct).nonzero()[:, 0]),
        confusions=_confusions(data, encoded, probabilities, cards),
        retrievals=[
            (query, [hit(query, int(row), found[row, column].item()) for row in best_of(column)])
            for column, query in enumerate(queries)
        ],
    )


def _prediction(
    data: LabelledImages, encoded: LabelledFeatures, chances: Tensor, row: int, labels: Sequence[str]
) -> Prediction:
    best = chances.topk(min(3, len(labels)))
    guesses = tuple((labels[int(index)], value.item()) for value, index in zip(best.values, best.indices, strict=True))
    truth = data.classnames[int(encoded.targets[row])]
    return Prediction(picture=data.open(encoded.kept[row]), truth=truth, guesses=guesses)


def _confusions(data: LabelledImages, encoded: LabelledFeatures, probabilities: Tensor, count: int) -> list[Confusion]:
    """Pairs of classes taken for one another, the most frequent first; among equals, the surest mistake."""
    sure, guessed = probabilities.max(dim=1)
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
    probabilities: Tensor,
    labels: Sequence[str],
    *,
    rows: Sequence[int],
) -> list[Prediction]:
    """Pictures described with labels that are nobody's class names.

    Args:
        data: where the pictures are.
        encoded: the same as features.
        probabilities: [N, C], of the labels.
        labels: C of them.
        rows: of `encoded`.
    """
    return [_prediction(data, encoded, probabilities[row], row, labels) for row in rows]
