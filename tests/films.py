"""Films for tests, as ffmpeg writes them."""

from pathlib import Path
from typing import Any

import pytest

WAY = "1\n00:00:00,000 --> 00:00:01,000\n48.8566, 2.3522\n"  # subtitles of a drone


def film(path: Path, *, tags: dict[str, str] | None = None, subtitles: Path | None = None, **options: Any) -> Path:
    """Two frames, and a track of subtitles where there are some."""
    av = pytest.importorskip("av", reason="pip install 'diptych[video]'")
    with av.open(str(path), "w", **options) as container:
        container.metadata.update(tags or {})
        video = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        if subtitles is not None:
            with av.open(str(subtitles)) as said:
                notes = container.add_stream_from_template(said.streams.subtitles[0])
                packets = [packet for packet in said.demux() if packet.size]
                for packet in packets:
                    packet.stream = notes
                    container.mux(packet)
        for _ in range(2):
            container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(video.encode())
    return path
