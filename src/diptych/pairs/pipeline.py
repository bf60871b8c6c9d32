"""Pairs to batches, in an order that is a pure function of (seed, epoch, index).

The n-th batch of a run can be asked for directly, so a position is a number: nothing is buffered, nothing is replayed.
grain does the shuffling, mixing, worker threads and prefetching; ours is what happens to one sample.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import logging
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diptych.data.images import Preprocess, open_image
from diptych.data.prompts import PLAIN, check_templates, fill
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, ImageError, ShardError, missing_extra
from diptych.outside import check_has
from diptych.pairs.augment import Augment
from diptych.pairs.lengths import DrawnLengths
from diptych.pairs.order import WindowedOrder, drawn_with_replacement
from diptych.pairs.remote import RemoteConfig
from diptych.pairs.samples import Sample, captions_of
from diptych.pairs.shards import ShardSet
from diptych.pairs.sources import Pairs, Source, open_pairs
from diptych.pairs.teacher import Teacher

_NO_IMAGES = torch.empty(0, 0, 0, 3, dtype=torch.uint8)
_LARGEST_SHUFFLE = 2**32  # samples; grain counts in 32 bits


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is drawn, and what is done to it."""

    sources: tuple[Source, ...]
    templates: tuple[str, ...] = PLAIN  # one is drawn a visit
    first_caption: float = 0.0  # chance of the first caption, the name; the rest is shared evenly by all captions
    # Of a NaFlex tower: patches of a picture, one length drawn a batch; none: those of the model's own image_size. The
    # batch has as many patches as train.batch_size pictures of the longest, so shorter ones come with more pairs.
    sequence_lengths: tuple[int, ...] = ()
    max_bad: float = 0.01  # share of bad samples above which the run stops
    verify: bool = True  # whether the SHA-256 that a manifest lists is looked at, once a shard and run
    augment: Augment = field(default_factory=Augment)  # or of a kind of yours, see docs/how-to/extend.md
    remote: RemoteConfig = field(default_factory=RemoteConfig)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("data.sources must name at least one source.")
        if min(self.sequence_lengths, default=1) < 1:
            lengths = ", ".join(map(str, self.sequence_lengths))
            raise ConfigError(f"data.sequence_lengths must be at least 1 patch each. Got {lengths}.")
        for name in ("teacher_images", "teacher_texts"):
            if len({bool(getattr(source, name)) for source in self.sources}) > 1:
                raise ConfigError(f"data.sources must name {name} for each source, or for none.")
        if not 0 <= self.first_caption <= 1 or not 0 <= self.max_bad <= 1:
            raise ConfigError(
                "data.first_caption and data.max_bad must lie between 0 and 1. "
                f"Got {self.first_caption} and {self.max_bad}."
            )
        check_has(self.augment, ("__call__", "is_fixed"), "data.augment")
        object.__setattr__(self, "templates", check_templates(self.templates))


@dataclass(frozen=True)
class Batch:
    """B pairs; B is smaller than asked for by the number of bad samples, and may be 0."""

    images: Tensor  # [B, S, S, 3] uint8; or [B, N, 2 + 3 p^2] of pictures that keep their shape, a row for each patch
    tokens: Tensor  # [B, L] int64, L the context length, or cut to the longest text of the batch
    text_ids: Tensor  # [B] int64, equal for equal captions, also of other batches; case and spaces do not count
    noise: Tensor  # [B] int64, of each pair and visit, for what the model draws at random
    keys: Sequence[str]  # [B], of the samples
    bad: Mapping[str, int]  # samples left out, by cause
    truncated: int  # texts cut to the context length
    teacher_image_features: Tensor | None = None  # [B, D of the teacher] float32, unit length
    teacher_text_features: Tensor | None = None  # likewise, of the captions before the template
    seconds: Mapping[str, float] = field(default_factory=dict)  # that threads took for it, see `_Drawn`; no two alike


@dataclass(frozen=True)
class SourceShare:
    """What a run takes from one source."""

    path: str
    samples: int  # in the source
    drawn: int  # samples, bad ones included
    epochs: float  # drawn / samples; with replacement, the mean number of draws of a sample


@dataclass(frozen=True)
class _Visit:
    source: int  # its number
    epoch: int  # of the source; 0 where it has none
    sample: Sample | str  # or the cause why it could not be read
    read: float  # seconds until it was there
    length: int = 0  # patches of its picture, where that is drawn


