"""Processes that tests start, as torchrun does; each of them has an end."""

import contextlib
import faulthandler
import multiprocessing
import os
import queue as queue_module
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_SECONDS = 900  # a process of a test takes a few; other tests may have the cores
_SILENT = 150  # seconds after which one of several processes writes where it is


def start_ranks(work: Callable[..., Any], count: int, *args: Any) -> tuple[list[Any], Any]:
    """Start processes as torchrun would; what they return comes by the queue."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diptych.train.trainer", "torch._dynamo", "grain", "rank_table"])
    port = free_port()
    queue = context.Queue()
    processes = [context.Process(target=_be_rank, args=(rank, count, port, queue, work, args)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes, queue


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_ranks(work: Callable[..., Any], count: int, *args: Any, seconds: float = 180) -> list[Any]:
    """What `work(*args)` returns in each of several processes."""
    processes, queue = start_ranks(work, count, *args)
    try:
        results = dict(_next_result(processes, queue, time.monotonic() + seconds) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    for rank in range(count):
        if isinstance(results[rank], str) and results[rank].startswith("Traceback"):
            raise AssertionError(results[rank])
    return [results[rank] for rank in range(count)]


def _next_result(processes: Sequence[Any], queue: Any, end: float) -> tuple[int, Any]:
    """What one of the processes says; that one of them died without a word ends the test at once."""
    while True:
        died = [process.exitcode for process in processes if process.exitcode]
        try:
            return queue.get(timeout=2)
        except queue_module.Empty:
            assert not died, f"a process ended with exit code {died[0]} before it said a word"
            assert time.monotonic() < end, "no process said a word in time"


def _be_rank(rank: int, count: int, port: int, queue: Any, work: Callable[..., Any], args: Sequence[Any]) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    faulthandler.enable()
    faulthandler.dump_traceback_later(_SILENT)
    try:
        queue.put((rank, work(*args)))
    except BaseException:
        queue.put((rank, traceback.format_exc()))
        raise


@contextlib.contextmanager
def started(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, however that ends, nor lets a test wait for its words for ever."""
    with subprocess.Popen([str(word) for word in command], text=True, **options) as process:
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def wait_until(is_time: Callable[[], bool], *, seconds: float = 180.0, every: float = 0.0005) -> None:
    """Wait for a moment; a test that waits for it in vain fails."""
    end = time.monotonic() + seconds
    while not is_time():
        assert time.monotonic() < end, f"nothing came within {seconds:.0f} s"
        time.sleep(every)
