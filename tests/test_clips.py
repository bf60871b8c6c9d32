import numpy as np
import pytest

from diptych.errors import DataError
from diptych.sets.clips import read_anchors, read_clips, read_rare_actions
from toys import png


def draw(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png("red"))


def test_frames_belong_to_clips_and_clips_to_classes(tmp_path):
    draw(tmp_path, "jump_rope/b/1.png", "jump_rope/b/10.png", "jump_rope/b/2.png", "run/a/1.png", "run/c/1.png")
    clips = read_clips(tmp_path)
    assert clips.classnames == ("jump rope", "run")
    assert clips.clips == ("jump_rope/b", "run/a", "run/c")
    assert clips.keys[:3] == ("jump_rope/b/1.png", "jump_rope/b/2.png", "jump_rope/b/10.png")
    assert (clips.clip_of.tolist(), clips.targets.tolist()) == ([0, 0, 0, 1, 2], [0, 1, 1])
    assert clips.folds.tolist() == [[True]] * 3


def test_the_middle_frame_is_one_a_clip(tmp_path):
    draw(tmp_path, *(f"test/run/a/{n}.png" for n in range(5)), *(f"test/run/b/{n}.png" for n in range(4)))
    clips = read_clips(tmp_path, frames="middle")
    assert clips.keys == ("run/a/2.png", "run/b/2.png")
    with pytest.raises(DataError, match=r"no split 'train'"):
        read_clips(tmp_path, split="train")


def test_lists_of_ucf101_choose_clips_and_tell_their_fold(tmp_path):
    draw(tmp_path, *(f"Run/v_{letter}/1.png" for letter in "abcd"))
    (tmp_path / "testlist01.txt").write_text("Run/v_a.avi\nRun/v_b.avi\n")
    (tmp_path / "testlist02.txt").write_text("Run/v_d.avi\n")
    clips = read_clips(tmp_path)
    assert clips.clips == ("Run/v_a", "Run/v_b", "Run/v_d")
    assert clips.folds.tolist() == [[True, False], [True, False], [False, True]]
    (tmp_path / "testlist02.txt").write_text("Run/v_e.avi\n")
    with pytest.raises(DataError, match=r"1 are absent, e.g. Run/v_e"):
        read_clips(tmp_path)


def test_frames_around_an_anchor_tell_their_distance(tmp_path):
    draw(tmp_path, "cat/a/-1.png", "cat/a/0.png", "dog/b/0.png", "dog/b/10.png")
    frames = read_anchors(tmp_path)
    assert frames.offset.tolist() == [0, -1, 0, 10]
    assert (frames.anchor.tolist(), frames.targets.tolist()) == ([0, 0, 1, 1], [0, 0, 1, 1])
    (tmp_path / "cat" / "a" / "0.png").unlink()
    with pytest.raises(DataError, match=r"must have the anchor's own frame, 0.jpg, once. It has 0"):
        read_anchors(tmp_path)
    draw(tmp_path, "cat/a/first.png")
    with pytest.raises(DataError, match=r"named by their distance.*first"):
        read_anchors(tmp_path)


def test_segments_of_rare_actions_are_those_of_the_list(tmp_path):
    head = "id,video_id,start,end,class_id,verb,noun,annotation\n"
    (tmp_path / "rareact.csv").write_text(
        head + "7,x,1,2,5,cut,laptop,1\n9,y,1,2,3,hammer,phone,4\n8,x,3,4,5,cut,laptop,0\n"
    )
    draw(tmp_path, "7/1.png", "7/2.png", "9/1.png")
    with pytest.raises(DataError, match=r"1 have none, e.g. 8/"):
        read_rare_actions(tmp_path)
    draw(tmp_path, "8/1.png")
    segments = read_rare_actions(tmp_path)
    assert segments.actions == (("hammer", "phone"), ("cut", "laptop"))
    assert segments.clip_of.tolist() == [0, 0, 1, 2]
    assert (segments.targets.tolist(), segments.judged.tolist()) == ([1, 0, 1], [1, 4, 0])
    assert np.array_equal(segments.film, [0, 1, 0])


def test_a_folder_without_frames_says_what_is_expected(tmp_path):
    for read in (read_clips, read_anchors):
        with pytest.raises(DataError, match=r"CLASS/CLIP/\*.jpg"):
            read(tmp_path)
    with pytest.raises(DataError, match=r"rareact.csv"):
        read_rare_actions(tmp_path)
