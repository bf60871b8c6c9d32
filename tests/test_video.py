import datetime
import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from diptych.data import video
from diptych.data.facts import Facts
from diptych.data.profiles import hlg_to_light, pq_to_light
from diptych.data.video import read_video, sample_frames
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


COLOURS = {"R": (200, 30, 30), "G": (30, 160, 30), "B": (30, 30, 200)}


def write(path, frames, *, size=(64, 48), codec="mpeg4", cover=False, gop=1000, options=None, **stream_facts):
    """A film of (second, letter of a colour); `stream_facts` are set on the stream's encoder."""
    av = pytest.importorskip("av")
    with av.open(path, "w", **(options or {})) as container:
        if cover:
            from av.stream import Disposition

            still = container.add_stream("mjpeg", rate=1)
            still.width, still.height, still.pix_fmt = 32, 32, "yuvj420p"
            still.disposition = Disposition.attached_pic
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = (*size, "yuv420p")
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in stream_facts.items():
            setattr(stream.codec_context, name, value)
        if cover:
            picture = av.VideoFrame.from_image(Image.new("RGB", (32, 32), "yellow")).reformat(format="yuvj420p")
            picture.pts = 0
            container.mux([*still.encode(picture), *still.encode()])
        for second, colour in frames:
            frame = av.VideoFrame.from_image(Image.new("RGB", size, COLOURS[colour]))
            frame.pts, frame.time_base = round(second * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def letters(path, **options):
    means = [np.array(frame.image).mean(axis=(0, 1)) for frame in sample_frames(path, **options)]
    return "".join("RGB"[int(mean.argmax())] for mean in means)


THIRDS = [(i / 4, "RGB"[i // 40]) for i in range(120)]  # 30 s: 10 s of each colour


class NoSeeking(io.RawIOBase):
    """Where a film is written that nobody can go back in, so that its length is not in it."""

    def __init__(self, path):
        self._file = path.open("wb")

    def writable(self):
        return True

    def write(self, data):
        return self._file.write(data)

    def close(self):
        self._file.close()


def test_a_frame_is_the_one_on_screen_at_a_variable_rate(tmp_path):
    slides = [(0, "R"), (35, "B"), (39.9, "B")]
    assert letters(write(str(tmp_path / "a.mp4"), slides), every=10) == "RRRB"


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts", "avi", "mpg"])
def test_samples_are_spread_over_all_of_the_film(ending, tmp_path):
    codec = "mpeg2video" if ending in ("ts", "mpg") else "mpeg4"
    base = {"time_base": Fraction(1, 4), "framerate": 4} if ending == "avi" else {}
    frames = THIRDS if ending != "mpg" else [(i / 25, "RGB"[i // 250]) for i in range(750)]
    if ending in ("ts", "mpg"):
        base = {"time_base": Fraction(1, 25), "framerate": 25}
    path = write(str(tmp_path / f"a.{ending}"), frames, codec=codec, gop=20, **base)
    assert letters(path, every=5) == "RRGGBB"


def test_a_start_offset_moves_all_samples(tmp_path):
    for ending in ("mkv", "mp4"):
        late = [(second + 100, colour) for second, colour in THIRDS]
        frames = sample_frames(write(str(tmp_path / f"a.{ending}"), late), every=10)
        assert [frame.time for frame in frames] == pytest.approx([5, 15, 25], abs=0.3)
        assert letters(tmp_path / f"a.{ending}", every=10) == "RGB"


def test_a_length_that_no_header_tells_is_found_by_reading(tmp_path):
    write(NoSeeking(tmp_path / "a.mkv"), THIRDS, options={"format": "matroska"})
    assert letters(tmp_path / "a.mkv", every=10) == "RGB"
    write(str(tmp_path / "a.m4v"), THIRDS, options={"format": "m4v"}, framerate=4, time_base=Fraction(1, 4))
    assert set(letters(tmp_path / "a.m4v", every=5)) == set("RGB")


def test_a_film_that_was_cut_short_gives_what_is_there(tmp_path):
    write(NoSeeking(tmp_path / "a.mkv"), THIRDS, options={"format": "matroska"}, gop=10)
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) * 6 // 10])
    seen = letters(tmp_path / "b.mkv", every=5)
    assert seen.startswith("RR")
    assert "G" in seen


def test_damaged_packets_are_counted_and_passed_over(tmp_path):
    write(str(tmp_path / "a.mp4"), THIRDS, gop=10)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"mdat")
    size = int.from_bytes(data[at - 4 : at], "big")
    for i in range(at + size // 2, at + size // 2 + 200):
        data[i] = 0xAA
    (tmp_path / "a.mp4").write_bytes(data)
    film = read_video(tmp_path / "a.mp4", every=1, most=30)
    assert film.damaged > 0
    assert len(film.frames) >= 25
    assert letters(tmp_path / "a.mp4", every=10)[0] == "R"


def test_a_cover_is_no_film(tmp_path):
    path = write(str(tmp_path / "a.mp4"), THIRDS, cover=True)
    assert letters(path, every=10) == "RGB"


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = write(str(tmp_path / "a.mp4"), THIRDS[:8], sample_aspect_ratio=Fraction(3, 2))
    film = read_video(path)
    assert film.frames[0].image.size == (96, 48)
    assert (film.facts.width, film.facts.height) == (96, 48)


def test_a_film_is_turned_as_its_file_says(tmp_path):
    av = pytest.importorskip("av")
    plain = tmp_path / "a.mp4"
    with av.open(str(plain), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:, 32:] = 255  # the right half is white
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    (frame,) = sample_frames(plain)
    assert frame.image.size == (48, 64)
    shown = np.array(frame.image).astype(int)
    assert (shown[5].mean() > 200, shown[-5].mean() < 60) == (True, True)  # a quarter turn against the clock


@pytest.mark.parametrize(("transfer", "signal"), [(18, 0.5), (16, 0.37)])
def test_hdr_is_shown_as_on_a_screen_of_paper_white(transfer, signal, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = transfer, 9
        stream.codec_context.colorspace = 9
        level = round(64 + 876 * signal)
        planes = np.full((72, 64), 512, np.uint16)
        planes[:48] = level
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p10le")
            frame.pts, frame.time_base = i, Fraction(1)
            frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    light = {18: hlg_to_light, 16: pq_to_light}[transfer](np.array([signal]))[0] / 203
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.array(sample_frames(tmp_path / "a.mkv")[0].image).mean() == pytest.approx(expected, abs=3)


def test_a_film_tells_date_camera_and_place(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        apple = "com.apple.quicktime."
        container.metadata["creation_time"] = "2021-05-06T05:08:09.000000Z"
        container.metadata[f"{apple}creationdate"] = "2021-05-06T07:08:09+0200"
        container.metadata[f"{apple}make"], container.metadata[f"{apple}model"] = "Apple", "iPhone 15"
        container.metadata[f"{apple}location.ISO6709"] = "+48.8577+002.2950+035.000/"
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48)))))
        container.mux(stream.encode())
    moment = datetime.datetime(2021, 5, 6, 7, 8, 9)
    expected = Facts(width=64, height=48, taken=moment, camera="Apple iPhone 15", place=(48.8577, 2.295))
    assert read_video(path).facts == expected
