import math

import pytest
import torch
from torch.nn.functional import normalize

from diptych.errors import DataError, ShapeError
from diptych.measures.pooling import average_frames, lexicon_correct, pool_scores


def test_names_of_a_class_become_one_column():
    scores = torch.tensor([[0.1, 0.9, 0.4, 0.7], [0.2, 0.0, math.nan, 0.3]])
    class_of = [0, 1, 0, -1]  # the last stands for nothing
    assert pool_scores(scores, class_of)[0].tolist() == pytest.approx([0.4, 0.9])
    assert pool_scores(scores, class_of, how="mean")[0].tolist() == pytest.approx([0.25, 0.9])
    assert pool_scores(scores, class_of)[1].isnan().tolist() == [True, False]


def test_a_super_class_takes_its_best_sub_class():
    # Dogs 0 to 2, cats 3 and 4: the best single class is a cat, and so is the best super-class; the mean says dog.
    scores = torch.tensor([[0.5, 0.5, 0.5, 0.6, 0.0]])
    assert pool_scores(scores, [0, 0, 0, 1, 1]).argmax().item() == 1
    assert pool_scores(scores, [0, 0, 0, 1, 1], how="mean").argmax().item() == 0


def test_each_frame_of_a_video_weighs_the_same():
    frames = torch.tensor([[10.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    videos = average_frames(frames, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(videos, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))


def test_averaged_frames_rank_classes_as_averaged_cosines_do():
    torch.manual_seed(0)
    frames, words = normalize(torch.randn(12, 8), dim=1), normalize(torch.randn(5, 8), dim=1)
    video_of = torch.arange(12) % 3
    by_frame = torch.stack([(frames[video_of == video] @ words.T).mean(dim=0) for video in range(3)])
    found = average_frames(frames, video_of) @ words.T
    assert found.argsort(dim=1).tolist() == by_frame.argsort(dim=1).tolist()


def test_a_picture_is_read_among_its_own_words():
    words = torch.eye(4)
    pictures = torch.tensor([[0.5, 0.9, 0.0, 0.0], [0.5, 0.9, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    targets = torch.tensor([0, 0, 0])
    lexicons = [[0, 1, 2], [2, 0, 3], [1, 0, 2]]  # with the better word; without it; with one that ties
    assert lexicon_correct(pictures, words, targets, lexicons).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: pool_scores(torch.zeros(2, 3), [0, 1]), ShapeError, r"\[2, 3\] must have a column .* \[2\]"),
        (lambda: pool_scores(torch.zeros(2, 3), [0, 2, 2]), DataError, "Without: 1"),
        (lambda: pool_scores(torch.zeros(2, 2), [-1, -1]), DataError, "Without: all of them"),
        (lambda: average_frames(torch.zeros(2, 3), torch.zeros(3)), ShapeError, r"\[2, 3\] and video_of \[3\]"),
        (lambda: average_frames(torch.ones(2, 3), torch.tensor([0, 2])), DataError, "must have a frame"),
        (lambda: average_frames(torch.ones(0, 3), torch.zeros(0).long()), DataError, "must have a frame"),
        (
            lambda: lexicon_correct(torch.ones(1, 3), torch.ones(2, 3), torch.tensor([1]), [[0]]),
            DataError,
            "picture 0 has it 0 times",
        ),
        (
            lambda: lexicon_correct(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([1]), [[0]]),
            ShapeError,
            "1 lexicons",
        ),
    ],
)
def test_misfits_are_named(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
