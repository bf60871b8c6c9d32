"""An index as a copy of itself, or as a file for other programs."""

from pathlib import Path

import numpy as np

from diptych.embed import Embedded
from diptych.errors import ConfigError, DataError
from diptych.files import atomic_file, atomic_folder, shown
from diptych.search.about import IndexAbout, write_about
from diptych.search.feature_table import FeatureRow, feature_schema, feature_table
from diptych.search.index_folder import open_store
from diptych.search.store import Store

_BLOCK = 16_384  # rows of Parquet that are held at once


def copy_index(folder: Path, out: Path, index: Path | None = None) -> int:
    """Copy an index as it is at one moment, also while it is being updated.

    Args:
        folder: the pictures.
        out: a folder that does not exist yet.
        index: where the index lies, if not in the cache.

    Returns:
        Rows.

    Raises:
        DataError: there is no index, or `out` is there already or cannot be written.
    """
    about, store = open_store(folder, index)
    if out.exists():
        raise DataError(f"{out} must not exist yet: a copy replaces nothing. Choose another name.")
    with atomic_folder(out) as aside:
        store.copy_to(aside / about.part)
        write_about(aside, about)
    return store.status()["rows"]


def export_index(folder: Path, out: Path, index: Path | None = None) -> int:
    """Write an index for other programs.

    Args:
        folder: the pictures.
        out: `.parquet` with paths, facts and features, or `.npz` or `.safetensors` as `Embedded.save` writes them; in
            these a frame of a video has the key PATH#SECONDS.
        index: where the index lies, if not in the cache.

    Returns:
        Rows.

    Raises:
        ConfigError: the name ends otherwise.
        DataError: there is no index, or the file cannot be written.
        MissingExtraError: Parquet without pyarrow.
    """
    about, store = open_store(folder, index)
    if out.suffix == ".parquet":
        return _write_parquet(about, store, out)
    if out.suffix not in (".npz", ".safetensors"):
        raise ConfigError(f"an index is exported as .parquet, .npz or .safetensors. Got {out}.")
    snapshot, entries = store.listing()
    rows = np.flatnonzero(snapshot.files >= 0)
    keys = []
    for number, seconds in zip(snapshot.files[rows].tolist(), snapshot.times[rows].tolist(), strict=True):
        path = shown(entries[number][0])
        keys.append(path if np.isnan(seconds) else f"{path}#{seconds:g}")
    Embedded(tuple(keys), np.array(snapshot.features[rows]), store.faults()).save(out)
    return len(rows)


def _write_parquet(about: IndexAbout, store: Store, out: Path) -> int:
    said = {"folder": shown(about.folder), "model": about.model, "fingerprint": about.fingerprint}
    schema = feature_schema(store.dimensions, said)
    import pyarrow.parquet as pq

    snapshot, entries = store.listing()
    rows = np.flatnonzero(snapshot.files >= 0)
    with atomic_file(out) as aside, pq.ParquetWriter(aside, schema) as writer:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            found = []
            for features, number, seconds in zip(
                snapshot.features[block], snapshot.files[block].tolist(), snapshot.times[block].tolist(), strict=True
            ):
                path, facts = entries[number]
                time = None if np.isnan(seconds) else seconds
                found.append(FeatureRow(key=path, features=features, time=time, facts=facts))
            writer.write_table(feature_table(found, schema))
        faults = [FeatureRow(key=path, features=None, fault=fault) for path, fault in store.faults().items()]
        writer.write_table(feature_table(faults, schema))
    return len(rows)
