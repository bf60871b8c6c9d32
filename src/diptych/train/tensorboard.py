"""The log of a run once more, as TensorBoard reads it."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diptych.errors import DataError, missing_extra
from diptych.train.log import flat

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.diptych")


class EventLog:
    """Event files in a folder; each life of a run writes one, and TensorBoard joins them to one curve.

    They are written with tensorboard's own record writer and messages, at once: its event writer has a thread and a
    queue, and waits for ever where the disk is full.

    Args:
        folder: made when absent.
        resume_step: points after this step, which earlier lives wrote, are shown no more.
        clock: the time of day in seconds, as TensorBoard wants it beside each point.

    Raises:
        DataError: the folder cannot be written.
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, *, resume_step: int, clock: Callable[[], float] = time.time) -> None:
        self._proto, record_writer = import_tensorboard()
        self._folder, self._clock = folder, clock
        with self._sentence():
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match and int(match[1]) >= resume_step:  # each of its points comes after that step
                    path.unlink()
            # TensorBoard reads files in the order of their names.
            self._file = (folder / f"events.out.tfevents.{resume_step:010d}.diptych").open("wb")
            self._records = record_writer(self._file)
            self._write(file_version="brain.Event:2")  # of the format; from here on a START is heeded
            # Points that come from other files are dropped from this step on.
            self._write(step=resume_step + 1, session_log={"status": self._proto.SessionLog.START})
            self._file.flush()

    def write(self, *, step: int, **values: Any) -> None:
        """The numbers of one line of the log, out of our hands when this returns; grouped ones as GROUP/NAME.

        Raises:
            DataError: the disk is full.
        """
        with self._sentence():
            for name, number in flat(values):
                self._write(step=step, summary={"value": [{"tag": name, "simple_value": number}]})
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # `write` has said what could not be flushed
            self._file.close()

    def _write(self, **event: Any) -> None:
        self._records.write(self._proto.Event(wall_time=self._clock(), **event).SerializeToString())

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self._folder} could not be written: {error.strerror}. Make room and go on.") from error


def import_tensorboard() -> tuple[Any, Any]:
    """The messages of an event file, and the class that frames them.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise missing_extra("the tracker tensorboard", "tensorboard", "log.jsonl is written without it.") from None
    return event_pb2, RecordWriter
