"""What a page for people says, as plain data: `html.py` lays it out, `plots.py` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

ImageLike = Image.Image | np.ndarray  # [S, S, 3] uint8
Headline = tuple[str, str, str]  # label, value, note
Confusion = tuple[str, ImageLike, str, ImageLike]  # truth, its picture, guessed label, a picture of that class


@dataclass(frozen=True, kw_only=True)
class RankedPicture:
    """A picture that words have found."""

    picture: ImageLike
    score: float
    is_match: bool | None = None  # None: nobody knows
    why: ImageLike | None = None  # the same under the map of the words, where the model has a grid


Retrieval = tuple[str, Sequence[RankedPicture]]  # query, best first


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A picture and what the model says it shows."""

    picture: ImageLike
    truth: str = ""  # empty: nobody has labelled it
    guesses: tuple[tuple[str, float], ...]  # label and probability in [0, 1], likeliest first


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """Cells as they are read."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]  # the first cell of each names it
    note: str = ""
    is_prose: bool = False  # cells are sentences
    fold: str = ""  # words that a long table is folded away behind


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Shares side by side, e.g. the accuracy of each class."""

    title: str
    note: str = ""
    bars: Sequence[tuple[str, float]]  # label and share in [0, 1]


@dataclass(frozen=True, kw_only=True)
class ReliabilityPlot:
    """How sure a model was, against how often it was right."""

    title: str
    note: str = ""
    points: Sequence[tuple[float, float, int]]  # confidence, accuracy and number of pictures of each bin that has some


@dataclass(frozen=True, kw_only=True)
class LinePlot:
    """A number of a run, step by step."""

    title: str
    points: Sequence[tuple[float, float]]  # step, value; at least one
    unit: str = ""
    is_share: bool = False  # in [0, 1], shown as per cent
    chance: float | None = None  # what a blind guess comes to, where it is known


@dataclass(frozen=True, kw_only=True)
class IntervalPlot:
    """Data sets as dots with their intervals: one share against another."""

    title: str
    note: str = ""
    x: str  # what is counted to the right, in [0, 1]
    y: str  # and upwards, in [-1, 1]
    points: Sequence[tuple[str, float, float, float, float]]  # name, x, y, low and high of y


@dataclass(frozen=True, kw_only=True)
class PicturePair:
    """Two pictures beside each other, and what is known of the two."""

    left: ImageLike
    left_label: str
    right: ImageLike
    right_label: str
    note: str


@dataclass(frozen=True, kw_only=True)
class PairGroup:
    """Pairs under one heading."""

    heading: str
    note: str = ""
    pairs: Sequence[PicturePair]


@dataclass(frozen=True, kw_only=True)
class ShareCurves:
    """Shares that grow with another share, as curves in one plot, e.g. matches held by the most frequent queries."""

    title: str
    note: str = ""
    x: str  # what is counted to the right, above 0, on a logarithmic axis
    y: str
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]  # label, points (x, y)


@dataclass(frozen=True, kw_only=True)
class CaptionedPicture:
    """A picture beside its own words."""

    picture: ImageLike | None  # None: it cannot be shown
    caption: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """A part of a page with a heading of its own. What is empty is left out."""

    heading: str
    note: str = ""
    lead: Sequence[str] = ()  # sentences that come before all else
    tables: Sequence[PageTable] = ()
    plots: Sequence[Bars | ShareCurves] = ()
    captioned: Sequence[CaptionedPicture] = ()
    text: str = ""  # plain, its lines are kept


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """What a report says. A part that is empty is left out."""

    title: str
    summary: str  # one sentence
    headline: Sequence[Headline] = ()
    table: PageTable | None = None
    retrieval_table: PageTable | None = None
    bars: Sequence[Bars] = ()
    reliability: Sequence[ReliabilityPlot] = ()
    rejection: PageTable | None = None  # what becomes of the answers when the unsure ones are held back
    conditions: Mapping[str, str] = field(default_factory=dict)  # model, data, pairs seen, seed, hardware, versions
    curves: Sequence[LinePlot] = ()
    time: Sequence[Bars] = ()  # where a run's went
    left_out: PageTable | None = None  # samples of a run that could not be used
    right: Sequence[Prediction] = ()
    wrong: Sequence[Prediction] = ()
    confusions: Sequence[Confusion] = ()
    intervals: Sequence[IntervalPlot] = ()
    pairs: Sequence[PairGroup] = ()
    retrievals: Sequence[Retrieval] = ()
    classified: Sequence[Prediction] = ()  # free labels, so the truth need not be among the guesses
    sections: Sequence[PageSection] = ()  # of pages that tell of something else than a model
    credits: str = ""  # plain text, its lines are kept
