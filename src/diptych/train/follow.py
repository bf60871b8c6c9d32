"""Checkpoints of a run as they come, while it goes on or after, and the model that each is measured as."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from diptych.errors import DataError, WeightsError
from diptych.files import is_locked
from diptych.train.checkpoint import AVERAGE, list_checkpoints
from diptych.train.ema import Average
from diptych.weights.bundle import Bundle


def follow(run: Path, *, every: float, wait: Callable[[float], None] = time.sleep) -> Iterator[Path]:
    """Each checkpoint of a run once, oldest first; ends when no process works on the run any more.

    One that the run removes (`train.keep_checkpoints`) before it is asked for is passed over.

    Args:
        run: folder of `diptych train`.
        every: seconds between two looks.
        wait: for so many seconds.

    Raises:
        DataError: it is not the folder of a run.
    """
    if not any((run / name).exists() for name in (".lock", "recipe.toml", "checkpoints")):
        raise DataError(f"{run} must be the folder of a run that has begun, and has no recipe.toml. Start it first.")
    newest = ""
    while True:
        is_over = not is_locked(run)  # before the look: what is saved meanwhile is seen
        fresh = [path for path in list_checkpoints(run / "checkpoints") if path.name > newest]
        if fresh:
            newest = fresh[0].name
            yield fresh[0]
        elif is_over:
            return
        else:
            wait(every)


def load_measured(checkpoint: Path) -> Bundle:
    """The model of a checkpoint as its run measures it: the average of the weights where the run keeps one.

    Raises:
        WeightsError: it is damaged, or removed meanwhile.
    """
    bundle = Bundle.load(checkpoint)
    if (checkpoint / AVERAGE).is_file():
        try:
            bundle = Average(bundle.model, 0.0, load_file(checkpoint / AVERAGE)).bundle(bundle)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{checkpoint / AVERAGE} cannot be read: {error}.") from error
    bundle.model.eval()
    return bundle
