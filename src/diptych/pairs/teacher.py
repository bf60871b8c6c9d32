"""Features that a larger model stored once, as targets for a smaller one: no teacher runs while the student trains.

Source: MobileCLIP, arXiv:2311.17049, section 4 (dataset reinforcement).
"""

import io
import json
from pathlib import Path

import numpy as np
import safetensors

from diptych.errors import DataError
from diptych.files import expanded
from diptych.pairs.samples import Sample

IN_SHARD = "shard"


class Teacher:
    """Stored features of one side, pictures or captions.

    Args:
        where: a `.safetensors` file as `diptych embed` writes it: a tensor "features" [N, D] and "keys" in its
            metadata, of pictures the samples' keys, with or without `folder` before, and of texts the captions. Or
            "shard": each sample has a part of its own with one row, or with one row for each caption.
        member: ending of that part, e.g. "teacher-image.npy".
        folder: what `diptych embed` was given, where the keys start with it.

    Raises:
        DataError: the file cannot be read, or is of another kind.
    """

    def __init__(self, where: str, *, member: str, folder: str = "") -> None:
        self._member = member
        parts = Path(folder).parts  # of the folder as `diptych embed` may have been given it
        self._folders = [folder, *("/".join(parts[start:]) for start in range(len(parts)))]
        self._rows: dict[str, int] | None = None
        if where == IN_SHARD:
            return
        try:
            self._file = safetensors.safe_open(expanded(where), framework="numpy")
            self._rows = {key: row for row, key in enumerate(json.loads(self._file.metadata()["keys"]))}
            self._features = self._file.get_slice("features")  # read row by row, not into memory
            shape = self._features.get_shape()
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{where} must hold stored features as `diptych embed` writes them, and cannot be read: {error}."
            ) from error
        if len(shape) != 2 or shape[0] != len(self._rows):
            raise DataError(
                f"{where} must hold a row of features for each key, each once. "
                f"It has {len(self._rows)} keys and features {shape}."
            )

    def features(self, sample: Sample, key: str, number: int | None) -> np.ndarray:
        """The row of one sample.

        Args:
            sample: as it was read.
            key: of the row, where they lie in a file: the sample's, or the caption.
            number: of the caption, where they lie in the sample; None where it is several.

        Returns:
            [D] float32, unit length.

        Raises:
            DataError: there is none, or it cannot be used; the message is the cause.
        """
        row = self._of_part(sample, number) if self._rows is None else self._of_file(self._rows, key)
        length = np.linalg.norm(row)
        if row.ndim != 1 or not 0 < length < np.inf:
            raise DataError("teacher features unusable")
        return row / length

    def _of_file(self, rows: dict[str, int], key: str) -> np.ndarray:
        names = (key, *(f"{folder}/{key}" for folder in self._folders))
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            raise DataError("no teacher features")
        return np.asarray(self._features[row], dtype=np.float32)

    def _of_part(self, sample: Sample, number: int | None) -> np.ndarray:
        if self._member not in sample.parts:
            raise DataError("no teacher features")
        try:
            stored = np.load(io.BytesIO(sample.parts[self._member]), allow_pickle=False).astype(np.float32)
            if stored.ndim == 2:
                stored = stored[0 if len(stored) == 1 else number]
        except (OSError, EOFError, ValueError, IndexError) as error:
            raise DataError("teacher features unusable") from error
        return stored
