"""The ledger of a curated crawl, held against the tags that were written."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from diptych.curate.ledger import read_ledger, stage_folders

IN_SHARDS = "in shards"
_OF_NO_TAG = ("page: ", "file: ")


def accounted(folder: Path, out: Path) -> dict[str, Any]:
    """What became of every tag that was written, by kind.

    Raises:
        AssertionError: the ledger does not say what the crawl says: a tag is missing, is there too often, or fell for
            another cause when its page was read.
    """
    tags = pq.read_table(folder / "tags.parquet").to_pylist()
    read, *later = stage_folders(out / "work")
    found: Counter[tuple[str, str]] = Counter()
    pages: Counter[str] = Counter()
    for key, cause in _rows(read):
        if cause.startswith(_OF_NO_TAG):
            pages[cause] += 1
        else:
            found[key, cause] += 1
    written = Counter((tag["key"], tag["fault"]) for tag in tags)
    missing, surplus = written - found, found - written
    assert not missing, (missing.total(), list(missing)[:3])
    assert not surplus, (surplus.total(), list(surplus)[:3])

    outcome = _outcomes(later, {key for key, fault in written if not fault})
    told: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for tag in tags:
        if tag["fault"]:
            became = f"read: {tag['fault']}"
        elif tag["key"] in seen:
            became = "duplicates-pair: same pair"
        else:
            became = outcome[tag["key"]]
            seen.add(tag["key"])
        told[tag["kind"], became] += 1
    assert told.total() == len(tags)
    by_cause: Counter[str] = Counter()
    for (_, became), count in told.items():
        by_cause[became] += count
    stages = read_ledger(out / "work")
    for stage in stages[1:]:
        for cause, count in stage.dropped.items():
            assert by_cause[f"{stage.name}: {cause}"] == count, (stage.name, cause, count)
    assert by_cause[IN_SHARDS] == stages[-1].kept
    kinds: dict[str, dict[str, int]] = {}
    for (kind, became), count in told.most_common():
        kinds.setdefault(kind, {})[became] = count
    return {
        "tags": len(tags),
        "accounted for": told.total(),
        "in shards": by_cause[IN_SHARDS],
        "by cause": dict(by_cause.most_common()),
        "records that are no page": dict(pages),
        "by kind": kinds,
        "in shards, named rightly": _named(tags, outcome),
    }


def found_overlap(folder: Path, out: Path) -> dict[str, Any]:
    """Hidden evaluation pictures: how many of those that came to the stage were found, by change, and what else was."""
    tags = pq.read_table(folder / "tags.parquet").to_pylist()
    hidden = {tag["key"]: tag for tag in tags if tag["kind"] == "evaluation picture" and not tag["fault"]}
    stage = next(path for path in stage_folders(out / "work") if path.name.endswith("-overlap"))
    rows = list(_rows(stage))
    came, found = {key for key, _ in rows if key in hidden}, [key for key, cause in rows if cause]
    others = [key for key in found if key not in hidden]
    of_change: dict[str, list[bool]] = {}
    gone = set(found)
    for key in sorted(came):
        of_change.setdefault(hidden[key]["change"], []).append(key in gone)
    return {
        "hidden pairs": len(hidden),
        "came to the stage": len(came),
        "found": len(found) - len(others),
        "recall": round((len(found) - len(others)) / max(1, len(came)), 4),
        "precision": round((len(found) - len(others)) / max(1, len(found)), 4),
        "others among": len(rows) - len(came),
        "others found": dict(Counter(_styles(tags, others)).most_common()),
        "by change": [
            {"change": change, "n": len(values), "recall": round(sum(values) / len(values), 4)}
            for change, values in sorted(of_change.items())
        ],
    }


def stage_bytes(out: Path) -> list[dict[str, Any]]:
    """What each stage left on the disk."""
    told = []
    for path, stage in zip(stage_folders(out / "work"), read_ledger(out / "work"), strict=True):
        files = [file for file in path.rglob("*") if file.is_file()]
        size: Counter[str] = Counter()
        for file in files:
            name = file.name if file.parent.parent.name == "parts" else file.parent.name
            size[name.removesuffix(".parquet")] += file.stat().st_size
        told.append(
            {
                "stage": stage.name,
                "read": stage.read,
                "kept": stage.kept,
                "files": len(files),
                "parts": len(list(path.glob("parts/*"))),
                "bytes": dict(size.most_common()),
                "bytes a kept row, without pictures": round(size["rows"] / max(1, stage.kept), 1),
                "bytes a dropped row": round(size["dropped"] / max(1, stage.read - stage.kept), 1),
            }
        )
    return told


def _rows(stage: Path) -> list[tuple[str, str]]:
    """Key and cause of every row that a stage read; no cause of those that it kept."""
    rows = []
    for part in sorted(stage.glob("parts/*")):
        rows += [(key, "") for key in pq.read_table(part / "rows.parquet", columns=["key"])["key"].to_pylist()]
        gone = pq.read_table(part / "dropped.parquet", columns=["key", "cause"])
        rows += list(zip(gone["key"].to_pylist(), gone["cause"].to_pylist(), strict=True))
    return rows


def _outcomes(stages: list[Path], keys: set[str]) -> dict[str, str]:
    """What became of each key after reading; of several rows of one key the last."""
    outcome: dict[str, str] = {}
    kept: set[str] = set()
    for stage in stages:
        name = stage.name.partition("-")[2]
        rows = _rows(stage)
        kept = {key for key, cause in rows if not cause}
        outcome |= {key: f"{name}: {cause}" for key, cause in rows if cause and key not in kept}
    outcome |= dict.fromkeys(kept, IN_SHARDS)
    assert outcome.keys() == keys, (len(outcome), len(keys))
    return outcome


def _named(tags: list[dict[str, Any]], outcome: dict[str, str]) -> float:
    """Share of the pairs in the shards whose text names what the picture shows."""
    named = {tag["key"]: tag["named"] for tag in tags if not tag["fault"] and outcome[tag["key"]] == IN_SHARDS}
    return round(sum(named.values()) / max(1, len(named)), 4)


def _styles(tags: list[dict[str, Any]], keys: list[str]) -> list[str]:
    subjects = {tag["key"]: tag["subject"] for tag in tags}
    return [subjects[key].partition("/")[0] or "photographs" for key in keys]
