from collections.abc import Sequence
from typing import Any

import torch

from diptych.eval.head_accuracy import head_accuracy
from diptych.sets.open import read_labelled


def test_a_part_of_the_pictures_is_scored_once_all_together_and_a_tie_counts_against(labelled_sets):
    data = read_labelled(labelled_sets / "shades")  # three classes of four; the first picture is broken
    asked: list[tuple[int, Sequence[str]]] = []

    def scorer(pictures: Sequence[Any], names: Sequence[str]) -> torch.Tensor:
        asked.append((len(pictures), names))
        scores = torch.zeros(len(pictures), len(names))
        scores[:, 1] = 1
        return scores

    numbers = head_accuracy(scorer, data, template="a {} thing", most=6)
    order = [data.classnames[target] for target in data.targets[::2].tolist()]
    readable = [name for row, name in enumerate(order) if data.keys[2 * row] != "red/0.png"]
    assert asked == [(len(readable), [f"a {name} thing" for name in data.classnames])]
    assert numbers == {"top1": readable.count(data.classnames[1]) / len(readable)}
    tied = head_accuracy(lambda pictures, names: torch.zeros(len(pictures), len(names)), data)
    assert tied == {"top1": 0.0}
