"""No endless hang: a process that dies or stands still is named, all write down where they are, and the run ends.

A thread of each process tells the others, through torchrun's store, that it lives and how far its process has come. It
ends its own process when another one is gone, as the main thread may wait for that one for ever.
"""

import contextlib
import faulthandler
import io
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diptych.train.distributed import Ranks

EXIT_CODE = 1  # of a process that was ended; torchrun then ends the others
_PATIENT = ("start", "evaluate", "save", "first step")  # may take any time
_BEATS = 12  # of each process, in the time after which it is taken for dead
_KEYS = 8  # of a batch, that are told


@dataclass
class _Seen:
    """What this process knows of another one, by its own clock."""

    beat: dict[str, Any]
    alive: float  # seconds, when its beat changed last
    moved: float  # seconds, when its position changed last


class Watchdog:
    """Watches all processes of a run from within each; nothing to do for a process by itself.

    Args:
        ranks: the processes.
        folder: gets `rank-N.txt`, the stacks of all threads of process N, when it comes to that.
        seconds: without any progress after which the run is ended. Evaluating, saving and the first step may take
            longer. A process without a sign of life is taken for dead after a third of it.
        on_alarm: called once, in one of the processes, with what happened; the process ends when it returns.
    """

    def __init__(self, ranks: Ranks, folder: Path, *, seconds: float, on_alarm: Callable[[str], None]) -> None:
        self._ranks = ranks
        self._folder = folder
        self._seconds = seconds
        self._silence = seconds / 3
        self._on_alarm = on_alarm
        self._beat: dict[str, Any] = {"beats": 0, "marks": 0, "phase": "start", "step": 0, "keys": [], "left": ""}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stacks: io.TextIOWrapper | None = None

    def at(self, phase: str, step: int, keys: Sequence[str] | None = None) -> None:
        """Where the main thread is from now on.

        Args:
            phase: in a word; all processes come by the same ones in the same order.
            step: in hand, from 1.
            keys: of the batch in hand, when it is a new one.
        """
        new = {} if keys is None else {"keys": list(keys[:_KEYS]), "pairs": len(keys)}
        # Replaced as a whole: the other thread reads it.
        self._beat = self._beat | new | {"phase": phase, "step": step, "marks": self._beat["marks"] + 1}

    def wait_for_verdict(self) -> None:
        """After a failed exchange: give the thread the time to find who is gone. It then ends this process."""
        if self._thread is not None:
            self._thread.join(2 * self._silence)

    def __enter__(self) -> Self:
        if self._ranks.store is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stacks = (self._folder / f"rank-{self._ranks.rank}.txt").open("w", encoding="utf-8")
            self._tell()
            self._ranks.collect(None)  # from here on each has a beat in the store
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None or self._stacks is None:
            return
        if error is None:
            self._ranks.collect(None)  # all have come to the end
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._stacks.close()
        if error is None:
            Path(self._stacks.name).unlink()
            self._ranks.collect(None)  # nobody asks the store any more, which may be the first process's own
            if self._ranks.is_first:
                self._folder.rmdir()
        else:
            self._beat = self._beat | {"left": f"{type(error).__name__}: {error}"}
            with contextlib.suppress(RuntimeError):  # the store may be gone
                self._tell()

    def _watch(self) -> None:
        seen: dict[int, _Seen] = {}
        assert self._stacks is not None
        while not self._stop.wait(self._silence / _BEATS):
            # Where this thread itself cannot go on (the store hangs, a call keeps Python's lock), the process ends
            # without it, its stacks written.
            faulthandler.dump_traceback_later(2 * self._seconds, exit=True, file=self._stacks)
            try:
                verdict, is_mine = self._round(seen)
            except RuntimeError as error:
                verdict, is_mine = f"torchrun's store does not answer ({error})", True
            if verdict:
                self._end(verdict, is_mine)

    def _round(self, seen: dict[int, _Seen]) -> tuple[str, bool]:
        """Tell, look, judge: what happened, or nothing; and whether this process found it."""
        store, now = self._ranks.store, time.monotonic()
        assert store is not None
        self._tell()
        for rank in range(self._ranks.count):
            beat = json.loads(store.get(f"beat/{rank}"))
            known = seen.get(rank)
            moved = now if known is None or beat["marks"] != known.beat["marks"] else known.moved
            alive = now if known is None or beat["beats"] != known.beat["beats"] else known.alive
            seen[rank] = _Seen(beat, alive, moved)
        if store.check(["alarm"]):
            return "another process has found it", False
        verdict = self._verdict(seen, now)
        if not verdict:
            return "", False
        return verdict, store.add("alarms", 1) == 1

    def _verdict(self, seen: dict[int, _Seen], now: float) -> str:
        silent = {rank: s for rank, s in seen.items() if now - s.alive > self._silence}
        if silent:
            return "; ".join(f"rank {rank} {_fate(s.beat, now - s.alive)}" for rank, s in silent.items())
        if any(s.beat["phase"] in _PATIENT for s in seen.values()):
            return ""
        idle = now - max(s.moved for s in seen.values())
        if idle <= self._seconds:
            return ""
        last = min(s.beat["marks"] for s in seen.values())
        behind = {rank: s for rank, s in seen.items() if s.beat["marks"] == last}
        who = "; ".join(f"rank {rank} stands still {_place(s.beat)}" for rank, s in behind.items())
        return f"no progress for {idle:.0f} s: {who}"

    def _tell(self) -> None:
        assert self._ranks.store is not None
        self._beat = self._beat | {"beats": self._beat["beats"] + 1}
        self._ranks.store.set(f"beat/{self._ranks.rank}", json.dumps(self._beat))

    def _end(self, verdict: str, is_mine: bool) -> None:
        assert self._stacks is not None
        assert self._ranks.store is not None
        faulthandler.dump_traceback_later(self._seconds, exit=True)  # should the disk hang that is written to next
        if is_mine:  # before any process ends: torchrun then ends the others
            self._on_alarm(
                f"{verdict}. The stacks of all ranks that live are in {self._folder}. The run has ended; the same "
                "command goes on from the newest checkpoint, with any number of processes."
            )
            with contextlib.suppress(RuntimeError):
                self._ranks.store.set("alarm", "")
        self._stacks.write(f"rank {self._ranks.rank} was {_place(self._beat)}\n")
        self._stacks.flush()
        faulthandler.dump_traceback(self._stacks, all_threads=True)
        if is_mine:
            time.sleep(2 * self._silence / _BEATS)  # for the others to write theirs
        os._exit(EXIT_CODE)


def _fate(beat: dict[str, Any], silent: float) -> str:
    if beat["left"]:
        return f"ended with {beat['left']}"
    return f"gives no sign of life for {silent:.0f} s (killed or stopped), last {_place(beat)}"


def _place(beat: dict[str, Any]) -> str:
    keys = ", ".join(beat["keys"])
    hand = f", with {beat['pairs']} pairs in hand ({keys}{', ...' if beat['pairs'] > _KEYS else ''})" if keys else ""
    return f"at step {beat['step']:,} in '{beat['phase']}'{hand}"
