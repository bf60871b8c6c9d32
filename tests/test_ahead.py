import contextlib
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from diptych.data import ahead
from diptych.data.ahead import batched, decoded_ahead, or_error, pixels_of
from diptych.errors import ConfigError, DataError, ImageError

THREADS = 4


@pytest.fixture(autouse=True)
def four_threads(monkeypatch) -> None:
    """Whatever the machine: order and bounds must hold where several are at work."""
    monkeypatch.setattr(ahead, "usable_cores", lambda: THREADS)


class Decoder:
    """A picture is a number, and its result as well; what was begun and what is in work is counted."""

    def __init__(self, pixels: int = 0) -> None:
        self.pixels = pixels
        self.begun: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self._lock:
            self.begun.append(item)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(0.002 if item % 3 else 0.006)  # those behind are often ready first
        with self._lock:
            self._at_once -= 1
        return item

    def pixels_of(self, item: int) -> int:
        return self.pixels

    def settled(self) -> int:
        """How many were begun, once the threads have come to rest."""
        before = -1
        while before != len(self.begun):
            before = len(self.begun)
            time.sleep(0.05)
        return before


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("diptych-ahead")]


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first():
    decode = Decoder()
    with decoded_ahead(decode, range(60), 8) as results:
        assert list(results) == list(range(60))
    assert sorted(decode.begun) == list(range(60))


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_a_slow_caller_never_has_more_than_a_batch_decoded_ahead_of_it(batch_size):
    decode = Decoder()
    with decoded_ahead(decode, range(30), batch_size) as results:
        for taken in range(1, 6):
            next(results)
            assert decode.settled() == taken + batch_size  # not fewer either: the threads work while the caller does


def test_no_more_pixels_wait_than_fit_and_large_pictures_still_come(monkeypatch):
    monkeypatch.setattr(ahead, "MOST_PIXELS", 100)
    decode = Decoder(pixels=40)
    with decoded_ahead(decode, range(30), 20, pixels=decode.pixels_of) as results:
        next(results)
        # The first few are begun before it is known how large one is; from there on three fill the room.
        assert decode.settled() <= 1 + THREADS
        for taken in range(2, 10):
            next(results)
            assert decode.settled() - taken <= max(3, THREADS + 1 - taken)
    huge = Decoder(pixels=10**9)
    with decoded_ahead(huge, range(12), 20, pixels=huge.pixels_of) as results:
        assert list(results) == list(range(12))


def test_there_are_as_many_threads_as_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(ahead, "usable_cores", lambda: 2)
    decode = Decoder()
    with decoded_ahead(decode, range(30), 16) as results:
        list(results)
    assert decode.most_at_once <= 2
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.undo()
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
        assert ahead.usable_cores() == 1


@pytest.mark.parametrize("way", ["break", "raise", "end", "unused"])
def test_no_thread_is_left_however_the_caller_leaves(way):
    class LeftError(Exception):
        pass

    def use(results: Iterator[int]) -> None:
        if way == "unused":
            return
        for item in results:
            if item == 3 and way == "break":
                break
            if item == 3 and way == "raise":
                raise LeftError

    decode = Decoder(pixels=10**9)  # the others wait for room
    # The traceback of what is raised, and so the frames of the loop, lives on while `pytest.raises` holds it.
    with pytest.raises(LeftError) if way == "raise" else contextlib.nullcontext():
        with decoded_ahead(decode, range(100), 50, pixels=decode.pixels_of) as results:
            use(results)
        assert ours() == []
    assert ours() == []
    assert len(decode.begun) == 100 if way == "end" else len(decode.begun) < 20


def picture(item: int) -> int:
    if item % 4 == 1:
        raise ImageError(f"{item} is bad", "truncated")
    return item


def test_the_error_of_a_picture_is_a_value_and_the_others_go_on():
    with decoded_ahead(or_error(picture), range(10), 3) as results:
        found = list(results)
    assert [item if isinstance(item, int) else item.cause for item in found] == [
        *(0, "truncated", 2, 3, 4, "truncated", 6, 7, 8, "truncated")
    ]


def test_any_other_error_is_raised_in_its_place_and_ends_all():
    def decode(item: int) -> int:
        if item == 5:
            raise DataError("the shard is gone")
        return item

    taken: list[int | ImageError] = []
    with pytest.raises(DataError, match="the shard is gone"), decoded_ahead(or_error(decode), range(50), 4) as results:
        taken.extend(item for item in results)
    assert taken == [0, 1, 2, 3, 4]
    assert ours() == []


def test_pixels_are_those_of_pictures_and_squares():
    assert pixels_of(Image.new("RGB", (30, 20))) == 600
    assert pixels_of(np.zeros((8, 8, 3), np.uint8)) == 64
    assert pixels_of(ImageError("bad")) == pixels_of(None) == 0


def test_batches_hold_every_item_once_and_the_last_may_be_smaller():
    assert list(batched(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched((), 3)) == []


def test_a_batch_holds_at_least_one():
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1\. Got 0"), decoded_ahead(abs, [1], 0):
        pass
