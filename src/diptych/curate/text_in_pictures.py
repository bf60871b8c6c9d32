"""The stage that looks at text in pictures: how much there is, and how well the rest still fits the caption."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.curate.detectors import Detector, boxes_in
from diptych.curate.scores import caption_scores, judged_by_score, rounded
from diptych.curate.seen_pictures import BATCH, model_of, seen, unreadable
from diptych.embed import encode_fast
from diptych.errors import ConfigError, ImageError, MissingExtraError
from diptych.outside import named
from diptych.rows.columns import PICTURE, with_column
from diptych.rows.stage import Judged, Whole

_AHEAD = 2  # whole pictures are large
_RING = 0.25  # width of what surrounds a box, of its shorter side


@dataclass(frozen=True, kw_only=True)
class TextInPictures:
    """Pictures of which little is left without the text in them: a model reads it, and learns to read, not to see.

    A detector finds the boxes of text; each is filled with the mean colour around it, and the picture is scored again
    with its caption. Columns: `text_area` float32, the share of the picture within boxes, and `masked_score` float32,
    the cosine without text, the mean over the row's captions. `BestShare` with that column keeps the best of the whole.

    Source: T-MARS, arXiv:2307.03132, sections 3 and 4. Its detector was FAST; any does that finds boxes. Thresholds
    are the user's: cosines differ from model to model.
    """

    detector: str | None = None  # "module:function"; None is that of the package `rapidocr`, installed by the user
    model: str | None = None  # a name as `diptych.load` takes it; None is the model that ships
    max_area: float | None = None  # largest `text_area`; None drops none
    min_score: float | None = None  # least `masked_score`; None drops none
    min_confidence: float = 0.5
    name: ClassVar[str] = "text-in-pictures"
    reads_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_area is not None and not 0 <= self.max_area <= 1:
            raise ConfigError(f"max_area must be a share of the picture, from 0 to 1. Got {self.max_area}.")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise ConfigError(f"min_score must be a cosine, from -1 to 1. Got {self.min_score}.")

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:  # noqa: ARG002  # as all stages take it
        bundle = model_of(self.model)
        detector = named(self.detector, "text-in-pictures.detector") if self.detector else _rapidocr()
        features = [np.empty((0, bundle.embed_dim), np.float32)]
        waiting: list[np.ndarray] = []
        areas: list[float] = []
        good: list[int] = []
        bad: list[tuple[int, ImageError]] = []
        for row, pixels in enumerate(seen(rows, np.asarray, ahead=_AHEAD)):
            if isinstance(pixels, ImageError):
                bad.append((row, pixels))
                continue
            boxes = boxes_in(pixels, detector, self.min_confidence)
            good.append(row)
            areas.append(area_of(pixels, boxes))
            waiting.append(bundle.preprocess.pixels(masked(pixels, boxes)))
            if len(waiting) == BATCH:
                features.append(encode_fast(bundle, waiting))
                waiting.clear()
        features.append(encode_fast(bundle, waiting))
        kept = rows.drop_columns([PICTURE]).take(pa.array(good, pa.int64()))
        texts = [text.split("\n") for text in kept["text"].to_pylist()]
        scores = rounded(caption_scores(bundle, np.concatenate(features), texts, ""))
        kept = with_column(kept, "text_area", pa.array(areas, pa.float32()))
        kept = with_column(kept, "masked_score", pa.array(scores))
        return self._judged(kept, unreadable(rows["key"], bad))

    def _judged(self, rows: pa.Table, gone: pa.Table) -> Judged:
        if self.max_area is not None:
            areas = [f"{area:.1%}" for area in rows["text_area"].to_pylist()]
            limit = f"at most {self.max_area:.1%} of the picture is text"
            keep = pc.less_equal(rows["text_area"], pa.scalar(self.max_area, pa.float32()))
            judged = Judged.by(rows, keep, self.name, value=pa.array(areas, pa.string()), limit=limit)
            rows, gone = judged.kept, pa.concat_tables([gone, judged.dropped])
        return judged_by_score(rows, "masked_score", self.min_score, self.name, gone)


def area_of(pixels: np.ndarray, boxes: np.ndarray) -> float:
    """Share of a picture [H, W, 3] within boxes [N, 4]; where they overlap it counts once."""
    inside = np.zeros(pixels.shape[:2], bool)
    for left, top, right, bottom in boxes.tolist():
        inside[top:bottom, left:right] = True
    return float(inside.mean())


def masked(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A picture with boxes filled, each with the mean colour of what surrounds it.

    Args:
        pixels: [H, W, 3] uint8.
        boxes: [N, 4] int64, left, top, right, bottom, px.

    Returns:
        [H, W, 3] uint8.
    """
    filled = pixels.copy()
    for left, top, right, bottom in boxes.tolist():
        ring = max(1, round(_RING * min(right - left, bottom - top)))
        around = pixels[max(top - ring, 0) : bottom + ring, max(left - ring, 0) : right + ring].astype(np.int64)
        inside = pixels[top:bottom, left:right].astype(np.int64)
        count = around.shape[0] * around.shape[1] - inside.shape[0] * inside.shape[1]
        total = around.sum(axis=(0, 1)) - inside.sum(axis=(0, 1))
        # A box that is the whole picture has nothing around it: the picture's own mean is no text either.
        mean = total / count if count else inside.mean(axis=(0, 1))
        filled[top:bottom, left:right] = np.rint(mean).astype(np.uint8)
    return filled


@functools.cache
def _rapidocr() -> Detector:
    """The detector of text of `rapidocr`, loaded once a process; its models lie in the package."""
    try:
        from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "text in pictures needs a detector: pip install rapidocr onnxruntime. Another is named by `detector`."
        ) from None
    engine: Callable[..., object] = RapidOCR(params={"Global.log_level": "warning"})

    def boxes(pixels: np.ndarray) -> np.ndarray:
        found = engine(pixels[..., ::-1], use_det=True, use_cls=False, use_rec=False)  # it takes arrays as BGR
        corners, scores = getattr(found, "boxes", None), getattr(found, "scores", None)
        if corners is None or scores is None or not len(corners):
            return np.empty((0, 5))
        corners = np.asarray(corners, np.float64)  # [N, 4, 2]
        return np.concatenate([corners.min(axis=1), corners.max(axis=1), np.asarray(scores)[:, None]], axis=1)

    return boxes
