import pytest
import torch
from torch.nn.functional import normalize

from diptych.errors import DataError, ShapeError
from diptych.measures.pooling import average_frames, lexicon_correct


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
