import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from diptych.errors import BusyError
from diptych.serve.batcher import Batcher


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Doubler:
    """Doubles numbers, remembers its batches, and waits when told to; 13 is a number it cannot bear."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        assert self.may_go.wait(10)
        if 13 in items:
            raise ArithmeticError("13")
        return [2 * item for item in items]


def batcher(run: Doubler, executor: ThreadPoolExecutor, **options: float) -> Batcher[int, int]:
    values = {"max_batch": 4, "max_delay": 0.02, "max_places": 100, **options}
    return Batcher(run, executor=executor, **values)  # pyright: ignore[reportArgumentType]


async def ask(batcher: Batcher[int, int], *items: int) -> list[int]:
    with batcher.places(len(items)):
        return await batcher(items)


def test_what_comes_within_the_delay_is_one_batch_and_answers_go_where_they_belong(executor: ThreadPoolExecutor):
    double = Doubler()

    async def work() -> list[list[int]]:
        one = batcher(double, executor)
        return await asyncio.gather(ask(one, 1, 2), ask(one, 3))

    assert asyncio.run(work()) == [[2, 4], [6]]
    assert double.batches == [[1, 2, 3]]


def test_a_full_batch_does_not_wait_and_the_rest_goes_next(executor: ThreadPoolExecutor):
    double = Doubler()

    async def work() -> list[list[int]]:
        one = batcher(double, executor, max_delay=3600)  # nothing here waits for it
        return await asyncio.gather(ask(one, 1, 2, 3), ask(one, 4, 5))

    assert asyncio.run(work()) == [[2, 4, 6], [8, 10]]
    assert double.batches == [[1, 2, 3, 4], [5]]


def test_while_the_model_is_busy_the_next_batch_collects(executor: ThreadPoolExecutor):
    double = Doubler()
    double.may_go.clear()

    async def work() -> None:
        one = batcher(double, executor, max_delay=0)
        first = asyncio.create_task(ask(one, 1))
        while not double.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(ask(one, i)) for i in (2, 3)]
        await asyncio.sleep(0)
        double.may_go.set()
        assert await asyncio.gather(first, *others) == [[2], [4], [6]]

    asyncio.run(work())
    assert double.batches == [[1], [2, 3]]


def test_a_bad_item_fails_alone(executor: ThreadPoolExecutor):
    double = Doubler()

    async def work() -> list[object]:
        one = batcher(double, executor)
        return await asyncio.gather(ask(one, 1), ask(one, 13), ask(one, 3), return_exceptions=True)

    first, bad, last = asyncio.run(work())
    assert [first, last] == [[2], [6]]
    assert isinstance(bad, ArithmeticError)
    assert double.batches == [[1, 13, 3], [1], [13], [3]]


def test_places_are_bounded_and_come_free(executor: ThreadPoolExecutor):
    double = Doubler()

    async def work() -> None:
        one = batcher(double, executor, max_places=3)
        with one.places(2):
            with pytest.raises(BusyError, match="room for 2 more, and 2 of 3 places are taken") as busy, one.places(2):
                pass
            assert busy.value.retry_after == 1
        with pytest.raises(ArithmeticError):
            await ask(one, 13)
        assert one.places_taken == 0

    asyncio.run(work())


def test_the_wait_that_is_told_follows_the_speed(executor: ThreadPoolExecutor):
    async def work() -> None:
        one = batcher(Doubler(), executor, max_places=3)
        await ask(one, 1)
        one._seconds_an_item = 2.5
        with one.places(3), pytest.raises(BusyError) as busy, one.places(1):
            pass
        assert busy.value.retry_after == 8  # 3 x 2.5, whole seconds

    asyncio.run(work())


def test_a_client_that_leaves_gives_its_place_back_and_is_not_computed(executor: ThreadPoolExecutor):
    double = Doubler()
    double.may_go.clear()

    async def work() -> None:
        one = batcher(double, executor, max_delay=0)
        first = asyncio.create_task(ask(one, 1))
        while not double.batches:
            await asyncio.sleep(0.001)
        gone, stays = asyncio.create_task(ask(one, 2)), asyncio.create_task(ask(one, 3))
        await asyncio.sleep(0)
        assert one.places_taken == 3
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert one.places_taken == 2
        double.may_go.set()
        assert await asyncio.gather(first, stays) == [[2], [6]]

    asyncio.run(work())
    assert double.batches == [[1], [3]]


def test_sizes_of_batches_are_told(executor: ThreadPoolExecutor):
    sizes: list[int] = []

    async def work() -> None:
        options = {"max_batch": 2, "max_delay": 0.0, "max_places": 9}
        one = Batcher(Doubler(), executor=executor, on_batch=lambda size, _: sizes.append(size), **options)  # pyright: ignore[reportArgumentType]
        await ask(one, 1, 2, 3)

    asyncio.run(work())
    assert sizes == [2, 1]
