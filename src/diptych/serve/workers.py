"""Threads for work that may take too long, or never end: a picture made to be slow, a file on a share that hangs.

A thread cannot be killed. One that is over its time is left to itself and another takes its place, so that the work of
others goes on; how many may be left so is limited, and beyond that new work is refused until one of them ends. Such a
thread goes on computing and costs a core meanwhile. All are daemons: none keeps the process from ending.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from diptych.serve.refusals import RefusedError

T = TypeVar("T")

MOST_LEFT = 4  # threads that may be left to themselves before work is refused
_LOOK = 0.25  # s between two looks at what is running


class Workers(Executor):
    """Some threads for one kind of work.

    Args:
        count: of the threads that work.
        name: of the threads.
        seconds: for one piece of work, from when it begins.
    """

    def __init__(self, count: int, *, name: str, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._running: dict[threading.Thread, _Job] = {}
        self._threads: set[threading.Thread] = set()
        self._late = 0  # of the threads, those that are left to themselves
        self._lock = threading.Lock()
        for _ in range(count):
            self._start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """As `concurrent.futures` has it. Work that is cancelled before it begins never begins."""
        job = _Job(lambda: fn(*args, **kwargs))
        self._jobs.put(job)
        return job.future

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run it beside the event loop. Who no longer waits takes his work out of the queue.

        Raises:
            TimeoutError: it took more than `seconds` from when it began.
            RefusedError: as many threads are left to themselves as may be.
            Exception: what the function raised.
        """
        self._look()
        if self._late == len(self._threads):
            raise RefusedError(503, "what others asked for does not end. Try again later.", "stuck", retry_after=10)
        job = _Job(lambda: function(*arguments))
        self._jobs.put(job)
        answer = asyncio.wrap_future(job.future)
        try:
            while not answer.done() and not job.is_late:
                await asyncio.wait((answer,), timeout=min(_LOOK, self.seconds))
                self._look()
            if not answer.done():
                raise TimeoutError
            return answer.result()
        finally:
            job.future.cancel()  # at once; it changes nothing once the work has begun

    def close(self, seconds: float) -> bool:
        """Take no more work and wait for what is under way. Whether all of it ended in time."""
        while not self._jobs.empty():
            if job := self._jobs.get_nowait():
                job.future.cancel()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _look(self) -> None:
        """Leave those to themselves that are over their time, and put others in their place."""
        now = time.monotonic()
        with self._lock:
            for job in self._running.values():
                if not job.is_late and now - job.began > self.seconds:
                    job.is_late = True
                    self._late += 1
                    if self._late <= MOST_LEFT:
                        self._start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            is_over = self._run(job)
            del job  # what it holds is not kept until the next one comes
            if is_over:
                return
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _run(self, job: "_Job") -> bool:
        """Do it. Whether this thread was late and has its successor."""
        if not job.future.set_running_or_notify_cancel():
            return False
        me = threading.current_thread()
        job.began = time.monotonic()
        with self._lock:
            self._running[me] = job
        try:
            job.future.set_result(job.work())
        except BaseException as error:
            job.future.set_exception(error)
        with self._lock:
            del self._running[me]
            self._late -= job.is_late
            is_over = len(self._threads) - self._late > self._count
            if is_over:
                self._threads.remove(me)
        return is_over


class _Job:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.began = 0.0  # s of the monotonic clock
        self.is_late = False
