"""Pictures are decoded ahead of the model: on threads, in order, and never more than fit."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

from diptych.errors import ConfigError, ImageError
from diptych.runtime import usable_cores

T = TypeVar("T")
R = TypeVar("R")

MOST_PIXELS = 100_000_000  # decoded that wait to be taken: 300 to 400 MB, and of one picture whatever it has


def pixels_of(decoded: object) -> int:
    """How many pixels a Pillow image or an [H, W, 3] array has; none of anything else, an error for one."""
    if isinstance(decoded, Image.Image):
        return decoded.width * decoded.height
    return decoded.shape[0] * decoded.shape[1] if isinstance(decoded, np.ndarray) else 0


@contextlib.contextmanager
def decoded_ahead(
    decode: Callable[[T], R], items: Iterable[T], batch_size: int, *, pixels: Callable[[R], int] = pixels_of
) -> Iterator[Iterator[R]]:
    """What becomes of each item, in the order of the items, made on threads while the caller works on those before.

    There are as many threads as cores that this process may use. At most `batch_size` results wait, and no item is
    begun while those that wait and those in work, each counted as the largest so far, hold `MOST_PIXELS`. Leaving the
    `with` ends the threads, however it is left.

    An exception of `decode` is raised in the place of its result, and ends all; with `or_error` a picture that cannot
    be read is a result like others.

    Args:
        decode: safe to call from several threads.
        items: asked for from the caller's thread, a little ahead.
        batch_size: results that the caller works on at a time.
        pixels: of a result; the same for each call with it.

    Raises:
        ConfigError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Got {batch_size}.")
    room = _Room()
    pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="diptych-ahead")

    def work(number: int, item: T) -> tuple[R, int]:
        room.begin(number)
        used = 0
        try:
            result = decode(item)
            used = pixels(result)
            return result, used
        finally:
            room.end(used)

    def in_order() -> Iterator[R]:
        waiting: deque[Future[tuple[R, int]]] = deque()

        def take() -> R:
            result, used = waiting.popleft().result()
            room.taken(used)
            return result

        for number, item in enumerate(items):
            waiting.append(pool.submit(work, number, item))
            if len(waiting) > batch_size:
                yield take()
        while waiting:
            yield take()

    try:
        yield in_order()
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)


def or_error(decode: Callable[[T], R]) -> Callable[[T], R | ImageError]:
    """The same function, with the error of a picture that cannot be read as its result."""

    def tried(item: T) -> R | ImageError:
        try:
            return decode(item)
        except ImageError as error:
            return error

    return tried


def batched(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Items by so many; the last batch may be smaller."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Room:
    """How many pixels are decoded and not taken yet, and who may begin."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0  # pixels
        self._in_work = 0  # items
        self._largest = 0  # pixels of one result so far
        self._begun = 0  # items
        self._is_closed = False

    def begin(self, number: int) -> None:
        """Wait until an item may be begun."""

        def may_begin() -> bool:
            # One after the other: if the item that is taken next waited while those behind it fill the room, it would
            # wait for ever. When it is its turn, and none is left from before, there is room whatever its size.
            used = self._waiting + self._in_work * self._largest
            return self._is_closed or (number == self._begun and used < MOST_PIXELS)

        with self._changed:
            self._changed.wait_for(may_begin)
            if self._is_closed:
                raise CancelledError
            self._begun += 1
            self._in_work += 1
            self._changed.notify_all()

    def end(self, pixels: int) -> None:
        """An item is decoded, and waits to be taken."""
        with self._changed:
            self._in_work -= 1
            self._waiting += pixels
            self._largest = max(self._largest, pixels)
            self._changed.notify_all()

    def taken(self, pixels: int) -> None:
        """A result went to the caller."""
        with self._changed:
            self._waiting -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer, and nobody begins."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
