"""What a file is by its name alone: what a walk through a folder reads, what it passes over, and why."""

import functools
import importlib.util
from pathlib import PurePath
from typing import Literal, NamedTuple

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.video import VIDEO_ENDINGS

_HEIF = ("heic", "heics", "heif", "hif")
# Pictures and films that no reader here knows: what they are, for the sentence that counts them.
_UNREAD = {
    "ai": "an Illustrator drawing",
    "braw": "raw video",
    "cdr": "a CorelDRAW drawing",
    "cur": "a cursor",
    "dds": "a texture",
    "djvu": "a scanned document",
    "emf": "a drawing",
    "eps": "a PostScript drawing",
    "exr": "an OpenEXR picture",
    "fits": "an astronomical picture",
    "hdr": "a Radiance picture",
    "icns": "an icon of macOS",
    "jng": "a JNG picture",
    "jp2c": "a JPEG 2000 stream",
    "jxl": "a JPEG XL picture",
    "jxr": "a JPEG XR picture",
    "kra": "a Krita drawing",
    "mng": "a MNG animation",
    "mrw": "a raw file without a preview",
    "pcx": "a PCX picture",
    "pfm": "a picture of floats",
    "psb": "a Photoshop file",
    "psd": "a Photoshop file",
    "r3d": "raw video",
    "rm": "a RealMedia film",
    "rmvb": "a RealMedia film",
    "sgi": "an SGI picture",
    "svg": "an SVG drawing",
    "svgz": "an SVG drawing",
    "swf": "a Flash film",
    "wdp": "a JPEG XR picture",
    "wmf": "a drawing",
    "xbm": "an XBM picture",
    "xcf": "a GIMP drawing",
    "xpm": "an XPM picture",
}


class Kind(NamedTuple):
    """What a file is, and why it is not read."""

    what: Literal["picture", "video", "unreadable", "other"]
    why: str = ""  # of what is unreadable: short and countable


def kind_of(name: str) -> Kind:
    """What a file is by its ending: a picture, a video, one of them that cannot be read here, or another thing.

    >>> kind_of("IMG_0001.JPG").what, kind_of("notes.txt").what
    ('picture', 'other')
    >>> kind_of("Poster.psd").why
    'a Photoshop file (.psd), which has no reader here'
    """
    ending = PurePath(name).suffix[1:].lower()
    if ending in PICTURE_ENDINGS:
        if ending in _HEIF and not _installed("pillow_heif"):
            return Kind("unreadable", f"HEIC (.{ending}), which needs an extra: pip install 'diptych[heif]'")
        return Kind("picture")
    if ending in VIDEO_ENDINGS:
        if not _installed("av"):
            return Kind("unreadable", f"a video (.{ending}), which needs an extra: pip install 'diptych[video]'")
        return Kind("video")
    if ending in _UNREAD:
        return Kind("unreadable", f"{_UNREAD[ending]} (.{ending}), which has no reader here")
    return Kind("other")


@functools.cache
def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # blocked, or half loaded
        return False
