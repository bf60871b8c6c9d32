"""Colour spaces by their numbers, as ICC profiles: what files tell without one.

PNG's gAMA, cHRM and cICP, the `nclx` box of HEIC and AVIF, a video's stream and a camera's note of Adobe RGB name a
space by its primaries and its curve. As a profile of that space, they go the way that an embedded profile goes.
"""

import functools
import struct
from collections.abc import Callable

import numpy as np

Point = tuple[float, float]  # CIE 1931 x, y

D65: Point = (0.3127, 0.3290)
BT709: tuple[Point, Point, Point] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # sRGB's too
_ADOBE: tuple[Point, Point, Point] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_D50 = np.array([0.9642, 1.0, 0.8249])  # ICC.1:2010, 7.2.16
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# ITU-T H.273, tables 2 and 3: what is not sRGB to the eye. Standard-definition television counts as sRGB.
_PRIMARIES: dict[int, tuple[tuple[Point, Point, Point], Point]] = {
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),  # BT.2020
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.314, 0.351)),  # DCI-P3
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65),  # Display P3
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_WHITE = 203.0  # cd/m^2 of paper white in HDR, ITU-R BT.2408
_KNEE = 0.8  # of white; what is brighter is pressed together so that the brightest light still fits below white
_SAMPLES = 4096


def srgb_to_linear(signal: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, from [0, 1] to [0, 1]."""
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def pq_to_light(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: [0, 1] to cd/m^2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def hlg_to_light(signal: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 on a display of 1,000 cd/m^2, its system gamma of 1.2 on each channel: [0, 1] to cd/m^2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene**1.2


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile of a space by its code points (ITU-T H.273), or None where sRGB stands for it.

    PQ and HLG are shown as on a screen whose white is HDR's paper white: what is darker than four fifths of it is kept,
    brighter light is pressed together below white.
    """
    if primaries not in _PRIMARIES and transfer not in (*_GAMMAS, _PQ, _HLG):
        return None
    return _cicp_profile(primaries, transfer)


@functools.lru_cache(maxsize=32)
def _cicp_profile(primaries: int, transfer: int) -> bytes:
    points, white = _PRIMARIES.get(primaries, (BT709, D65))
    if transfer == _PQ:
        return matrix_profile(points, white, lambda signal: _within_white(pq_to_light(signal) / _WHITE))
    if transfer == _HLG:
        return matrix_profile(points, white, lambda signal: _within_white(hlg_to_light(signal) / _WHITE))
    if transfer in _GAMMAS:
        return matrix_profile(points, white, lambda signal: signal ** _GAMMAS[transfer])
    return matrix_profile(points, white, srgb_to_linear)


@functools.lru_cache(maxsize=32)
def gamma_profile(gamma: float, chromaticity: tuple[float, ...] | None) -> bytes | None:
    """The profile of a PNG by its gAMA and cHRM, or None where they make no sense.

    Args:
        gamma: as the chunk has it: the exponent from light to samples, 0.45455 for most.
        chromaticity: x and y of white, red, green, blue; sRGB's where there is none.
    """
    if not 0.05 <= gamma <= 20:
        return None
    try:
        (white, *points) = [*zip(chromaticity[::2], chromaticity[1::2], strict=True)] if chromaticity else [D65, *BT709]
        red, green, blue = points
        return matrix_profile((red, green, blue), white, lambda signal: signal ** (1 / gamma))
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError):
        return None


@functools.lru_cache(maxsize=1)
def adobe_rgb_profile() -> bytes:
    """Adobe RGB (1998), which cameras name by the DCF option file's mark alone."""
    return matrix_profile(_ADOBE, D65, lambda signal: signal ** (563 / 256))


def matrix_profile(
    primaries: tuple[Point, Point, Point], white: Point, curve: Callable[[np.ndarray], np.ndarray]
) -> bytes:
    """A display profile of ICC version 2: three primaries and one curve.

    Args:
        primaries: red, green, blue.
        white: adapted to D50 by Bradford's matrix.
        curve: from a signal in [0, 1] to light in [0, 1].

    Raises:
        ValueError: the points are no triangle around white.
    """
    if min(y for _, y in (*primaries, white)) <= 0:
        raise ValueError("a colour must have light")
    columns = np.array([_xyz(point) for point in primaries]).T  # [3 of XYZ, 3 of RGB]
    shares = np.linalg.solve(columns, _xyz(white))
    if not np.isfinite(shares).all() or min(shares) <= 0:
        raise ValueError("white must lie between the primaries")
    cones_of_white = _BRADFORD @ _xyz(white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones_of_white) @ _BRADFORD
    adapted = adapt @ (columns * shares)
    samples = np.clip(np.rint(curve(np.linspace(0, 1, _SAMPLES)) * 65_535), 0, 65_535).astype(">u2")
    trc = b"curv\0\0\0\0" + struct.pack(">I", _SAMPLES) + samples.tobytes()
    tags = {
        b"wtpt": _xyz_tag(_D50),
        b"rXYZ": _xyz_tag(adapted[:, 0]),
        b"gXYZ": _xyz_tag(adapted[:, 1]),
        b"bXYZ": _xyz_tag(adapted[:, 2]),
        b"rTRC": trc,
        b"gTRC": trc,
        b"bTRC": trc,
    }
    return _profile(tags)


def _profile(tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body, places = b"", b"", dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:  # the three curves are one
            places[content] = start + len(body)
            body += content
        table += name + struct.pack(">II", places[content], len(content))
    head = struct.pack(">I4xI", start + len(body), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65_536) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz_tag(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65_536) for value in values))


def _xyz(point: Point) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _within_white(light: np.ndarray) -> np.ndarray:
    """Identity up to the knee, then a curve with the same slope there that nears 1 (white) and never reaches it."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * over / (1 + over))
