"""What became of every row: read = kept + dropped by cause, at each stage; what one kept is what the next one read."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from diptych.curate.work import mark_after, read_table, stage_file
from diptych.errors import DataError


@dataclass(frozen=True, kw_only=True)
class StageCounts:
    """The rows of one stage."""

    name: str
    read: int
    kept: int
    dropped: dict[str, int]  # by cause, the most frequent first

    @property
    def adds_up(self) -> bool:
        return self.read == self.kept + sum(self.dropped.values())


def read_ledger(work: Path) -> list[StageCounts]:
    """The counts of all stages that are whole, in their order.

    Raises:
        DataError: they do not add up, so a file was changed.
    """
    stages = []
    for folder in stage_folders(work):
        read, kept, causes = 0, 0, Counter[str]()
        for file in sorted(folder.glob("parts/*/counts.json")):
            counts = json.loads(file.read_text(encoding="utf-8"))
            read, kept = read + counts["read"], kept + counts["kept"]
            causes.update(counts["dropped"])
        dropped = dict(sorted(causes.items(), key=lambda one: (-one[1], one[0])))
        stages.append(StageCounts(name=folder.name.partition("-")[2], read=read, kept=kept, dropped=dropped))
    for before, after in zip([None, *stages], stages, strict=False):
        if not after.adds_up or (before and before.kept != after.read):
            raise DataError(
                f"the ledger of {work} must add up, and does not at the stage {after.name}: {after.read:,} read, "
                f"{after.kept:,} kept, {sum(after.dropped.values()):,} dropped. Was a file of it changed? Remove "
                f"{work} and run the recipe again."
            )
    return stages


def stage_folders(work: Path) -> list[Path]:
    """Folders of the stages that are whole, in their order, up to where an option changed and nothing is redone yet."""
    found, before = list[Path](), ""
    for file in sorted(work.glob("[0-9][0-9]-*/sizes.json")):
        if json.loads(stage_file(file.parent).read_text(encoding="utf-8"))["before"] != before:
            break
        found.append(file.parent)
        before = mark_after(file.parent)
    return found


def examples(folder: Path, cause: str, count: int) -> pa.Table:
    """The first rows that a stage dropped for a cause, from as few parts as hold them."""
    found, left = [], count
    for part in sorted(folder.glob("parts/*")):
        counts = json.loads((part / "counts.json").read_text(encoding="utf-8"))["dropped"]
        if counts.get(cause):
            table = read_table(part / "dropped.parquet")
            mine = table.filter(pc.field("cause") == cause).slice(0, left)
            found.append(mine)
            left -= len(mine)
        if left <= 0:
            break
    return pa.concat_tables(found)
