"""Samples that must go, as their owner asks: out of the shards, out of the work, and out of what is made again."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diptych.curate.work import PICTURES_AT_ONCE
from diptych.data.tar import TarReader
from diptych.errors import ConfigError
from diptych.files import atomic_file, write_json
from diptych.pairs.shards import MANIFEST, list_shards, write_shard
from diptych.rows.columns import PICTURE

REMOVED = "removed.json"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What was asked for."""

    keys: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()  # of the picture's address or the page's; those below them too
    note: str = ""  # why, and who asked

    def wants(self, key: str, addresses: Iterable[str]) -> bool:
        """Whether a sample is meant."""
        return key in self.keys or any(_is_of(address, domain) for address in addresses for domain in self.domains)


def remove_samples(out: Path, removal: Removal) -> int:
    """Rewrite the shards that hold what must go, and note it, so that no later run brings it back.

    Args:
        out: of a curation.
        removal: what must go.

    Returns:
        How many samples went.

    Raises:
        ConfigError: nothing is named, or `out` holds no shards.
        DataError: the disk is full.
    """
    if not (removal.keys or removal.domains):
        raise ConfigError("removing needs keys or domains. Got neither.")
    manifest = out / "shards" / MANIFEST
    if not manifest.is_file():
        raise ConfigError(f"{out} must hold shards of `diptych curate`, and has no shards/{MANIFEST}.")
    listed, gone = json.loads(manifest.read_text(encoding="utf-8"))["shards"], dict[str, list[str]]()
    for shard in listed:
        if keys := _meant(manifest.parent / shard["file"], removal):
            gone[shard["file"]] = keys
    keys = [key for some in gone.values() for key in some]
    _note(out, removal, keys)
    for facts in (out / "work" / "shards").glob("*.json"):  # a run that is killed from here on makes these anew
        if facts.name != "stage.json" and json.loads(facts.read_text(encoding="utf-8"))["file"] in gone:
            facts.unlink()
    _blank(out / "work", set(keys))
    changed = [
        _rewritten(manifest.parent / shard["file"], gone[shard["file"]]) if shard["file"] in gone else shard
        for shard in listed
    ]
    list_shards(manifest.parent, changed)
    if (out / "work" / "shards").is_dir():
        for number, facts in enumerate(changed):
            write_json(out / "work" / "shards" / f"{number:06}.json", facts)
    return len(keys)


def removed_before(out: Path) -> list[dict[str, Any]]:
    """What was removed so far, in the order in which it was asked for: keys, domains, note."""
    path = out / REMOVED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def all_removed(out: Path) -> Removal:
    """All that was ever asked for."""
    before = removed_before(out)
    keys = sorted({key for entry in before for key in entry["keys"]})
    return Removal(keys=tuple(keys), domains=tuple(sorted({domain for entry in before for domain in entry["domains"]})))


def _note(out: Path, removal: Removal, keys: Sequence[str]) -> None:
    entry = {"keys": sorted({*keys, *removal.keys}), "domains": list(removal.domains), "note": removal.note}
    before = removed_before(out)
    if entry not in before:
        write_json(out / REMOVED, [*before, entry])


def _meant(path: Path, removal: Removal) -> list[str]:
    reader, found = TarReader(path), []
    for sample in reader.index().samples:
        told = json.loads(reader.read(*sample.parts["json"])) if "json" in sample.parts else {}
        if removal.wants(sample.key, [told[name] for name in ("url", "page") if name in told]):
            found.append(sample.key)
    return found


def _rewritten(path: Path, keys: Sequence[str]) -> dict[str, str | int]:
    reader, gone = TarReader(path), set(keys)
    left = [
        (sample.key, {ending: reader.read(*place) for ending, place in sample.parts.items()})
        for sample in reader.index().samples
        if sample.key not in gone
    ]
    del reader  # Windows renames nothing over a file that is open
    return write_shard(path, left)


def _blank(work: Path, keys: set[str]) -> None:
    """Empty the pictures of the keys wherever the work holds them."""
    wanted = pa.array(sorted(keys), pa.string())
    for path in work.glob("*/parts/*/pictures.parquet"):
        if not pc.any(pc.is_in(pq.read_table(path, columns=["key"])["key"], value_set=wanted)).as_py():
            continue
        table = pq.read_table(path)
        blank = pc.if_else(pc.is_in(table["key"], value_set=wanted), pa.scalar(b"", pa.binary()), table[PICTURE])
        with atomic_file(path) as aside:
            pq.write_table(
                table.set_column(1, pa.field(PICTURE, pa.binary()), blank),
                aside, compression="none", row_group_size=PICTURES_AT_ONCE,
            )  # fmt: skip


def _is_of(address: str, domain: str) -> bool:
    host = (urlsplit(address).hostname or "").rstrip(".").lower()
    domain = domain.lower().strip(".")
    return host == domain or host.endswith(f".{domain}")