@dataclass(frozen=True)
class _Pair:
    pixels: np.ndarray  # as `Preprocess.pixels` gives them
    caption: str  # before the template: what makes two texts the same
    text: str
    noise: int
    key: str
    teacher_image: np.ndarray | None  # [D]
    teacher_text: np.ndarray | None


class _Drawn(NamedTuple):
    """One visit to a sample, with what it took: nothing but a measurement reads these."""

    pair: _Pair | str  # or the cause why there is none
    read: float  # seconds of waiting for the bytes
    decode: float  # seconds of a core, for all the rest


def pair_sources(config: DataConfig) -> list[Pairs]:
    """The opened sources of a config.

    Raises:
        ConfigError, DataError, MissingExtraError: see `open_pairs`.
    """
    return [
        open_pairs(source, max_bad=config.max_bad, remote=config.remote, verify=config.verify)
        for source in config.sources
    ]


def source_shares(sources: Sequence[Pairs], config: DataConfig, *, drawn: int) -> list[SourceShare]:
    """How many of the first samples of a run come from each source, exactly.

    An epoch belongs to a source: once through all its samples, in one order. A mixture has none; it goes on for as
    many samples as it is asked for.

    Args:
        sources: the opened sources of `config`, in its order.
        config: what is drawn.
        drawn: samples of the run: steps x batch size.

    Raises:
        MissingExtraError: grain is not installed.
    """
    grain = _import_grain()
    streams = [
        grain.MapDataset.range(sys.maxsize).map(lambda position, n=number: (n, position + 1))
        for number in range(len(sources))
    ]
    mixed = _mixed(grain, streams, config)
    counts = dict.fromkeys(range(len(sources)), 0)
    missing = set(counts)
    # The last sample of a source tells how many came before it, and no source waits longer for its turn than this.
    weights = [source.weight for source in config.sources]
    farthest = math.ceil(4 * sum(weights) / min(weights))
    for position in reversed(range(max(0, drawn - farthest), drawn)):
        number, count = mixed[position]
        if number in missing:
            counts[number] = count
            missing.remove(number)
            if not missing:
                break
    return [
        SourceShare(source.path, len(pairs), counts[number], counts[number] / len(pairs))
        for number, (pairs, source) in enumerate(zip(sources, config.sources, strict=True))
    ]


def vocabulary_texts(sources: Sequence[Pairs], config: DataConfig) -> Iterator[str]:
    """Each caption in each template of its source, for a tokenizer to learn from; no picture is read.

    Samples that cannot be used are passed over: they are counted when they are drawn.
    """
    for pairs, source in zip(sources, config.sources, strict=True):
        for index in range(len(pairs)):
            try:
                captions = pairs.captions(index)
            except DataError:
                continue
            for caption in captions:
                yield from fill(source.templates or config.templates, caption)


