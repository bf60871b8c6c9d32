"""MATLAB's files up to version 7: what several official archives keep their lists in."""

from pathlib import Path
from typing import Any

from diptych.errors import DataError, missing_extra


def read_mat(path: Path) -> dict[str, Any]:
    """Variables of a .mat file by name; rows and columns of one become plain values.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: scipy is not installed.
    """
    try:
        import scipy.io
    except ImportError:
        raise missing_extra(f"reading {path}", "eval", "Other layouts are read without it.") from None
    try:
        return scipy.io.loadmat(str(path), squeeze_me=True)
    except Exception as error:  # a damaged file makes scipy raise anything
        raise DataError(f"{path} must be a MATLAB file up to version 7. It cannot be read: {error}.") from error
