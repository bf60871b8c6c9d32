"""Every exception that diptych raises for a user.

    DiptychError
    ├── ConfigError          an option or a recipe is not valid
    ├── DataError            what was given as data cannot be used
    │   ├── ImageError       one picture
    │   ├── TextError        one text
    │   └── ShardError       a tar shard, its index or its manifest
    ├── ShapeError           tensors do not fit together
    ├── WeightsError         a bundle or a checkpoint cannot be read or does not fit
    ├── TrainingError        a run cannot go on
    ├── BusyError            a server has no room left
    └── MissingExtraError    an optional part is not installed

A message is one line: what must hold, what came, what to do. The command line prints it and exits with 2.
Broken invariants of our own are `assert`s, not these.
"""


class DiptychError(Exception):
    """Base of all errors that a user can cause and cure."""


class ConfigError(DiptychError):
    """An option or a recipe is not valid."""


class DataError(DiptychError):
    """What was given as data cannot be used."""


class ImageError(DataError):
    """One picture cannot be used.

    Args:
        message: the sentence for the user.
        cause: a short, countable class of the fault, e.g. "truncated"; the ledger counts by it.
    """

    def __init__(self, message: str, cause: str = "unreadable") -> None:
        super().__init__(message)
        self.cause = cause


class TextError(DataError):
    """One text cannot be used."""


class ShardError(DataError):
    """A tar shard, its index or its manifest cannot be used.

    Args:
        message: the sentence for the user.
        cause: short and countable, names the shard; the ledger counts the samples that are lost with it by this.
    """

    def __init__(self, message: str, cause: str = "shard unreadable") -> None:
        super().__init__(message)
        self.cause = cause


class ShapeError(DiptychError):
    """Tensors do not fit together."""


class WeightsError(DiptychError):
    """A bundle or a checkpoint cannot be read, or does not fit."""


class TrainingError(DiptychError):
    """A training run cannot go on."""


class BusyError(DiptychError):
    """A server has no room left.

    Args:
        message: the sentence for the user.
        retry_after: whole s after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MissingExtraError(DiptychError):
    """An optional part is not installed."""


def missing_extra(what: str, extra: str, without: str = "") -> MissingExtraError:
    """The sentence for a part that needs `pip install 'diptych[extra]'`.

    Args:
        what: what was asked for, e.g. "training".
        extra: name of the extra in pyproject.toml.
        without: what works all the same, one sentence or nothing.
    """
    return MissingExtraError(f"{what} needs an extra: pip install 'diptych[{extra}]'. {without}".rstrip())
