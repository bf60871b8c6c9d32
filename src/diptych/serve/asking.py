"""What a view looks for, as it is typed and clicked, becomes one feature."""

import base64
import io
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diptych.data.tokenizer import Unread
from diptych.errors import ConfigError, ImageError
from diptych.search.query import QueryPart, parts_of, weighted_sum
from diptych.serve.browse import Browser
from diptych.serve.gallery import LARGE
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Picture, Service

_SOUGHT = 256  # pictures that were searched with and are kept as features
_SMALLEST = 0.02  # of a side: less of a picture is a click, not a part


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What a view looks for."""

    query: str = ""  # by the grammar of the command line
    like: str = ""  # the id of a picture of the library
    part: tuple[float, float, float, float] | None = None  # of that: left, top, right, bottom, of its sides
    picture: str = ""  # the token of one that was sent

    def __bool__(self) -> bool:
        return bool(self.query.strip() or self.like or self.picture)


@dataclass(frozen=True, eq=False)
class WantedFeature:
    """What is looked for, for the library."""

    features: np.ndarray  # [D], unit length
    leave_out: int | None  # the number of a picture that is no answer to itself
    unread: Sequence[Unread] = ()


class Asking:
    """Questions of a page, and pictures that it sent, whose features are kept under tokens for links and reloads.

    Args:
        service: encodes.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sent: OrderedDict[str, np.ndarray] = OrderedDict()

    async def keep(self, picture: str) -> str:
        """A token that stands for a picture, a data URL or base64; the picture itself is not kept.

        Raises:
            ImageError: it cannot be read.
        """
        [features] = await self._service.image_features([Picture(picture)])
        token = secrets.token_urlsafe(9)
        self._sent[token] = features
        while len(self._sent) > _SOUGHT:
            self._sent.popitem(last=False)
        return token

    async def wanted(self, browser: Browser, sought: Sought) -> WantedFeature:
        """Its feature.

        Raises:
            ConfigError: the query is not valid, or its terms cancel out.
            RefusedError: there is no such picture.
            TextError: the model reads nothing of a text, or it is too long.
        """
        parts: list[tuple[Sequence[float], np.ndarray]] = []
        terms = await self.terms(browser, sought.query) if sought.query.strip() else []
        if not (sought.like or sought.picture) and not any(term.weight > 0 for term in terms):
            raise ConfigError("a query must look for something: words or a picture with a weight above 0.")
        texts = [term for term in terms if not term.is_picture]
        of_texts = await self._service.text_features([term.item for term in texts], must_be_read=True)
        if texts:
            parts.append(([self._service.bundle.text_weight * term.weight for term in texts], of_texts.features))
        parts += [([term.weight], await self._named(browser, term.item)) for term in terms if term.is_picture]
        leave_out = None
        if sought.like:
            leave_out = await self._service.in_library(browser.number_of, sought.like)
            parts.append(([1.0], await self._like(browser, sought, leave_out)))
        if sought.picture:
            if (features := self._sent.get(sought.picture)) is None:
                sentence = "the picture that was searched with is no longer known here. Drop it again."
                raise RefusedError(404, sentence, "picture_not_found")
            parts.append(([1.0], features[None]))
        return WantedFeature(weighted_sum(parts), leave_out, of_texts.unread)

    async def terms(self, browser: Browser, query: str) -> list[QueryPart]:
        """How a query is read; an item that names a picture of the library is one.

        Raises:
            ConfigError: it is not valid.
        """
        if len(query) > self._service.limits.characters:
            raise ConfigError(f"a query has at most {self._service.limits.characters:,} characters.")

        def is_picture(item: str) -> bool:
            return "." in item and browser.named(item) is not None

        return await self._service.in_library(lambda: parts_of(query, is_picture=is_picture))

    async def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the model does not know."""
        words = list(dict.fromkeys(text.split()))
        unread = await self._service.unread(words) if words else []
        return [one.text for one in unread if one.is_whole]

    async def _named(self, browser: Browser, name: str) -> np.ndarray:
        """[1, D] of a picture of the library by its name."""
        number = await self._service.in_library(browser.named, name)
        if number is None:
            raise ConfigError(f'{name[:100]} must be a picture of the library. For the words, write "{name[:100]}".')
        return (await self._service.in_library(browser.library.features_of, number))[None]

    async def _like(self, browser: Browser, sought: Sought, number: int) -> np.ndarray:
        """[1, D] of a picture of the library, or of a part of it."""
        if sought.part is None:
            return (await self._service.in_library(browser.library.features_of, number))[None]
        jpeg = await self._service.draw(sought.like, LARGE)
        pixels = await self._service.short(_cut, jpeg, sought.part)
        return await self._service.image_features([Picture(pixels)])


def _cut(jpeg: bytes, part: tuple[float, float, float, float]) -> str:
    """A part of a picture, as base64."""
    left, top, right, bottom = part
    if right - left < _SMALLEST or bottom - top < _SMALLEST:
        raise ImageError("a part of a picture must be larger than that. Draw it anew.", "too small")
    with Image.open(io.BytesIO(jpeg)) as image:
        width, height = image.size
        box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
        file = io.BytesIO()
        image.crop(box).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
