"""What the server does, without HTTP: pictures and texts of many requests through one model, in batches.

The event loop only hands over. Each kind of work has threads of its own, so that none waits for another: the model for
pictures, the model for texts, decoding, drawing, the library, and what is short.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from diptych.classify import readable
from diptych.data.prompts import PLAIN, check_labels, check_templates, fill
from diptych.data.tokenizer import Unread
from diptych.errors import ConfigError, DiptychError, ImageError, TextError
from diptych.search.filters import Filters
from diptych.search.query import weighted_sum
from diptych.serve.batcher import Batcher
from diptych.serve.data_urls import is_url
from diptych.serve.decode import decode_picture
from diptych.serve.gallery import LARGE, Gallery
from diptych.serve.labels import KnownTexts, probabilities
from diptych.serve.limits import Limits
from diptych.serve.monitor import Monitor
from diptych.serve.refusals import RefusedError
from diptych.serve.workers import Workers
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.golden import GOLDEN_TOLERANCE, golden_picture

T = TypeVar("T")
Fetch = Callable[[str], Awaitable[bytes]]

_HEALTH_SECONDS = 1.0  # one answer of /health holds so long
_CHARACTERS = 50_000  # tokenized at once: what is too long for the model takes hundreds of bytes a character on the way
_FILES = 8  # behind URLs, that are fetched or wait for their decoding: each may be as large as a body
_LAST = 5.0  # s that work in hand has to end when the service is closed


@dataclass(frozen=True)
class Picture:
    """A picture of a request: a data URL, base64, or a URL."""

    source: str
    where: str = "image"  # what the request calls it, for messages


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Features of texts, and what the tokenizer made of them."""

    features: np.ndarray  # [N, D] float32, unit length
    tokens: int  # of all texts, start and end included
    unread: Sequence[Unread] = ()  # those of which the tokenizer does not know all words


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Probabilities of labels, the best first, and labels of which the model does not read all."""

    probabilities: Mapping[str, float]
    unread: Sequence[Unread]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Facts of pictures that were found, the best first, and what of the question the model does not read."""

    pictures: list[dict[str, Any]]
    unread: Sequence[Unread] = ()


