"""The stage of rules over pictures: by the numbers that `describe` measured of them, without opening them again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.errors import ConfigError
from diptych.rows.stage import Judged, Whole, dropped


@dataclass(frozen=True, kw_only=True)
class PictureRules:
    """Pictures that are too small, too long, too large, of a format that is not wanted, or blank.

    An option that is None, or empty, is no rule. The causes are `side`, `pixels`, `aspect`, `bytes`, `format` and
    `detail`, held against in this order; what was not measured of a picture is dropped by the first rule that asks.

    Source: sides and aspect are DataComp's basic filter (arXiv:2304.14108, released code: at least 200 px, aspect at
    most 3), ALIGN's (arXiv:2102.05918, section 3) and COYO-700M's; the least bytes are COYO-700M's (its README: 5 KB).
    The least detail is ours: grey levels by which the parts of a picture differ, as `describe` measures it.
    """

    min_side: int | None = 200  # px of the shorter side
    max_side: int | None = None  # px of the longer
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_aspect: float | None = 3.0  # longer by shorter side
    min_bytes: int | None = 5_000
    max_bytes: int | None = None
    formats: tuple[str, ...] = ()  # "jpeg", "png", ...; none takes all
    min_detail: float | None = 1.0  # grey levels
    name: ClassVar[str] = "pictures"

    def __post_init__(self) -> None:
        for what in ("side", "pixels", "bytes"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if (least or 0) < 0 or (most is not None and most < (least or 0)):
                raise ConfigError(f"min_{what} must be from 0 to max_{what}. Got {least} and {most}.")
        if self.max_aspect is not None and self.max_aspect < 1:
            raise ConfigError(f"max_aspect must be at least 1, longer by shorter side. Got {self.max_aspect}.")

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002  # as all stages take it
        """Judge N rows by their columns `width`, `height`, `bytes`, `format` and `detail`."""
        alive = np.ones(len(rows), bool)
        gone = [dropped(rows["key"][:0], "none")]
        for cause, keep, value, limit in self._rules(rows):
            out = alive & ~pc.fill_null(keep, False).to_numpy(zero_copy_only=False)
            alive &= ~out
            at = pa.array(np.flatnonzero(out))
            gone.append(dropped(rows["key"].take(at), cause, pc.fill_null(value.take(at), "not known"), limit))
        return Judged(kept=rows.filter(pa.array(alive)), dropped=pa.concat_tables(gone))

    def _rules(self, rows: pa.Table) -> Iterator[tuple[str, Any, Any, str]]:
        """Cause, [N] booleans, [N] texts and limit of each rule that is asked for."""
        columns = {name: rows[name].combine_chunks() for name in ("width", "height", "bytes", "format", "detail")}
        width, height = columns["width"].cast(pa.int64()), columns["height"].cast(pa.int64())
        short = pc.min_element_wise(width, height, skip_nulls=False)
        long = pc.max_element_wise(width, height, skip_nulls=False)
        pixels = pc.multiply(width, height)
        size = pc.binary_join_element_wise(width.cast(pa.string()), height.cast(pa.string()), " x ")
        if self.min_side is not None or self.max_side is not None:
            keep = pc.and_(_within(short, self.min_side, None), _within(long, None, self.max_side))
            yield "side", keep, _text(size, "px"), _limit(self.min_side, self.max_side, "px a side")
        if self.min_pixels is not None or self.max_pixels is not None:
            keep = _within(pixels, self.min_pixels, self.max_pixels)
            yield "pixels", keep, _text(pixels, "pixels"), _limit(self.min_pixels, self.max_pixels, "pixels")
        if self.max_aspect is not None:
            aspect = pc.divide(long.cast(pa.float64()), short.cast(pa.float64()))
            limit = f"longer side at most {self.max_aspect:g} times the shorter"
            yield "aspect", pc.less_equal(aspect, self.max_aspect), _text(pc.round(aspect, 2), "times"), limit
        if self.min_bytes is not None or self.max_bytes is not None:
            keep = _within(columns["bytes"], self.min_bytes, self.max_bytes)
            yield "bytes", keep, _text(columns["bytes"], "bytes"), _limit(self.min_bytes, self.max_bytes, "bytes")
        if self.formats:
            wanted = pc.is_in(columns["format"], pa.array([name.lower() for name in self.formats]))
            yield "format", wanted, columns["format"], f"one of {', '.join(self.formats)}"
        if self.min_detail is not None:
            detail = columns["detail"].cast(pa.float64())
            limit = f"detail of at least {self.min_detail:g} grey levels"
            yield "detail", pc.greater_equal(detail, self.min_detail), _text(pc.round(detail, 2), "grey levels"), limit


def _within(values: Any, least: int | None, most: int | None) -> Any:
    keep = pc.is_valid(values)
    if least is not None:
        keep = pc.and_(keep, pc.greater_equal(values, least))
    return keep if most is None else pc.and_(keep, pc.less_equal(values, most))


def _text(values: Any, unit: str) -> Any:
    return pc.binary_join_element_wise(values.cast(pa.string()), unit, " ")


def _limit(least: int | None, most: int | None, unit: str) -> str:
    if least is None:
        return f"at most {most:,} {unit}"
    return f"at least {least:,} {unit}" if most is None else f"{least:,} to {most:,} {unit}"
