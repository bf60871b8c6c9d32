"""Zero-shot accuracy by what scores pictures against names itself, such as a captioner, on a part of a labelled set."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from diptych.data.prompts import PLAIN, fill
from diptych.errors import ImageError
from diptych.measures.metrics import top_k_correct
from diptych.sets.labelled import LabelledImages

# Pictures. A captioner reads every name anew for each of them, and its scores hang on which are asked about together.
SCORED = 64

Scorer = Callable[[Sequence[Image.Image], Sequence[str]], Tensor]  # N pictures, C names: [N, C], higher fits better


def head_accuracy(
    scorer: Scorer, data: LabelledImages, *, template: str = PLAIN[0], most: int = SCORED
) -> dict[str, float]:
    """Share of pictures whose best name is theirs, `top1`; a tie counts against the model.

    Args:
        scorer: is given all pictures at once.
        data: of which pictures evenly over the set are taken; one that cannot be read is left out.
        template: each name is put into it.
        most: pictures at most.
    """
    count = min(most, len(data))
    pictures: list[Image.Image] = []
    targets: list[int] = []
    for row in [number * len(data) // count for number in range(count)]:
        try:
            pictures.append(data.open(row))
        except ImageError:
            continue
        targets.append(int(data.targets[row]))
    scores = scorer(pictures, [fill([template], name)[0] for name in data.classnames])
    return {"top1": top_k_correct(scores, torch.tensor(targets), 1).double().mean().item()}
