"""What is left at the end becomes WebDataset shards with a manifest; what must go later is taken out of them.

Shard n holds rows n x size to (n + 1) x size of the whole, whatever parts they lie in. A sample is `KEY.jpg` (or as the
picture is), `KEY.txt` and `KEY.json`, which tells where it is from.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.curate.remove import Removal
from diptych.curate.work import PartedRows, joined
from diptych.files import write_json
from diptych.pairs.shards import write_shard
from diptych.rows.columns import PICTURE

_TOLD = ("url", "page", "licence", "language", "sha256", "width", "height", "source")
_KINDS = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """One shard, and beside the work the facts of it."""

    folder: Path  # of the stage
    shards: Path
    rows: PartedRows  # cut into shards
    number: int
    removal: Removal  # what had to go

    @property
    def out(self) -> Path:
        return self.folder / f"{self.number:06}.json"

    @property
    def path(self) -> Path:
        return self.shards / f"shard-{self.number:05}.tar"

    def run(self) -> None:
        facts = write_shard(self.path, self._samples())
        write_json(self.out, facts)

    def _samples(self) -> Iterator[tuple[str, Mapping[str, bytes]]]:
        assert self.rows.pictures
        for part, first, count in self.rows.cuts(self.number):
            mine = PartedRows(folder=self.rows.folder).table(part).slice(first, count)
            for some in joined(mine, self.rows.pictures, part):
                for row in some.to_pylist():
                    if not self.removal.wants(row["key"], filter(None, (row["url"], row["page"]))):
                        yield row["key"], sample_parts(row)


def sample_parts(row: Mapping[str, Any]) -> dict[str, bytes]:
    """The members of one sample."""
    told = {name: row[name] for name in _TOLD if row.get(name) is not None}
    return {
        ending_of(row[PICTURE]): row[PICTURE],
        "txt": row["text"].encode(),
        "json": json.dumps(told, ensure_ascii=False, sort_keys=True).encode(),
    }


def ending_of(picture: bytes) -> str:
    """The ending of a picture's name, by its first bytes."""
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "webp"
    if picture[4:8] == b"ftyp":
        return "avif" if picture[8:12] in (b"avif", b"avis") else "heic"
    return next((ending for head, ending in _KINDS if picture.startswith(head)), "jpg")