def batches(
    sources: Sequence[Pairs],
    config: DataConfig,
    *,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    threads: int = 1,
    part: int = 0,
    parts: int = 1,
    cut_tokens: bool = True,
) -> Generator[Batch]:
    """Batches number `start` to `stop - 1` of a run. To be closed when it is not read to its end: its threads go on.

    With `config.sequence_lengths` the pictures of a batch have one drawn number of patches, and the batch as many pairs
    as fill the budget of patches, in parts as even as they can be.

    Args:
        sources: the opened sources of `config`, in its order.
        config: what is drawn.
        preprocess: of the model; only its size and resize rule are used, the pictures stay 8 bit.
        tokenizer: of the model.
        batch_size: pairs, bad ones included; of drawn lengths at the longest.
        seed: with the position, decides everything that is random.
        start: number of the first batch, from 0.
        stop: number of the first batch that is not wanted.
        threads: that prepare batches ahead of time; they have no part in what a batch holds.
        part: where several processes share the batches, the number of this one, from 0; it gets that part of each
            batch, and all parts one after the other are the whole batch.
        parts: how many share them; a divisor of `batch_size`.
        cut_tokens: to the longest text of the batch, which costs less; not for a text tower that reads the padding,
            as SigLIP's does.

    Raises:
        ConfigError: a source is too large for its kind of shuffle.
        DataError: stored features of a teacher cannot be read.
        MissingExtraError: grain is not installed.
    """
    grain = _import_grain()
    streams = [_visits(grain, pairs, config, number, seed) for number, pairs in enumerate(sources)]
    drawing = _Drawing(config, preprocess)
    collate = functools.partial(_collate, tokenizer=tokenizer, cut_tokens=cut_tokens)
    mixed = _mixed(grain, streams, config)
    if config.sequence_lengths:
        drawn = DrawnLengths(config.sequence_lengths, batch_size=batch_size, seed=seed, stop=stop)

        def with_length(position: int, visit: _Visit) -> _Visit:
            return dataclasses.replace(visit, length=drawn.of_sample(position))

        # The samples behind the last batch are nobody's, but they have no length either.
        ours = mixed.slice(slice(0, drawn.samples(stop - 1).stop)).map_with_index(with_length)
        pairs = ours.seed(seed).random_map(drawing.draw)
        stream = grain.MapDataset.range(start, stop).map(
            lambda number: collate([pairs[position] for position in drawn.samples(number, part=part, parts=parts)])
        )
    else:
        pairs = mixed.seed(seed).random_map(drawing.draw)
        wanted = pairs.slice(slice(start * batch_size, stop * batch_size))
        stream = wanted.batch(batch_size // parts, batch_fn=collate)
        if parts > 1:
            stream = stream.slice(slice(part, None, parts))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return _closing(iter(stream.to_iter_dataset(options)))


def _closing(stream: Any) -> Generator[Batch]:
    try:
        yield from stream
    finally:
        stream.close()


def _import_grain() -> Any:
    absl = logging.getLogger("absl")
    absl.addFilter(_is_not_about_jax)
    try:
        import grain
    except ImportError:
        raise missing_extra("training", "train", "Classifying, searching and measuring work without it.") from None
    finally:
        absl.removeFilter(_is_not_about_jax)
    return grain


def _is_not_about_jax(record: logging.LogRecord) -> bool:
    return "jax" not in record.getMessage()  # grain warns on import that it is not installed; nobody asked for it


def _mixed(grain: Any, streams: Sequence[Any], config: DataConfig) -> Any:
    return grain.MapDataset.mix(streams, weights=[source.weight for source in config.sources])


def _visits(grain: Any, pairs: Pairs, config: DataConfig, number: int, seed: int) -> Any:
    """The endless stream of visits to one source's samples."""
    source, count = config.sources[number], len(pairs)
    endless = grain.MapDataset.range(sys.maxsize)
    if source.replace:
        order = endless.map(lambda position: drawn_with_replacement(position, count=count, seed=seed + number))
    elif source.shuffle_shards:
        ahead: Callable[[Sequence[int]], None] = pairs.fetch_ahead if isinstance(pairs, ShardSet) else lambda _: None
        order = endless.map(
            WindowedOrder(pairs.shard_ends, window=source.shuffle_shards, seed=seed + number, on_window=ahead)
        )
    elif count > _LARGEST_SHUFFLE:
        raise ConfigError(
            f"{source.path} must be shuffled some shards at a time (shuffle_shards) or drawn with replacement: it has "
            f"{count:,} samples, and {_LARGEST_SHUFFLE:,} at most are shuffled together."
        )
    else:
        order = grain.MapDataset.range(count).seed(seed + number).shuffle().repeat()

    def visit(position: int, index: int) -> _Visit:
        epoch = 0 if source.replace else position // count
        start = time.perf_counter()
        try:
            sample = pairs[index]
        except DataError as error:
            sample = _cause(error)
        return _Visit(number, epoch, sample, time.perf_counter() - start)

    return order.map_with_index(visit)


def _cause(error: DataError) -> str:
    return error.cause if isinstance(error, ImageError | ShardError) else str(error)


class _Drawing:
    """From a visit to a pair: which caption, which template, which crop."""

    def __init__(self, config: DataConfig, preprocess: Preprocess) -> None:
        self._config = config
        self._preprocess = preprocess
        self._at_length = {
            length: dataclasses.replace(preprocess, max_patches=length) for length in config.sequence_lengths
        }
        self._image_teachers = [
            Teacher(source.teacher_images, member="teacher-image.npy", folder=source.path)
            for source in config.sources
            if source.teacher_images
        ]
        self._text_teachers = [
            Teacher(source.teacher_texts, member="teacher-text.npy")
            for source in config.sources
            if source.teacher_texts
        ]

    def draw(self, visit: _Visit, generator: np.random.Generator) -> _Drawn:
        """One visit to a sample."""
        start = time.thread_time()
        pair = self._pair(visit, generator)
        return _Drawn(pair, visit.read, time.thread_time() - start)

    def _pair(self, visit: _Visit, generator: np.random.Generator) -> _Pair | str:
        sample, config = visit.sample, self._config
        if isinstance(sample, str):
            return sample
        try:
            captions = captions_of(sample)
            picture = sample.picture
            if picture is None:
                return "no picture"
            preprocess = self._at_length.get(visit.length, self._preprocess)
            pixels = config.augment(open_image(picture, max_pixels=preprocess.max_pixels), generator, preprocess)
            got = f"{list(pixels.shape)} {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            if got != (wanted := f"{list(preprocess.shape)} uint8"):
                letters = "[N, 2 + 3 p^2]" if preprocess.row_width else "[S, S, 3]"
                raise ConfigError(f"data.augment must return {letters} = {wanted}. Got {got}.")
            number, caption = self._choose(captions, visit, generator)
            templates = config.sources[visit.source].templates or config.templates
            template = templates[generator.integers(len(templates))]
            noise = int(generator.integers(2**63))
            image = text = None
            if self._image_teachers:
                image = self._image_teachers[visit.source].features(sample, sample.key, 0)
            if self._text_teachers:
                text = self._text_teachers[visit.source].features(sample, caption, number)
        except DataError as error:
            return _cause(error)
        (filled,) = fill([template], caption)
        return _Pair(pixels, caption, filled, noise, sample.key, image, text)

    def _choose(self, captions: Sequence[str], visit: _Visit, generator: np.random.Generator) -> tuple[int | None, str]:
        """A caption and its number; several have none."""
        how = self._config.sources[visit.source].captions
        if how == "join":
            return None, ". ".join(captions)
        if how == "turns":
            number = visit.epoch % len(captions)
        elif how == "first" or generator.random() < self._config.first_caption:
            number = 0
        else:
            number = int(generator.integers(len(captions)))
        return number, captions[number]


def _collate(drawn: Sequence[_Drawn], *, tokenizer: Tokenizer, cut_tokens: bool) -> Batch:
    pairs = [one.pair for one in drawn if isinstance(one.pair, _Pair)]
    texts = [pair.text for pair in pairs]
    tokens = tokenizer.encode(texts, truncate=True)  # [B, L]
    # Only these may have been cut: the end token keeps the last place. The others are not tokenised a second time.
    full = itertools.compress(texts, (tokens[:, -1] == tokenizer.end_token_id).tolist())
    truncated = tokenizer.count_too_long(list(full))
    if cut_tokens:
        longest = int((tokens == tokenizer.end_token_id).argmax(axis=1).max()) + 1 if pairs else 0
        tokens = tokens[:, :longest]
    return Batch(
        images=torch.from_numpy(np.stack([pair.pixels for pair in pairs])) if pairs else _NO_IMAGES,
        tokens=torch.from_numpy(tokens),
        text_ids=torch.tensor([_id_of(pair.caption) for pair in pairs], dtype=torch.int64),
        noise=torch.tensor([pair.noise for pair in pairs], dtype=torch.int64),
        keys=[pair.key for pair in pairs],
        bad=collections.Counter(one.pair for one in drawn if isinstance(one.pair, str)),
        truncated=truncated,
        teacher_image_features=_stacked([pair.teacher_image for pair in pairs]),
        teacher_text_features=_stacked([pair.teacher_text for pair in pairs]),
        seconds={"read": sum(one.read for one in drawn), "decode": sum(one.decode for one in drawn)},
    )


def _stacked(rows: Sequence[np.ndarray | None]) -> Tensor | None:
    there = [row for row in rows if row is not None]
    if not there:
        return None
    if len({len(row) for row in there}) > 1:
        widths = ", ".join(map(str, sorted({len(row) for row in there})))
        raise DataError(f"teacher features must be of one teacher in all sources. Their widths are {widths}.")
    return torch.from_numpy(np.stack(there))


def _id_of(caption: str) -> int:
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
