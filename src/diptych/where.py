"""Which part of a picture speaks for which words: features of places beside those of texts. Nothing is trained for it.

Each place of the image tower's last grid has a feature in the space of the words (`Bundle.encode_grid`). A picture is
encoded larger than for its class, whole, in its own shape, so that the grid is finer. A map is a hint where the model
looks, and no mask: a cell is many pixels wide. benchmarks/where.py chose the sizes.

Source: MaskCLIP, arXiv:2112.01071; class activation mapping, arXiv:1512.04150. Letters: h, w, D, T, K.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diptych.classify import class_weights, readable
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.images import RESAMPLE, ImageSource, open_image
from diptych.data.notebook import figure, grid, jpeg_of
from diptych.data.overlay import Frame, heat_over, parts_over
from diptych.data.prompts import PLAIN, check_labels, fill, read_lines
from diptych.errors import DataError
from diptych.measures.heat_maps import (
    Box,
    best_cell,
    box_around,
    contrasted,
    cosines,
    hot_part,
    parts,
    share_beaten,
    smoothed,
)
from diptych.weights.bundle import Bundle
from diptych.weights.dual_encoder import DualEncoder

LARGER = 2  # times the tower's own side, that a picture is encoded at
NONE = -1  # the part of no text
FITS = 0.9  # share of other words that a text must fit better than, for a place to be its part
_EVERY = 10  # of the embedded names one in so many is a word to compare with
_SIDE = 320  # px, of a map in a notebook
_ON_TEXT = ":"  # in names that are no words: "flag: Chad"


def other_words() -> tuple[str, ...]:
    """Words that any text is compared with: every tenth name of the embedded emoji, flags and keys left out."""
    names = [name for name in read_lines(data_path(HELD_OUT) / "classnames.txt") if _ON_TEXT not in name]
    return tuple(names[::_EVERY])


@dataclass(frozen=True, kw_only=True)
class FoundPlace:
    """What a picture says of one text."""

    text: str
    point: tuple[float, float]  # of the hottest cell's middle: x and y as shares of the picture's sides
    box: Frame  # around the hot part: left, top, right, bottom as shares
    beaten: float  # share of other words that fit the hottest cell less; near 1 where the text is there


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """A connected part of a picture that one label fits best."""

    label: str
    box: Frame
    share: float  # of the picture's cells


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMaps:
    """One picture's maps, a map a text."""

    texts: tuple[str, ...]  # T
    picture: Image.Image  # RGB, upright, as large as it was opened
    frame: Frame  # what the grid covers of the picture; up to half a cell more or less on a side
    heat: Tensor  # [T, h, w]: cosine with the text, less the mean of the other texts, smoothed
    beaten: Tensor  # [T, h, w]: share of other words that fit a place less than the text

    def found(self) -> list[FoundPlace]:
        """Each text's best place and the box around it, whether it is in the picture or not; `beaten` tells that."""
        best = self.heat.argmax(dim=0)  # [h, w]
        rows: list[FoundPlace] = []
        for number, (text, heat) in enumerate(zip(self.texts, self.heat, strict=True)):
            row, column = best_cell(heat)
            left, top, right, bottom = self._to_shares((column, row, column + 1, row + 1))
            box = self._to_shares(box_around(hot_part(heat, best == number)))
            beaten = self.beaten[number, row, column].item()
            rows.append(FoundPlace(text=text, point=((left + right) / 2, (top + bottom) / 2), box=box, beaten=beaten))
        return rows

    def labels(self, fits: float = FITS) -> Tensor:
        """Which text fits each place best.

        Args:
            fits: share of other words that it must fit better than; 0 gives every place a text.

        Returns:
            [h, w] int64, numbers of texts; `NONE` where none fits well enough.
        """
        best = self.heat.argmax(dim=0)
        beaten = self.beaten.gather(0, best[None])[0]
        return torch.where(beaten >= fits, best, NONE)

    def parts(self, fits: float = FITS) -> list[LabelledPart]:
        """Connected parts of the picture with their labels, those of the first text first, the larger before."""
        labels = self.labels(fits)
        return [
            LabelledPart(label=text, box=self._to_shares(box_around(part)), share=part.float().mean().item())
            for number, text in enumerate(self.texts)
            for part in parts(labels == number)
        ]

    def label_map(self, fits: float = FITS) -> np.ndarray:
        """`labels`, as large as the picture, each pixel as the cell that it lies in: [height, width] int64."""
        labels = self.labels(fits).numpy()
        h, w = labels.shape
        left, top, right, bottom = self.frame
        x = (np.arange(self.picture.width) + 0.5) / self.picture.width
        y = (np.arange(self.picture.height) + 0.5) / self.picture.height
        column = np.clip(((x - left) / (right - left) * w).astype(int), 0, w - 1)
        row = np.clip(((y - top) / (bottom - top) * h).astype(int), 0, h - 1)
        return labels[row[:, None], column]

    def overlay(self, text: int = 0) -> Image.Image:
        """The picture under the map of one text, with its box.

        Args:
            text: its number.
        """
        return heat_over(self.picture, self.heat[text].numpy(), self.frame, [self.found()[text].box])

    def parts_overlay(self, fits: float = FITS) -> Image.Image:
        """The picture under the colours of its parts."""
        return parts_over(self.picture, self.label_map(fits))

    def _repr_html_(self) -> str:
        """The picture under the map of each text, self-contained: nothing is loaded from elsewhere."""
        figures = []
        for number, found in enumerate(self.found()):

            def make_jpeg(number: int = number) -> bytes:
                return jpeg_of(self.overlay(number), _SIDE)

            caption = f"{found.text}: fits better than {found.beaten:.0%} of words"
            figures.append(figure(make_jpeg, caption, title=found.text, side=_SIDE))
        return grid(figures)

    def _to_shares(self, box: Box) -> Frame:
        h, w = self.heat.shape[1:]
        left, top, right, bottom = self.frame
        x = [left + (right - left) * edge / w for edge in (box[0], box[2])]
        y = [top + (bottom - top) * edge / h for edge in (box[1], box[3])]
        x, y = ([min(max(edge, 0.0), 1.0) for edge in edges] for edges in (x, y))
        return x[0], y[0], x[1], y[1]


