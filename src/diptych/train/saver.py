"""Checkpoints of a run on their way to the disk: whole ones at once, shares beside the steps that follow."""

import contextlib
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from diptych.errors import DataError
from diptych.train.run import Run
from diptych.train.shares import SharesWriter, start_writing


@dataclass(frozen=True)
class _UnderWay:
    path: Path  # of the checkpoint that comes
    writer: SharesWriter
    written: Future[Any]
    folder: contextlib.ExitStack  # in the first process; the checkpoint is there when it ends
    digests: dict[str, str]  # of all processes' files, filled before it ends


class Saver:
    """Saves a run, whose checkpoints are whole or absent whenever it is killed. All processes call each method.

    One checkpoint at a time is under way; the next one waits for it.

    Args:
        run: what is saved; with `train.checkpoint_format` "shares" and several processes in shares.
        folder: of the checkpoints.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self._folder = folder
        in_shares = run.recipe.train.checkpoint_format == "shares"
        self._line = run.ranks.second_line() if in_shares else None
        self._under_way: _UnderWay | None = None

    def save(self) -> None:
        """Save the run as it is now; of shares, a copy is made before this returns.

        Raises:
            DataError: the disk is full or the folder cannot be written; of shares also the ones before these.
            WeightsError: the model's features are not finite.
        """
        run, keep = self._run, self._run.recipe.train.keep_checkpoints
        with run.ranks.laps.section("saving"):
            if self._line is None:
                checkpoint = run.checkpoint()
                run.ranks.share(lambda: checkpoint.save(self._folder, keep=keep))
                return
            self.finish()
            checkpoint, opened = run.checkpoint_without_tensors(), contextlib.ExitStack()
            digests: dict[str, str] = {}
            shares = run.ranks.share(
                lambda: opened.enter_context(checkpoint.saved_in_shares(self._folder, digests, keep=keep))
            )
            writer = SharesWriter(shares)
            written = start_writing(run.held_tensors(), writer, run.ranks, self._line)
            path = self._folder / f"step-{run.step:08d}"
            self._under_way = _UnderWay(path, writer, written, opened, digests)

    @property
    def has_written(self) -> bool:
        """Whether this process is done with its share of a checkpoint under way; if all are, `finish` does not wait."""
        return self._under_way is not None and self._under_way.written.done()

    def finish(self) -> None:
        """Wait for the checkpoint under way, and put it in its place.

        Raises:
            DataError: see `save`.
        """
        one, self._under_way = self._under_way, None
        if one is None:
            return
        ranks = self._run.ranks
        parts = ranks.collect((_fault(one.written), one.writer.digests))
        faults = [fault for fault, _ in parts if fault]

        def put_in_place() -> None:
            with one.folder:
                if faults:
                    raise DataError(f"{one.path} could not be written: {faults[0]}. Nothing was left half-written.")
                for _, digests in parts:
                    one.digests.update(digests)

        ranks.share(put_in_place)

    def abandon(self) -> None:
        """Leave a checkpoint under way where it is, after a failure; the next run of this folder clears it away."""
        if self._under_way:
            with contextlib.suppress(Exception):
                self._under_way.written.result(timeout=60)


def _fault(written: Future[Any]) -> str:
    """What went wrong, or ""."""
    try:
        written.result()
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        return (cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)).strip(".")
    except Exception as error:  # of the exchange between processes
        return str(error).strip(".")
    return ""
