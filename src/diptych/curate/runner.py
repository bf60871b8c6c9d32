"""Who does the tasks of a curation on this machine: processes of one thread each, so no sum depends on their number.

Tasks of one call are independent. One that fails ends the call with its error; what is done stays.
"""

import concurrent.futures
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from diptych.curate.tasks import CurateTask
from diptych.errors import ConfigError, DataError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS")
_PARTS_AT_ONCE = 8  # that threads of one process have in hand
_AHEAD = 4  # tasks a process that are handed out before they are done


class Runner(Protocol):
    """Does tasks, in any order, each whole or not at all."""

    def run(self, tasks: Sequence[CurateTask], on_done: Callable[[], None]) -> None: ...

    def run_waiting(self, tasks: Sequence[CurateTask], on_done: Callable[[], None]) -> None:
        """The same for tasks that wait for others more than they work."""
        ...


class LocalRunner:
    """A pool of processes on this machine, to be used as a context.

    Args:
        workers: processes.

    Raises:
        ConfigError: fewer than one.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1. Got {workers}.")
        self._workers = workers

    def __enter__(self) -> Self:
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # a child reads them when it starts, before any of its imports
        try:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
            )
            for each in [self._pool.submit(os.getpid) for _ in range(self._workers)]:
                each.result()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # what is in hand is left half-done, aside
            for process in list((self._pool._processes or {}).values()):  # pyright: ignore[reportPrivateUsage]
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Sequence[CurateTask], on_done: Callable[[], None]) -> None:
        """Do them all.

        Raises:
            DataError: a process ended, as for lack of memory.
            DiptychError: that of the first task that failed.
        """
        waiting, at_work = iter(tasks), set()
        try:
            while True:
                for task in waiting:
                    at_work.add(self._pool.submit(task.run))
                    if len(at_work) >= _AHEAD * self._workers:
                        break
                if not at_work:
                    return
                done, at_work = concurrent.futures.wait(at_work, return_when=concurrent.futures.FIRST_COMPLETED)
                for one in done:
                    one.result()
                    on_done()
        except concurrent.futures.process.BrokenProcessPool:
            raise DataError(
                "a process of the curation must not end before its work, and one did, perhaps for lack of memory. "
                "Start again with fewer workers: what is done stays."
            ) from None

    def run_waiting(self, tasks: Sequence[CurateTask], on_done: Callable[[], None]) -> None:
        """Do tasks that wait more than they work, some at once in this process.

        Raises:
            DiptychError: that of the first task that failed.
        """
        left: queue.SimpleQueue[CurateTask | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            while task := left.get():
                try:
                    task.run()
                except BaseException as error:
                    done.put(error)
                else:
                    done.put(None)

        for task in tasks:
            left.put(task)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(_PARTS_AT_ONCE)]  # Ctrl-C waits for none
        for thread in threads:
            left.put(None)
            thread.start()
        for _ in tasks:
            if error := done.get():
                raise error
            on_done()


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