class Locator:
    """Finds where pictures show what texts say, by the texts alone.

    Args:
        bundle: a model whose image tower has a grid; all that come with diptych have.
        texts: T texts, each once. Two or more are compared with each other, one with `other_words`.
        templates: prompt templates with one `{}` each.
        image_size: pixels of the longer side that a picture is encoded at; `LARGER` times the tower's own when not
            given. More gives finer maps of less sure words.

    Attributes:
        texts: the texts.
        unread: those of which the model's tokenizer does not know all words.

    Raises:
        ConfigError: the tower cannot take this size, or has no grid.
        DataError: there is no text, one is empty or comes twice, or a template is not valid.
        TextError: the model reads none of the texts, or two are one to it.
    """

    def __init__(
        self,
        bundle: DualEncoder,
        texts: Sequence[str],
        templates: Sequence[str] = PLAIN,
        *,
        image_size: int | None = None,
    ) -> None:
        if isinstance(texts, str) or not texts:
            raise DataError(f"texts must be a list with at least one text. Got {texts!r}.")
        self.texts = check_labels(texts)
        self.unread = readable(bundle, self.texts)
        self._bundle = with_map_size(bundle.in_torch(), image_size)
        self._weights = torch.from_numpy(class_weights(bundle, self.texts, templates))  # [T, D]
        self._templates = templates

    @cached_property
    def _others(self) -> Tensor:
        """[K, D]; a word that is too long for the model is cut, as nobody asked for it."""
        texts = [text for word in other_words() for text in fill(self._templates, word)]
        features = torch.from_numpy(self._bundle.encode_texts(texts, truncate=True))
        return normalize(features.unflatten(0, (-1, len(self._templates))).sum(dim=1), dim=1)

    def __call__(self, image: ImageSource) -> HeatMaps:
        """The maps of one picture.

        Raises:
            ImageError: it cannot be read.
        """
        preprocess = self._bundle.preprocess
        picture = open_image(image, max_pixels=preprocess.max_pixels)
        grid, frame = encode_whole(self._bundle, picture)
        return maps_of(grid, self._weights, self._others, texts=self.texts, picture=picture, frame=frame)


