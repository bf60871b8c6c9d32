"""Several features become one, frames of a video; a word is found among those of its own lexicon.

Source: CLIP, arXiv:2103.00020, tables 14 and 15. Letters: N, D, F frames, V words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.errors import DataError, ShapeError
from diptych.measures.metrics import top_k_correct


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
