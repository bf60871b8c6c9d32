"""Several scores or features become one: names of a class, frames of a video, sub-classes, words of a lexicon.

Source: CLIP, arXiv:2103.00020, tables 14 and 15; Taori et al., arXiv:2007.00644, for the super-classes. Letters: N, C,
D, F frames, V words.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import top_k_correct


def pool_scores(scores: Tensor, class_of: Sequence[int], *, how: Literal["max", "mean"] = "max") -> Tensor:
    """Columns that stand for the same class become one.

    With `max` a class is what its best name, or best sub-class, is: what the robustness sets with super-classes use.
    `mean` weighs the names alike. CLIP's own way for several names is neither: it averages their features, as
    `class_weights` does.

    Args:
        scores: [N, columns]. A NaN makes its class NaN.
        class_of: class number of each column, from 0; -1 for a column that stands for none.
        how: largest or mean.

    Returns:
        [N, C].

    Raises:
        ShapeError: there is not one class number for each column.
        DataError: a class has no column.
    """
    groups = torch.tensor(class_of, device=scores.device)
    if scores.ndim != 2 or groups.shape != scores.shape[1:]:
        raise ShapeError(f"scores {list(scores.shape)} must have a column for each of class_of {list(groups.shape)}.")
    columns = [(groups == number).nonzero()[:, 0] for number in range(int(groups.max()) + 1)]
    empty = [number for number, members in enumerate(columns) if not len(members)]
    if empty or not columns:
        raise DataError(f"Each class must have a column. Without: {', '.join(map(str, empty)) or 'all of them'}.")
    pooled = [scores[:, members].amax(dim=1) if how == "max" else scores[:, members].mean(dim=1) for members in columns]
    return torch.stack(pooled, dim=1)


def average_frames(frame_features: Tensor, video_of: Tensor) -> Tensor:
    """One feature a video: the mean over its frames, each of unit length first and the mean again.

    Cosines with it have the order of the cosines averaged over the frames, so averaging features and averaging
    predictions before the softmax are the same.

    Args:
        frame_features: [F, D], any length but 0.
        video_of: [F], number of the video of each frame, from 0.

    Returns:
        [N, D], unit length.

    Raises:
        ShapeError: the two differ in F.
        DataError: there is no frame, or a video has none.
    """
    if frame_features.ndim != 2 or video_of.shape != frame_features.shape[:1]:
        shapes = f"frame_features {list(frame_features.shape)} and video_of {list(video_of.shape)}"
        raise ShapeError(f"{shapes} must be [F, D] and [F].")
    videos = video_of.to(frame_features.device)
    counts = torch.bincount(videos)
    if not len(counts) or counts.min() == 0:
        raise DataError("Each video must have a frame. Leave out those of which none can be read, and number the rest.")
    sums = frame_features.new_zeros(len(counts), frame_features.shape[1])
    return normalize(sums.index_add_(0, videos, normalize(frame_features, dim=1)), dim=1)


def lexicon_correct(
    image_features: Tensor, word_features: Tensor, targets: Tensor, lexicons: Sequence[Sequence[int]]
) -> Tensor:
    """Whether the true word is the best of a picture's own lexicon (IIIT5K: 50 or 1,000 candidates a picture).

    Args:
        image_features: [N, D], unit length.
        word_features: [V, D], unit length, of all words of all lexicons.
        targets: [N], the row of the true word.
        lexicons: N lists of rows of word_features, the true word among them; each row once.

    Returns:
        [N] bool. A tie counts against us.

    Raises:
        ShapeError: the arguments do not fit.
        DataError: a lexicon does not hold the true word, or holds it twice.
    """
    if not len(image_features) == len(targets) == len(lexicons) or image_features.shape[1:] != word_features.shape[1:]:
        raise ShapeError(
            f"image_features {list(image_features.shape)}, word_features {list(word_features.shape)}, targets "
            f"{list(targets.shape)} and {len(lexicons)} lexicons must be [N, D], [V, D], [N] and N."
        )
    correct = []
    for row, (features, target, lexicon) in enumerate(zip(image_features, targets.tolist(), lexicons, strict=True)):
        words = list(lexicon)
        if words.count(target) != 1:
            raise DataError(
                f"A lexicon must hold the true word once. That of picture {row} has it {words.count(target)} times."
            )
        scores = word_features[words] @ features  # [words]
        correct.append(top_k_correct(scores[None], torch.tensor([words.index(target)]), 1))
    return torch.cat(correct)
