from fractions import Fraction

import numpy as np
import pytest

from diptych.data import video
from diptych.data.video import sample_frames
from diptych.errors import ImageError, MissingExtraError

SECONDS, RATE = 40, 4


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 s at 4 frames a second; the frame at second s is grey of 6 s."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for i in range(SECONDS * RATE):
            grey = np.full((48, 64, 3), 6 * (i // RATE), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_frames_are_those_of_their_seconds(film):
    frames = sample_frames(film, every=10)
    assert [frame.time for frame in frames] == pytest.approx([5, 15, 25, 35], abs=0.2)
    for frame in frames:
        assert np.array(frame.image).mean() == pytest.approx(6 * int(frame.time), abs=8)
        assert frame.image.size == (64, 48)


def test_a_long_video_is_sampled_less_densely(film):
    assert [round(frame.time) for frame in sample_frames(film, every=1, most=2)] == [10, 30]
    assert len(sample_frames(film, every=1000)) == 1


def test_what_is_no_video_is_named(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match=r"x\.mp4 cannot be read as a video"):
        sample_frames(tmp_path / "x.mp4")


def test_without_pyav_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[video\]'"):
        sample_frames(tmp_path / "x.mp4")
    assert "mp4" in video.VIDEO_ENDINGS
