"""Requests that wait are joined into one forward pass. Queue and delay are bounded.

One `Batcher` holds one kind of item. The model runs in the one thread of `executor`, which several batchers may share.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from diptych.errors import BusyError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LONGEST_WAIT = 60  # s, that a refused client is told to wait


class Batcher(Generic[Item, Answer]):
    """Joins items of several requests into batches, in the order they came.

    A batch starts when `max_batch` items wait, or when the first has waited `max_delay`; while one batch is computed,
    the next collects.

    Args:
        run: a batch in, one answer for each item out; called in `executor`, one batch at a time.
        executor: where `run` runs.
        max_batch: items of one batch.
        max_delay: s.
        max_places: items that may be in hand at once, waiting or computed.
        on_batch: told the size of each batch and its seconds, in the event loop.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Answer]],
        *,
        executor: Executor,
        max_batch: int,
        max_delay: float,
        max_places: int,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._max_places = max_places
        self._on_batch = on_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._seconds_an_item = 0.0  # running mean
        self.places_taken = 0

    @contextlib.contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Keep places for items before they are prepared, e.g. decoded; they are free again at the end.

        Raises:
            BusyError: there are not so many left.
        """
        if self.places_taken + count > self._max_places:
            wait = math.ceil(self.places_taken * self._seconds_an_item)
            raise BusyError(
                f"the server must have room for {count:,} more, and {self.places_taken:,} of {self._max_places:,} "
                "places are taken. Try again later.",
                retry_after=min(max(wait, 1), _LONGEST_WAIT),
            )
        self.places_taken += count
        try:
            yield
        finally:
            self.places_taken -= count

    async def __call__(self, items: Sequence[Item]) -> list[Answer]:
        """Answers of items that places were kept for.

        Raises:
            Exception: what `run` raised for one of these items by itself; those of others in the batch do not matter.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        self._start_when_due(loop)
        try:
            done = await asyncio.gather(*futures, return_exceptions=True)  # or a second failure would go unheard
        finally:
            for future in futures:
                future.cancel()  # of a client that has gone: it is passed over
        for answer in done:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in done if not isinstance(answer, BaseException)]

    def _start_when_due(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_busy or not self._waiting:
            return
        if len(self._waiting) >= self._max_batch:
            self._start()
        elif self._timer is None:
            self._timer = loop.call_later(self._max_delay, self._start)

    def _start(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        if not batch:
            return
        self._is_busy = True
        loop = asyncio.get_running_loop()
        start = loop.time()
        computed = loop.run_in_executor(self._executor, self._answers, [item for item, _ in batch])
        computed.add_done_callback(lambda answers: self._finish(batch, answers, loop.time() - start))

    def _finish(
        self,
        batch: list[tuple[Item, asyncio.Future[Answer]]],
        computed: "asyncio.Future[list[Answer | Exception]]",
        seconds: float,
    ) -> None:
        self._is_busy = False
        fault = asyncio.CancelledError() if computed.cancelled() else computed.exception()
        answers = [fault] * len(batch) if fault else computed.result()
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        share = seconds / len(batch)
        self._seconds_an_item = 0.8 * self._seconds_an_item + 0.2 * share if self._seconds_an_item else share
        if self._on_batch:
            self._on_batch(len(batch), seconds)
        if self._waiting:
            self._start()  # they waited while the model was busy

    def _answers(self, items: list[Item]) -> list[Answer | Exception]:
        """One answer an item; where a batch fails, each is tried alone, so that one bad item fails no other."""
        try:
            answers: list[Answer | Exception] = list(self._run(items))
            assert len(answers) == len(items)
        except Exception as error:
            return [error] if len(items) == 1 else [answer for item in items for answer in self._answers([item])]
        return answers