def maps_of(
    grid: Tensor, weights: Tensor, others: Tensor, *, texts: Sequence[str], picture: Image.Image, frame: Frame
) -> HeatMaps:
    """Heat maps from features that are there already.

    Args:
        grid: [h, w, D], from `encode_whole`.
        weights: [T, D], of the texts, unit length.
        others: [K, D], of `other_words`.
        texts: T.
        picture: that the grid is of.
        frame: what it covers of it.
    """
    near, other = (smoothed(cosines(grid, features)) for features in (weights, others))
    heat = contrasted(near, other)
    return HeatMaps(texts=tuple(texts), picture=picture, frame=frame, heat=heat, beaten=share_beaten(near, other))


def encode_whole(bundle: Bundle, picture: Image.Image) -> tuple[Tensor, Frame]:
    """A grid of all of a picture, in its own shape: beside a short side lies what no cell of the grid is kept of.

    Args:
        bundle: that takes pictures of the size wanted, see `Bundle.with_image_size`.
        picture: RGB, upright.

    Returns:
        [h, w, D], not unit length: the cells whose middle lies within the picture; and what they cover of it.
    """
    pixels, (left, top, right, bottom) = whole_pixels(bundle, picture)
    grid = torch.from_numpy(bundle.encode_grid(pixels[None]))[0]
    (h, w), side = grid.shape[:2], pixels.shape[0]
    if bundle.preprocess.row_width:
        return grid, (0.0, 0.0, 1.0, 1.0)
    rows, upper, lower = _cells(top, bottom, side, h)
    columns, start, end = _cells(left, right, side, w)
    return grid[rows, columns], (start, upper, end, lower)


def whole_pixels(bundle: Bundle, picture: Image.Image) -> tuple[np.ndarray, Box]:
    """All of a picture as its tower takes it: [S, S, 3] uint8, and where it lies in that; the mean colour around it.

    Of a NaFlex tower, whose pictures keep their shape, what its preprocess makes, and a box that means nothing.
    """
    preprocess = bundle.preprocess
    if preprocess.row_width:
        return preprocess.pixels(picture), (0, 0, 1, 1)
    side = preprocess.image_size
    longest = max(picture.size)
    width, height = (max(1, round(side * length / longest)) for length in picture.size)
    left, top = (side - width) // 2, (side - height) // 2
    mean = tuple(round(255 * value) for value in preprocess.mean)
    square = Image.new("RGB", (side, side), mean)
    square.paste(picture.resize((width, height), RESAMPLE[preprocess.interpolation], reducing_gap=2.0), (left, top))
    return np.array(square), (left, top, left + width, top + height)


def _cells(start: int, end: int, side: int, count: int) -> tuple[slice, float, float]:
    """The cells of a side whose middle lies in a part of it, and from where to where they reach, as shares of the part.

    Where a part is so narrow that no cell's middle lies in it: the cell around its own middle, for all of it.
    """
    first, behind = round(start / side * count), round(end / side * count)
    if first < behind:
        width = end - start
        return slice(first, behind), (first / count * side - start) / width, (behind / count * side - start) / width
    only = int((start + end) / 2 / side * count)
    return slice(only, only + 1), 0.0, 1.0


def with_map_size(bundle: Bundle, image_size: int | None = None) -> Bundle:
    """The same model for maps: of pictures `LARGER` times its own size, or of the size that is asked for."""
    return bundle.with_image_size(image_size or LARGER * bundle.preprocess.image_size)
