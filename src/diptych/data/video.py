"""Frames of a video, one every few seconds, as pictures: those that are on screen at that time."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from diptych.data.colour import rgb_of
from diptych.data.facts import Facts, camera_of, first_date, place_of_iso_6709
from diptych.data.profiles import cicp_profile
from diptych.errors import ImageError, missing_extra

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

# Endings of videos, lower case, that are looked for in folders; what a file is, its bytes tell.
VIDEO_ENDINGS = (
    *("3g2", "3gp", "asf", "avi", "divx", "flv", "m2ts", "m2v", "m4v", "mkv", "mod", "mov", "mp4", "mpe", "mpeg"),
    *("mpg", "mts", "mxf", "ogm", "ogv", "qt", "tod", "ts", "vob", "webm", "wmv"),
)
EVERY = 10.0  # s between frames
MOST_FRAMES = 60  # of one video; a longer one is sampled less densely
_EARLIER = 10.0  # s to go back further when a seek lands behind the time that was asked for
_RATE = 25  # frames a second of a stream that tells neither times nor rate
_HIGH_DEFINITION = 576  # lines beyond which BT.709 is meant where a stream names no matrix, as players take it
_BT709 = 1  # AVColorSpace, as ITU-T H.273
_UNSPECIFIED = 2


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    image: Image.Image  # RGB, upright
    time: float  # s from the start


@dataclass(frozen=True, eq=False, kw_only=True)
class Video:
    """What was read of a video."""

    frames: list[Frame]
    facts: Facts
    damaged: int  # packets and frames on the way to those that could not be decoded, and were passed over


def sample_frames(path: Path, *, every: float = EVERY, most: int = MOST_FRAMES) -> list[Frame]:
    """The frames alone of `read_video`."""
    return read_video(path, every=every, most=most).frames


def read_video(path: Path, *, every: float = EVERY, most: int = MOST_FRAMES) -> Video:
    """Frames of a video at equal distances, the first in the middle of the first stretch, and the facts of its file.

    A frame is the last that came on screen until then; times run from the first frame to the end of the last. Pixels
    are made square, turned as the file says, and brought to sRGB, HDR included. A cover is no film.

    Args:
        path: a file that FFmpeg can read.
        every: s between frames; longer where there would be more than `most`.
        most: at most so many.

    Raises:
        ImageError: it cannot be read, or has no picture.
        MissingExtraError: PyAV is not installed.
    """
    return _read(path, lambda film: film.times(every, most))


def frame_at(path: Path, seconds: float) -> Image.Image:
    """The frame [RGB, upright] that is on screen at a time, or where the film is shorter, near its end.

    Args:
        path: a file that FFmpeg can read.
        seconds: from the start.

    Raises:
        ImageError: it cannot be read, or has no picture.
        MissingExtraError: PyAV is not installed.
    """
    return _read(path, lambda film: [film.within(seconds)]).frames[0].image


def _read(path: Path, times_of: "Callable[[_Film], list[float]]") -> Video:
    try:
        import av
    except ImportError:
        raise missing_extra(f"reading {path}", "video", "Pictures are read without it.") from None
    try:
        with av.open(str(path)) as container:
            stream = _film(container)
            if stream is None:
                raise ImageError(f"{path} cannot be read as a video: it has no picture.", "empty")
            stream.thread_type = "AUTO"
            film = _Film(container, stream)
            frames = [Frame(_upright(frame, stream), time) for time, frame in film.on_screen(times_of(film))]
            facts = _facts(container, stream, frames)
    except _faults() as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise ImageError(f"{path} cannot be read as a video: {why}.") from error
    if not frames:
        raise ImageError(f"{path} must have a picture to be a video, and has none that can be decoded.", "empty")
    return Video(frames=frames, facts=facts, damaged=film.damaged)


def _faults() -> tuple[type[Exception], ...]:
    """What PyAV raises for a file that cannot be read on; not all of FFmpeg's errors are also Python's."""
    from av.error import FFmpegError

    return FFmpegError, OSError, ValueError, IndexError  # the last for a stream that appears on the way


def _film(container: "InputContainer") -> "VideoStream | None":
    from av.stream import Disposition

    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return next((stream for stream in films if stream.disposition & Disposition.default), next(iter(films), None))


class _Film:
    """A stream of pictures that is read from any time on."""

    def __init__(self, container: "InputContainer", stream: "VideoStream") -> None:
        self._container, self._stream = container, stream
        self._faults = _faults()
        self._base = stream.time_base or Fraction(1, 90_000)
        self.damaged = 0
        start, end, count = self._span()
        self._timed = count == 0
        if not self._timed:  # a bare stream: no packet has a time
            rate = stream.average_rate or stream.guessed_rate or _RATE
            self._frame_length = float(1 / rate)
            start, end = 0.0, count * self._frame_length
        self._start, self._length = start, max(0.0, end - start)

    def times(self, every: float, most: int) -> list[float]:
        """S from the first frame, equally far from each other."""
        count = max(1, min(most, round(self._length / every)))
        return [self._length * (i + 0.5) / count for i in range(count)]

    def within(self, seconds: float) -> float:
        """The time, or one a little before the end where the film is shorter."""
        return max(0.0, min(seconds, 0.99 * self._length))

    def on_screen(self, times: list[float]) -> Iterator[tuple[float, "VideoFrame"]]:
        """The frame at each time; where nothing can be decoded near it, none."""
        if not self._timed:
            yield from self._by_counting(times)
            return
        for time in times:
            wanted = self._start + time
            for place in (wanted, wanted - _EARLIER, self._start):
                frame, early = self._last_until(wanted, place)
                if frame is not None and early:
                    break
            if frame is not None:
                yield time, frame

    def _span(self) -> tuple[float, float, int]:
        """First time, end, and 0; or the number of packets where none has a time."""
        start = self._stream.start_time
        end, count = self._end_behind(self._seek_last)
        if end is None:
            end, count = self._end_behind(self._seek_first)
        if end is None:
            return 0.0, 0.0, count
        if start is None:
            self._seek_first()
            start = next((packet.pts for packet in self._packets() if packet.pts is not None), 0)
        return float(start * self._base), float(end * self._base), 0

    def _end_behind(self, seek: Any) -> tuple[int | None, int]:
        end, count = None, 0
        with contextlib.suppress(*self._faults):
            seek()
        for packet in self._packets():
            count += packet.size > 0
            if packet.pts is not None:
                end = max(end if end is not None else packet.pts, packet.pts + (packet.duration or 0))
        return end, count

    def _seek_first(self) -> None:
        self._container.seek(self._stream.start_time or 0, stream=self._stream, backward=True, any_frame=False)

    def _seek_last(self) -> None:
        length = self._stream.duration
        if length is None and self._container.duration:
            length = int(self._container.duration / 1_000_000 / self._base)
        if length is None:
            raise ValueError("no length is known")
        self._container.seek((self._stream.start_time or 0) + length, stream=self._stream, backward=True)

    def _packets(self) -> Iterator["Packet"]:
        with contextlib.suppress(*self._faults):  # what comes behind such damage is lost
            yield from self._container.demux(self._stream)

    def _frames(self) -> Iterator["VideoFrame"]:
        for packet in self._packets():
            try:
                yield from packet.decode()  # type: ignore[misc]  # a video's packets give video frames
            except self._faults:
                self.damaged += 1

    def _last_until(self, wanted: float, place: float) -> tuple["VideoFrame | None", bool]:
        """The last whole frame until a time, read from a place on; whether there was one, else the first behind it."""
        with contextlib.suppress(*self._faults):
            self._container.seek(max(0, int(place / self._base)), stream=self._stream, backward=True)
        best, corrupt = None, None
        for frame in self._frames():
            if frame.time is None:
                continue
            if frame.time > wanted + 1e-6:
                if best is None and not frame.is_corrupt:
                    return frame, False
                break
            if frame.is_corrupt:
                self.damaged += 1
                corrupt = frame
            else:
                best = frame
        best = best if best is not None else corrupt
        return best, best is not None

    def _by_counting(self, times: list[float]) -> Iterator[tuple[float, "VideoFrame"]]:
        with contextlib.suppress(*self._faults):
            self._seek_first()
        waiting = list(times)
        last = None
        for number, frame in enumerate(self._frames()):
            while waiting and last is not None and number * self._frame_length > waiting[0]:
                yield waiting.pop(0), last
            last = frame
        if waiting and last is not None:
            yield waiting[0], last


def _upright(frame: "VideoFrame", stream: "VideoStream") -> Image.Image:
    """As it is shown: square pixels, turned, in sRGB."""
    no_matrix = frame.colorspace == _UNSPECIFIED and frame.height > _HIGH_DEFINITION
    image = frame.to_image(src_colorspace=_BT709) if no_matrix else frame.to_image()
    if profile := cicp_profile(frame.color_primaries, frame.color_trc):
        image.info["icc_profile"] = profile
    image = rgb_of(image, "<frame>")
    shape = stream.sample_aspect_ratio
    if shape and shape != 1 and Fraction(1, 8) <= shape <= 8:
        image = image.resize((round(image.width * shape), image.height), Image.Resampling.BICUBIC)
    turn = round(getattr(frame, "rotation", 0) / 90) % 4 * 90  # phones store a turned picture with the angle beside it
    return image.rotate(turn, expand=True) if turn else image


def _facts(container: "InputContainer", stream: "VideoStream", frames: list[Frame]) -> Facts:
    """Size as it is shown; date, camera and place as QuickTime, MP4, Matroska and AVI name them."""
    said = {key.lower(): value for part in (stream.metadata, container.metadata) for key, value in part.items()}
    apple = "com.apple.quicktime."
    dates = [said.get(key) for key in (f"{apple}creationdate", "creation_time", "date", "date_recorded")]
    places = [said.get(key) for key in (f"{apple}location.iso6709", "location", "location-eng")]
    cameras = [("make", "model"), (f"{apple}make", f"{apple}model")]
    cameras.append(("com.android.manufacturer", "com.android.model"))
    size = frames[0].image.size if frames else (0, 0)
    return Facts(
        width=size[0],
        height=size[1],
        taken=first_date(text for text in dates if text and not text.startswith(("1904-01-01", "1970-01-01"))),
        camera=next((name for make, model in cameras if (name := camera_of(said.get(make), said.get(model)))), ""),
        place=next((place for text in places if text and (place := place_of_iso_6709(text))), None),
    )
