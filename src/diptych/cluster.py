"""daft, which hands work out: to processes of this machine, or by Ray to the machines of a cluster.

daft carries numbers and names, never pictures: a worker reads and writes files itself, so what it makes is what any
other process makes. With Ray, every machine must see the same folders by the same paths.
"""

import importlib
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from diptych.errors import DataError, DiptychError, missing_extra


class Work(Protocol):
    """Something to do, pickled to whoever does it."""

    def run(self) -> None: ...


class DaftRunner:
    """Does tasks by daft's workers. Which runner it is, daft is told by `DAFT_RUNNER`, "native" or "ray".

    Args:
        workers: processes.

    Raises:
        MissingExtraError: daft is not installed.
    """

    def __init__(self, workers: int) -> None:
        self._daft = import_daft()
        self._workers = workers

    def run(self, tasks: Sequence[Work], on_done: Callable[[], None]) -> None:
        """Do them all.

        Raises:
            DataError: one failed; the message is its own.
        """
        if not tasks:
            return
        daft = self._daft
        frame = daft.from_pydict({"task": [pickle.dumps(task) for task in tasks]})
        if daft.get_or_infer_runner_type() == "ray":
            frame = frame.into_partitions(len(tasks))  # a partition lies with one worker
        worker = _worker_class(daft, self._workers)()
        for row in frame.select(worker.run(frame["task"]).alias("error")).iter_rows(results_buffer_size=1):
            if row["error"]:
                raise DataError(row["error"])
            on_done()

    def run_waiting(self, tasks: Sequence[Work], on_done: Callable[[], None]) -> None:
        """As `run`: each worker waits for its own."""
        self.run(tasks, on_done)


def import_daft() -> Any:
    """daft, which reports its import and each run to its makers unless it is told not to; so does Ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ |= {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        return importlib.import_module("daft")
    except ImportError:
        raise missing_extra("work by daft", "daft", "The own engine works without it.") from None


def _worker_class(daft: Any, workers: int) -> Any:
    @daft.cls(max_concurrency=workers)
    class Worker:
        def __init__(self) -> None:
            self._failed = False

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)  # what is done is told at once
        def run(self, tasks: Any) -> list[str]:
            return [self._error(task) for task in tasks.to_pylist()]

        def _error(self, task: bytes) -> str:
            if self._failed:  # daft has all done before it ends: after an error nothing more is tried
                return ""
            try:
                pickle.loads(task).run()
            except DiptychError as error:  # as a value: daft passes on the text of an exception at most
                self._failed = True
                return str(error)
            return ""

    return Worker
