"""Frames of a video, one every few seconds, as pictures."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diptych.errors import ImageError, missing_extra

VIDEO_ENDINGS = ("avi", "m4v", "mkv", "mov", "mp4", "webm")
EVERY = 10.0  # s between frames
MOST_FRAMES = 60  # of one video; a longer one is sampled less densely


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    image: Image.Image  # RGB, upright
    time: float  # s from the start


def sample_frames(path: Path, *, every: float = EVERY, most: int = MOST_FRAMES) -> list[Frame]:
    """Frames of a video at equal distances, the first in the middle of the first stretch.

    Args:
        path: a file that FFmpeg can read.
        every: s between frames; longer where there would be more than `most`.
        most: at most so many.

    Raises:
        ImageError: it cannot be read, or has no picture.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise missing_extra(f"reading {path}", "video", "Pictures are read without it.") from None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            length = container.duration / av.time_base if container.duration else 0.0
            start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
            count = max(1, min(most, round(length / every)))
            frames = []
            for i in range(count):
                time = length * (i + 0.5) / count
                container.seek(int((start + time) * av.time_base), backward=True)
                if (frame := _frame_at(container, stream, start + time)) is not None:
                    frames.append(Frame(_upright(frame), time))
    except (FFmpegError, IndexError, OSError, ValueError) as error:
        reason = "it has no picture" if isinstance(error, IndexError) else str(error)
        raise ImageError(f"{path} cannot be read as a video: {reason}.") from error
    if not frames:
        raise ImageError(f"{path} must have a picture to be a video, and has none.", "empty")
    return frames


def _frame_at(container, stream, time):  # type: ignore[no-untyped-def]
    last = None
    for frame in container.decode(stream):
        last = frame
        if frame.time is None or frame.time >= time - 1e-3:
            break
    return last


def _upright(frame) -> Image.Image:  # type: ignore[no-untyped-def]
    """Phones store a turned picture with the angle beside it."""
    image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0) / 90) % 4 * 90
    return image.rotate(turn, expand=True) if turn else image
