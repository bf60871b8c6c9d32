"""Curves in text: a plot of braille dots, and one line of blocks."""

import itertools
import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_BRAILLE = 0x2800  # the empty cell
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of each dot, [row, column] of a cell


def columns_of(points: Sequence[tuple[float, float]], count: int) -> list[float]:
    """A curve as so many values, evenly spaced in x: means of what falls together, straight lines over gaps.

    Args:
        points: x and finite y, by x.
        count: of values, at least 1.
    """
    first, last = points[0][0], points[-1][0]
    sums, numbers = [0.0] * count, [0] * count
    for x, y in points:
        place = round((x - first) / (last - first) * (count - 1)) if last > first else 0
        sums[place] += y
        numbers[place] += 1
    known = [n for n in range(count) if numbers[n]]
    values = [sums[n] / numbers[n] if numbers[n] else math.nan for n in range(count)]
    for left, right in itertools.pairwise(known):
        for n in range(left + 1, right):
            values[n] = values[left] + (values[right] - values[left]) * (n - left) / (right - left)
    return [value if n <= known[-1] else values[known[-1]] for n, value in enumerate(values)]


def blocks(points: Sequence[tuple[float, float]], width: int) -> str:
    """A curve in one line: the lowest value is the lowest block, the highest the highest."""
    values = columns_of(points, min(width, len(points)))
    low, high = min(values), max(values)
    if high == low:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in values)


def plot(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """A curve as lines of braille, two by four dots a character; the highest value in the first line.

    Args:
        points: x and finite y, by x.
        width: characters.
        height: lines.
    """
    values = columns_of(points, 2 * width)
    low, high = min(values), max(values)
    rows = 4 * height
    places = [rows - 1 if high == low else round((high - v) / (high - low) * (rows - 1)) for v in values]
    cells = [[0] * width for _ in range(height)]
    for column, place in enumerate(places):
        before = places[max(0, column - 1)]
        towards = 1 if before < place else -1
        # Down or up from the neighbour's height, whose own dot is drawn already.
        for row in range(before + towards, place, towards) if abs(before - place) > 1 else ():
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        cells[place // 4][column // 2] |= _DOTS[place % 4][column % 2]
    return ["".join(chr(_BRAILLE + cell) for cell in line) for line in cells]
