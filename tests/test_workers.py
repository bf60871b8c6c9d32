import asyncio
import threading
from collections.abc import Iterator

import pytest

from diptych.serve.refusals import RefusedError
from diptych.serve.workers import MOST_LEFT, Workers


class Gate:
    """Work that does not end before it may; so that no test leaves a thread behind, it may at the end."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.begun = 0

    def __call__(self) -> str:
        self.begun += 1
        assert self.may_go.wait(30)
        return "late"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.may_go.set()


def test_answers_and_errors_come_through():
    workers = Workers(2, name="test")

    def fail() -> None:
        raise ArithmeticError("3")

    async def work() -> None:
        assert await asyncio.gather(*(workers(pow, i, 2) for i in range(20))) == [i * i for i in range(20)]
        with pytest.raises(ArithmeticError, match="3"):
            await workers(fail)
        assert await asyncio.get_running_loop().run_in_executor(workers, pow, 2, 5) == 32

    asyncio.run(work())
    assert workers.close(5)


def test_one_that_does_not_end_is_left_and_the_next_is_served(gate: Gate):
    workers = Workers(1, name="test", seconds=0.05)

    async def work() -> None:
        for _ in range(3):  # three have stopped a server of two threads
            with pytest.raises(TimeoutError):
                await workers(gate)
        assert await workers(pow, 2, 3) == 8
        gate.may_go.set()
        while len(workers._threads) > 1:  # those that come back go
            await asyncio.sleep(0.01)
        assert (workers._late, workers._running) == (0, {})
        assert await workers(pow, 2, 4) == 16

    asyncio.run(work())
    assert workers.close(5)


def test_who_waits_behind_it_is_served_though_nobody_else_comes(gate: Gate):
    workers = Workers(1, name="test", seconds=0.05)

    async def work() -> None:
        stuck = asyncio.create_task(workers(gate))
        while not gate.begun:
            await asyncio.sleep(0.001)
        behind = asyncio.create_task(workers(pow, 2, 3))
        stuck.cancel()  # its client has left: still the thread is looked after
        assert await behind == 8

    asyncio.run(work())


def test_beyond_a_number_of_stuck_ones_work_is_refused_until_one_ends(gate: Gate):
    workers = Workers(1, name="test", seconds=0.02)

    async def work() -> None:
        for _ in range(MOST_LEFT + 1):
            with pytest.raises(TimeoutError):
                await workers(gate)
        with pytest.raises(RefusedError, match="what others asked for does not end") as refused:
            await workers(pow, 2, 3)
        assert (refused.value.status, refused.value.retry_after) == (503, 10)
        assert not workers.close(0.05)  # it says so, and does not wait for ever
        gate.may_go.set()

    asyncio.run(work())


def test_after_stuck_ones_have_ended_work_is_taken_again(gate: Gate):
    workers = Workers(1, name="test", seconds=0.02)

    async def work() -> None:
        for _ in range(MOST_LEFT + 1):
            with pytest.raises(TimeoutError):
                await workers(gate)
        gate.may_go.set()
        while workers._late:
            await asyncio.sleep(0.01)
        assert await workers(pow, 2, 3) == 8

    asyncio.run(work())
    assert workers.close(5)


def test_work_that_nobody_wants_any_more_leaves_the_queue(gate: Gate):
    workers = Workers(1, name="test")

    async def work() -> None:
        first = asyncio.create_task(workers(gate))
        while not gate.begun:
            await asyncio.sleep(0.001)
        unwanted = [asyncio.create_task(workers(gate)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in unwanted:
            task.cancel()
        await asyncio.wait(unwanted)
        gate.may_go.set()
        assert await first == "late"
        assert await workers(pow, 2, 3) == 8
        assert gate.begun == 1

    asyncio.run(work())
    assert workers.close(5)


def test_threads_do_not_keep_the_process(gate: Gate):
    workers = Workers(3, name="a name")
    mine = [thread for thread in threading.enumerate() if thread.name == "a name"]
    assert len(mine) == 3
    assert all(thread.daemon for thread in mine)
    begun = threading.Event()
    workers.submit(lambda: begun.set() or gate())
    assert begun.wait(10)
    assert not workers.close(0.05)
    gate.may_go.set()
    assert workers.close(10)
