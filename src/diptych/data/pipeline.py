"""Shards to batches, in an order that is a pure function of (seed, epoch, index).

The n-th batch of a run can be asked for directly, so a position is a number: nothing is buffered, nothing is replayed.
grain does the shuffling, mixing, worker threads and prefetching; ours is what happens to one sample.
"""

import collections
import functools
import hashlib
import logging
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.data.augment import Augment
from diptych.data.embedded import data_path
from diptych.data.images import PICTURE_ENDINGS, Preprocess, open_image
from diptych.data.prompts import PLAIN, check_templates, fill
from diptych.data.shards import Sample, ShardSet
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, ImageError, missing_extra

_NO_IMAGES = torch.empty(0, 0, 0, 3, dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where pairs come from, and how often."""

    path: str  # folder of tar shards, or one shard; "embedded:NAME" is a set inside the package
    weight: float = 1.0  # share of the samples drawn, in proportion to the other sources' weights


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is drawn, and what is done to it."""

    sources: tuple[Source, ...]
    templates: tuple[str, ...] = PLAIN  # one is drawn a visit
    first_caption: float = 0.0  # chance of the first caption, the name; the rest is shared evenly by all captions
    max_bad: float = 0.01  # share of bad samples above which the run stops
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if not self.sources or not all(0 < source.weight < math.inf for source in self.sources):
            raise ConfigError("data.sources must name at least one source, each with a weight above 0.")
        if not 0 <= self.first_caption <= 1 or not 0 <= self.max_bad <= 1:
            raise ConfigError(
                "data.first_caption and data.max_bad must lie between 0 and 1. "
                f"Got {self.first_caption} and {self.max_bad}."
            )
        object.__setattr__(self, "templates", check_templates(self.templates))


@dataclass(frozen=True)
class Batch:
    """B pairs; B is smaller than asked for by the number of bad samples, and may be 0."""

    images: Tensor  # [B, S, S, 3] uint8
    tokens: Tensor  # [B, L] int64, L cut to the longest text of the batch
    text_ids: Tensor  # [B] int64, equal for equal captions, also of other batches; case and spaces do not count
    noise: Tensor  # [B] int64, of each pair and visit, for what the model draws at random
    keys: Sequence[str]  # [B], of the samples
    bad: Mapping[str, int]  # samples left out, by cause
    truncated: int  # texts cut to the context length


@dataclass(frozen=True)
class _Pair:
    pixels: np.ndarray  # [S, S, 3] uint8
    caption: str  # before the template: what makes two texts the same
    text: str
    noise: int
    key: str


def pair_sources(config: DataConfig) -> list[ShardSet]:
    """The opened sources of a config.

    Raises:
        ShardError: see `ShardSet`.
    """
    return [ShardSet(data_path(source.path)) for source in config.sources]


def captions_of(sample: Sample) -> list[str]:
    """The captions of a sample, one a line of its `txt` part.

    Raises:
        DataError: there is no caption, or it is not UTF-8; the message is the cause.
    """
    try:
        lines = sample.parts["txt"].decode("utf-8").splitlines()
    except KeyError:
        raise DataError("no caption") from None
    except UnicodeDecodeError:
        raise DataError("caption not UTF-8") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise DataError("no caption")
    return captions


def batches(
    sources: Sequence[ShardSet],
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
) -> Generator[Batch]:
    """Batches number `start` to `stop - 1` of a run. To be closed when it is not read to its end: its threads go on.

    Args:
        sources: the opened sources of `config`, in its order.
        config: what is drawn.
        preprocess: of the model; only its size and resize rule are used, the pictures stay 8 bit.
        tokenizer: of the model.
        batch_size: pairs, bad ones included.
        seed: with the position, decides everything that is random.
        start: number of the first batch, from 0.
        stop: number of the first batch that is not wanted.
        threads: that prepare batches ahead of time; they have no part in what a batch holds.
        part: where several processes share the batches, the number of this one, from 0; it gets that part of each
            batch, and all parts one after the other are the whole batch.
        parts: how many share them; a divisor of `batch_size`.

    Raises:
        MissingExtraError: grain is not installed.
        ShardError: while reading; a shard is missing or damaged.
    """
    grain = _import_grain()
    streams = [
        grain.MapDataset.source(source).seed(seed + number).shuffle().repeat() for number, source in enumerate(sources)
    ]
    mixed = grain.MapDataset.mix(streams, weights=[source.weight for source in config.sources])
    pairs = mixed.seed(seed).random_map(functools.partial(_draw_pair, config=config, preprocess=preprocess))
    wanted = pairs.slice(slice(start * batch_size, stop * batch_size))
    stream = wanted.batch(batch_size // parts, batch_fn=functools.partial(_collate, tokenizer=tokenizer))
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


def _draw_pair(
    sample: Sample, generator: np.random.Generator, *, config: DataConfig, preprocess: Preprocess
) -> _Pair | str:
    """One visit to a sample; a bad one becomes the name of its cause."""
    try:
        captions = captions_of(sample)
        picture = next((content for ending, content in sample.parts.items() if ending in PICTURE_ENDINGS), None)
        if picture is None:
            return "no picture"
        pixels = config.augment(open_image(picture), generator, preprocess)
    except ImageError as error:
        return error.cause
    except DataError as error:
        return str(error)
    first = generator.random() < config.first_caption
    caption = captions[0 if first else generator.integers(len(captions))]
    template = config.templates[generator.integers(len(config.templates))]
    (text,) = fill([template], caption)
    return _Pair(pixels, caption, text, int(generator.integers(2**63)), sample.key)


def _collate(drawn: Sequence[_Pair | str], *, tokenizer: Tokenizer) -> Batch:
    pairs = [pair for pair in drawn if isinstance(pair, _Pair)]
    texts = [pair.text for pair in pairs]
    tokens = tokenizer.encode(texts, truncate=True)
    longest = int((tokens == tokenizer.end_token_id).int().argmax(dim=1).max()) + 1 if pairs else 0
    return Batch(
        images=torch.from_numpy(np.stack([pair.pixels for pair in pairs])) if pairs else _NO_IMAGES,
        tokens=tokens[:, :longest],
        text_ids=torch.tensor([_id_of(pair.caption) for pair in pairs], dtype=torch.int64),
        noise=torch.tensor([pair.noise for pair in pairs], dtype=torch.int64),
        keys=[pair.key for pair in pairs],
        bad=collections.Counter(cause for cause in drawn if isinstance(cause, str)),
        truncated=tokenizer.count_too_long(texts),
    )


def _id_of(caption: str) -> int:
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