class Service:
    """One model at work for many clients. Belongs to one event loop.

    Args:
        bundle: the model; nobody else may use it meanwhile.
        name: what the model is called.
        limits: how much it takes on.
        gallery: pictures to search; without it a search is refused.
        others: further pictures that can be shown.
        fetch: gives the file behind a URL; without it URLs are refused.
        monitor: counts.
    """

    def __init__(
        self,
        bundle: DualEncoder,
        *,
        name: str,
        limits: Limits | None = None,
        gallery: Gallery | None = None,
        others: Sequence[Gallery] = (),
        fetch: Fetch | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self.bundle = bundle
        self.name = name
        self.limits = limits or Limits()
        self.monitor = monitor or Monitor()
        self.gallery = gallery
        self.galleries = [*([] if gallery is None else [gallery]), *others]
        self._fetch = fetch
        self.started = int(time.time())  # s since 1970
        bundle.prepare_to_share()  # two threads use it
        self._preprocess = dataclasses.replace(bundle.preprocess, max_pixels=self.limits.pixels)
        self._files = asyncio.Semaphore(_FILES)
        seconds = self.limits.work_seconds
        self._image_model = Workers(1, name="diptych-images")
        self._text_model = Workers(1, name="diptych-texts")
        self._decoders = Workers(self.limits.decoders, name="diptych-decode", seconds=seconds)
        self._drawers = Workers(self.limits.decoders, name="diptych-draw", seconds=seconds)
        self._searchers = Workers(self.limits.decoders, name="diptych-search", seconds=seconds)
        self.short = Workers(self.limits.decoders, name="diptych-short", seconds=seconds)
        self._images = Batcher(
            self._encode_pixels,
            executor=self._image_model,
            max_batch=self.limits.batch,
            max_delay=self.limits.delay,
            max_places=self.limits.pictures_waiting,
            on_batch=lambda size, seconds: self._count_batch("picture", size, seconds),
        )
        self._texts = Batcher(
            self._encode_texts,
            executor=self._text_model,
            max_batch=self.limits.text_batch,
            max_delay=self.limits.delay,
            max_places=self.limits.texts_waiting,
            on_batch=lambda size, seconds: self._count_batch("text", size, seconds),
        )
        self._golden = bundle.encode_images([golden_picture()])  # [1, D], as it was at the start
        self._health: asyncio.Task[str] | None = None
        self._health_until = 0.0
        self.pictures_found = None if gallery is None else 0  # in the library, when it was last looked at
        for kind, batcher in (("picture", self._images), ("text", self._texts)):
            self.monitor.waiting.labels(kind).set_function(lambda batcher=batcher: batcher.places_taken)

    def close(self) -> bool:
        """Let go of the threads, once the requests in hand are answered. Whether all of them ended in time."""
        kinds = (self._image_model, self._text_model, self._decoders, self._drawers, self._searchers, self.short)
        end = time.monotonic() + _LAST
        have_ended = [workers.close(max(0.0, end - time.monotonic())) for workers in kinds]
        return all(have_ended)

    async def image_features(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Features of pictures.

        Returns:
            [N, D] float32, unit length.

        Raises:
            ImageError: the first picture that cannot be read; its sentence begins with the picture's place.
            ConfigError: there are too many.
            BusyError: there is no room.
        """
        if not pictures:
            return np.empty((0, self.bundle.embed_dim), np.float32)
        _check_count("pictures", len(pictures), self.limits.pictures)
        # So that one request with many does not put all of them before another's only one.
        turns = asyncio.Semaphore(self.limits.decoders)
        with self._images.places(len(pictures)):
            pixels = await together(*(self._pixels(picture, turns) for picture in pictures))
            return np.stack(await self._images(pixels))

    async def text_features(
        self, texts: Sequence[str], *, truncate: bool = False, must_be_read: bool = False
    ) -> TextFeatures:
        """Features of texts.

        Args:
            texts: what to encode.
            truncate: cut what is too long.
            must_be_read: refuse a text of which the tokenizer knows no word. All such texts have one feature, which
                looks like an answer and is none.

        Raises:
            TextError: a text is too long, or is not read.
            ConfigError: there are too many.
            BusyError: there is no room.
        """
        if not texts:
            return TextFeatures(features=np.empty((0, self.bundle.embed_dim), np.float32), tokens=0)
        self._check_texts(texts)
        with self._texts.places(len(texts)):
            unread = await self.unread(texts)
            if must_be_read and (none := next((text for text in unread if text.is_whole), None)):
                raise TextError(str(none))
            counts = [await self.short(self._count_tokens, part, truncate) for part in _parts(texts)]
            features = np.stack(await self._texts(texts))
        return TextFeatures(features=features, tokens=sum(counts), unread=unread)

    async def classify(self, picture: Picture, labels: Sequence[str], templates: Sequence[str] = PLAIN) -> Shares:
        """Probabilities of labels for one picture, as `ZeroShotClassifier` gives them.

        Raises:
            DataError: labels or templates are not valid, or the picture cannot be read.
            TextError: the model reads none of the labels, or cannot tell two apart as it reads neither.
            ConfigError: there are too many.
            BusyError: there is no room.
        """
        _check_count("labels times templates", len(labels) * len(templates), self.limits.texts)
        if labels and templates:  # before each is put into each
            self._check_length(max(map(len, labels)) + max(map(len, templates)))
        labels, templates = check_labels(labels), check_templates(templates)
        texts = list(dict.fromkeys(text for label in labels for text in fill(templates, label)))
        self._check_texts(texts)  # each label is within one of them
        unread = await self.unread(labels)
        readable(KnownTexts(self.bundle, {}, unread), labels)  # before the picture is looked at
        of_picture, of_texts = await together(self.image_features([picture]), self.text_features(texts))
        features = dict(zip(texts, of_texts.features, strict=True))
        known = KnownTexts(self.bundle, features, unread)
        shares = await self._text_model(probabilities, known, labels, templates, of_picture)
        best_first = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
        return Shares(probabilities=dict(best_first), unread=unread)

    async def search(
        self,
        *,
        text: str | None = None,
        picture: Picture | None = None,
        like: str | None = None,
        without: str | None = None,
        count: int = 20,
        filters: Filters | None = None,
    ) -> Answer:
        """The pictures nearest to what is given, text and picture added up.

        Text is words and nothing else: it is never read as the name of a file.

        Args:
            text: words.
            picture: a picture.
            like: the id of a picture that was found before; goes by itself.
            without: words that are taken away.
            count: at most so many.
            filters: as the library takes them.

        Raises:
            RefusedError: there is no library, or no such id.
            ConfigError: nothing is given, or it cancels out, or count is too large.
            DataError: the picture or a text cannot be used.
            TextError: the model reads nothing of a text.
            BusyError: there is no room.
        """
        gallery = self._gallery()
        if count > self.limits.results:
            raise ConfigError(f"count must be at most {self.limits.results:,}. Got {count:,}.")
        if like is not None:
            if text is not None or picture is not None or without is not None:
                raise ConfigError("like goes by itself: leave out text, image and without.")
            return Answer(pictures=await self.in_library(gallery.like, like, count, filters))
        if text is not None and not text.strip():
            raise ConfigError("text must hold words, and is empty. Leave it out to search by a picture alone.")
        if without is not None and not without.strip():
            raise ConfigError("without must hold words, and is empty. Leave it out to take nothing away.")
        texts = [one for one in (text, without) if one is not None]
        of_texts, of_picture = await together(
            self.text_features(texts, must_be_read=True), self.image_features([] if picture is None else [picture])
        )
        of_text, taken_away = np.split(of_texts.features, [len(texts) - (without is not None)])
        if not len(of_text) and not len(of_picture):
            raise ConfigError("a search needs something to look for: text, image or like.")
        parts = ((1.0, of_text), (1.0, of_picture), (-1.0, taken_away))
        wanted = weighted_sum([([weight] * len(rows), rows) for weight, rows in parts])
        found = await self.in_library(gallery.search, wanted, count, filters)
        return Answer(pictures=found, unread=of_texts.unread)

    async def draw(self, id_: str, side: int, seconds: float | None = None) -> bytes:
        """A JPEG of a picture of a library; see `Gallery.draw`.

        Raises:
            RefusedError: there is no such picture, or it cannot be read in time.
        """
        try:
            return await self._drawers(lambda: self.gallery_of(id_).draw(id_, side, seconds))
        except TimeoutError:
            raise _late("the picture") from None

    async def why(self, id_: str, text: str) -> bytes:
        """A JPEG of a picture that was found, under the map of some words; see `Gallery.why`.

        Raises:
            RefusedError: there is no such picture, or it takes too long.
            TextError: the text is too long, or the model reads nothing of it.
        """
        self._check_texts([text])
        try:
            return await self._drawers(lambda: self.gallery_of(id_).why(id_, text, LARGE))
        except TimeoutError:
            raise _late("the map of the picture") from None

    async def in_library(self, function: Callable[..., T], *arguments: Any) -> T:
        """Look into a library, beside the event loop.

        Raises:
            RefusedError: it takes too long.
        """
        try:
            return await self._searchers(function, *arguments)
        except TimeoutError:
            raise _late("the index of the library") from None

    def _gallery(self) -> Gallery:
        if self.gallery is None:
            raise RefusedError(404, "this server has no library. Start it with --library FOLDER.", "no_library")
        return self.gallery

    def gallery_of(self, id_: str) -> Gallery:
        """The pictures that one of them is of; where none is, those that say so."""
        first = self._gallery()
        return next((gallery for gallery in self.galleries if gallery.knows(id_)), first)

    async def health(self) -> str:
        """Run the model on the golden picture. Empty when it answers as it did at the start, else what is wrong.

        Runs once for all who ask within a second.
        """
        loop = asyncio.get_running_loop()
        if self._health is None or (self._health.done() and loop.time() >= self._health_until):
            self._health = loop.create_task(self._examine())
            self._health_until = loop.time() + _HEALTH_SECONDS
        return await asyncio.shield(self._health)

    async def _examine(self) -> str:
        if self.galleries:
            with contextlib.suppress(DiptychError, TimeoutError):  # then the last number stands
                async with asyncio.timeout(_HEALTH_SECONDS):
                    self.pictures_found = await self._searchers(lambda: sum(map(len, self.galleries)))
        fault = ""
        try:
            async with asyncio.timeout(self.limits.seconds):
                now = await self._image_model(self.bundle.encode_images, [golden_picture()])
            distance = float(np.linalg.norm(now - self._golden))
            if not distance <= GOLDEN_TOLERANCE:  # also when it is no number
                fault = f"the golden picture is {distance:.2g} from where it was at the start"
        except TimeoutError:
            fault = f"no answer within {self.limits.seconds:g} s"
        except Exception as error:
            fault = f"the model failed ({type(error).__name__})"
        self.monitor.health.set(not fault)
        return fault

    async def _pixels(self, picture: Picture, turns: asyncio.Semaphore) -> np.ndarray:
        """[S, S, 3] uint8 of one picture."""
        try:
            if not is_url(picture.source):
                async with turns:
                    return await self._decoders(self._decode, picture.source, picture.where)
            if self._fetch is None:
                sentence = "URLs are not fetched by this server. Send the file itself, as a data URL or base64."
                raise ImageError(f"{picture.where}: {sentence}", "url refused")
            # A file keeps its place until it is decoded, so that no more are in memory than are fetched at once.
            async with turns, self._files:
                file = await self._fetch(picture.source)
                return await self._decoders(self._decode, file, picture.where)
        except TimeoutError:
            seconds = self.limits.work_seconds
            sentence = f"{picture.where} must be decoded within {seconds:g} s, and takes longer. Send it smaller."
            error = ImageError(sentence, "too slow")
        except ImageError as fault:
            error = fault
        self.monitor.bad_pictures.labels(error.cause).inc()
        raise error

    def _decode(self, source: str | bytes, where: str) -> np.ndarray:
        return decode_picture(source, where, self._preprocess)

    def _check_texts(self, texts: Sequence[str]) -> None:
        """Before any of them is tokenized."""
        _check_count("texts", len(texts), self.limits.texts)
        self._check_length(max(map(len, texts)))
        if (length := sum(map(len, texts))) > self.limits.all_characters:
            most = self.limits.all_characters
            raise TextError(f"the texts of a request have at most {most:,} characters. Got {length:,}: send fewer.")

    def _check_length(self, length: int) -> None:
        if length > self.limits.characters:
            raise TextError(f"a text has at most {self.limits.characters:,} characters. Got {length:,}: shorten it.")

    async def unread(self, texts: Sequence[str]) -> list[Unread]:
        """Those of the texts of which the model does not know all words."""
        return [text for part in _parts(texts) for text in await self.short(self.bundle.unread, part)]

    def _count_tokens(self, texts: Sequence[str], truncate: bool) -> int:
        tokenizer = self.bundle.tokenizer
        tokens = tokenizer.encode(texts, truncate=truncate)  # [N, L]
        return int(((tokens == tokenizer.end_token_id).argmax(axis=1) + 1).sum())

    def _encode_pixels(self, pixels: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.bundle.encode_pixels(np.stack(pixels)))

    def _encode_texts(self, texts: list[str]) -> list[np.ndarray]:
        # What is too long was refused before it came here, or may be cut.
        parts = [self.bundle.encode_texts(part, batch_size=len(part), truncate=True) for part in _parts(texts)]
        return list(np.concatenate(parts))

    def _count_batch(self, kind: str, size: int, seconds: float) -> None:
        self.monitor.batch_size.labels(kind).observe(size)
        self.monitor.batch_seconds.labels(kind).observe(seconds)


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results of all; when one fails the others are called off, and its own error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in their order, so few at once that they are short together."""
    part: list[str] = []
    length = 0
    for text in texts:
        if part and length + len(text) > _CHARACTERS:
            yield part
            part, length = [], 0
        part.append(text)
        length += len(text)
    yield part


def _late(what: str) -> RefusedError:
    sentence = f"{what} cannot be read in time: its disk does not answer, or it is very large. Try again later."
    return RefusedError(503, sentence, "timeout", retry_after=10)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise ConfigError(f"a request takes at most {most:,} {what}. Got {count:,}: send them in several.")
