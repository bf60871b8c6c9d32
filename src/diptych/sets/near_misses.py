"""Pictures with a right caption, one that nearly fits, and others: the captions of a scene that a user wrote.

`captions.csv` with the columns picture (a path from its folder), right, near_miss, others (with "|" between) and, where
there are several, kind: "coarse", what the whole scene is, or "fine", small things in it. A row without a near miss is
measured without.
"""

from dataclasses import dataclass
from pathlib import Path

from diptych.errors import DataError
from diptych.sets.group_tables import read_table
from diptych.sets.pictures import Pictures

COARSE, FINE = "coarse", "fine"
_TABLE = "captions.csv"


@dataclass(frozen=True, eq=False, kw_only=True)
class NearMissImages(Pictures):
    """N pictures, each once or in several rows."""

    right: tuple[str, ...]  # N captions
    near_miss: tuple[str, ...]  # N; "" where there is none
    others: tuple[tuple[str, ...], ...]  # N, each at least one where there is no near miss
    kinds: tuple[str, ...]  # N, coarse or fine


def read_near_misses(path: Path) -> NearMissImages:
    """Pictures and their captions.

    Args:
        path: the table, or a folder with `captions.csv`.

    Raises:
        DataError: the table cannot be read, lacks a column, or a row of it has nothing to choose from.
    """
    table = path / _TABLE if path.is_dir() else path
    rows = read_table(table, ("picture", "right"))
    others = [_others(row) for row in rows]
    kinds = [row.get("kind") or COARSE for row in rows]
    for number, (row, other, kind) in enumerate(zip(rows, others, kinds, strict=True), 2):
        near = row.get("near_miss", "")
        if kind not in (COARSE, FINE):
            raise DataError(f"{table}, line {number}: kind must be {COARSE} or {FINE}. Got {kind!r}.")
        if not row["right"] or not other or row["right"] in (*other, near) or (near and near in other):
            raise DataError(
                f"{table}, line {number}: a right caption and others that differ from it and from each other must be "
                f"given. Got {row['right']!r} and {', '.join(other) or 'none'}."
            )
    seen: dict[str, int] = {}
    keys = []
    for row in rows:
        seen[row["picture"]] = count = seen.get(row["picture"], 0) + 1
        keys.append(row["picture"] if count == 1 else f"{row['picture']}#{count}")
    return NearMissImages(
        name=table.parent.resolve().name,
        split="test",
        keys=tuple(keys),
        right=tuple(row["right"] for row in rows),
        near_miss=tuple(row.get("near_miss", "") for row in rows),
        others=tuple(others),
        kinds=tuple(kinds),
        _sources=tuple(table.parent / row["picture"] for row in rows),
    )


def _others(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(str.strip, row.get("others", "").split("|")))))
