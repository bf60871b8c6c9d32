"""Features as a table for other programs: one schema, whoever writes it. [extra: parquet]

Features are lists of a fixed size, which vector databases ask for. A row without features has zeros and says why in
`fault`: a null of fixed size is written by all, and read by pyarrow from 26 on only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from diptych.data.facts import Facts
from diptych.errors import missing_extra
from diptych.files import shown

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureRow:
    """One picture, or one frame of a video."""

    key: str  # its path, or its key in the source
    features: np.ndarray | None  # [D] float32; None when it could not be read
    time: float | None = None  # s into a video
    facts: Facts = field(default_factory=Facts)
    part: int = 0
    fault: str | None = None  # why it could not be read


def feature_schema(dimensions: int, metadata: Mapping[str, str]) -> "pyarrow.Schema":
    """The columns, with D and what the whole table says.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise missing_extra("writing tables", "parquet", "NAME.npz is written without it.") from None
    return pa.schema(
        [
            ("key", pa.string()),
            ("time", pa.float32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("taken", pa.timestamp("s")),
            ("camera", pa.string()),
            ("latitude", pa.float64()),
            ("longitude", pa.float64()),
            ("part", pa.int32()),
            ("features", pa.list_(pa.float32(), dimensions)),
            ("fault", pa.string()),
        ],
        metadata=dict(metadata),
    )


def feature_table(rows: Sequence[FeatureRow], schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Rows as a table of `feature_schema`."""
    import pyarrow as pa

    dimensions = schema.field("features").type.list_size
    features = np.zeros((len(rows), dimensions), np.float32)
    for i, row in enumerate(rows):
        if row.features is not None:
            features[i] = row.features
    places = [row.facts.place or (None, None) for row in rows]
    columns = [
        pa.array([shown(row.key) for row in rows], pa.string()),
        pa.array([row.time for row in rows], pa.float32()),
        pa.array([row.facts.width or None for row in rows], pa.int32()),
        pa.array([row.facts.height or None for row in rows], pa.int32()),
        pa.array([row.facts.taken for row in rows], pa.timestamp("s")),
        pa.array([row.facts.camera or None for row in rows], pa.string()),
        pa.array([latitude for latitude, _ in places], pa.float64()),
        pa.array([longitude for _, longitude in places], pa.float64()),
        pa.array([row.part for row in rows], pa.int32()),
        pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), dimensions),
        pa.array([None if row.fault is None else shown(row.fault) for row in rows], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
