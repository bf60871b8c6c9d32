"""The ledger of a curated crawl, held against the tags that were written."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from diptych.curate.copies import Sketches, best_scores, small_grey
from diptych.curate.evaluation_pictures import known_pictures
from diptych.curate.ledger import read_ledger, stage_folders
from diptych.data.ahead import batched
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.tar import TarReader
from made_crawl_pictures import CHANGES, Picture, changed

IN_SHARDS = "in shards"
THRESHOLDS = (0.8, 0.9, 0.95, 0.97)
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
    hidden = _hidden(folder)
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
        "others found": dict(
            Counter(_styles(pq.read_table(folder / "tags.parquet").to_pylist(), others)).most_common()
        ),
        "by change": [
            {"change": change, "n": len(values), "recall": round(sum(values) / len(values), 4)}
            for change, values in sorted(of_change.items())
        ],
    }


def thresholds_on(known: Sequence[Picture], others: Sequence[Picture], *, copied: int) -> dict[str, Any]:
    """How well copies of some drawings are told from others, by threshold: what `overlap.threshold` is chosen by.

    Args:
        known: the drawings that are looked for.
        others: none of them; what is found among these are false alarms.
        copied: drawings of which a copy by each change is looked at.
    """
    draw = np.random.default_rng(0)
    sketches = Sketches.of([small_grey(one.data) for one in known])
    pictures = [changed(one, "as it is") for one in others]
    scores = best_scores(Sketches.of([small_grey(data) for data in pictures]), sketches)[1]
    of_change = {}
    for change in CHANGES:
        drawn = [known[i] for i in draw.permutation(len(known))[:copied].tolist()]
        of_change[change] = best_scores(Sketches.of([small_grey(changed(one, change)) for one in drawn]), sketches)[1]
    return {
        "known": len(known),
        "others": len(others),
        "copied by each change": copied,
        "thresholds": [
            {
                "threshold": threshold,
                "false alarms": int((scores >= threshold).sum()),
                "recall by change": {
                    change: round(float((one >= threshold).mean()), 4) for change, one in of_change.items()
                },
            }
            for threshold in THRESHOLDS
        ],
    }


def hidden_in_shards(folder: Path, out: Path) -> list[str]:
    """Keys of the pairs in the shards whose pictures are evaluation pictures."""
    hidden = _hidden(folder)
    return [key for path in sorted((out / "shards").glob("*.tar")) for key in _samples(path) if key in hidden]


def found_in_shards(folder: Path, out: Path, *, others: int) -> dict[str, Any]:
    """How well evaluation pictures are told from others in shards that nothing was dropped from, by threshold.

    Args:
        folder: of the crawl.
        out: of the curation.
        others: pictures of others that are looked at, drawn by chance; all hidden ones are.
    """
    hidden = _hidden(folder)
    places = [(path, key) for path in sorted((out / "shards").glob("*.tar")) for key in _samples(path)]
    mine = [place for place in places if place[1] in hidden]
    rest = [place for place in places if place[1] not in hidden]
    drawn = np.random.default_rng(0).permutation(len(rest))[:others]
    chosen = mine + [rest[i] for i in drawn.tolist()]
    readers = {path: _samples(path) for path in {path for path, _ in chosen}}
    _, known = known_pictures((str(data_path(HELD_OUT)),))
    scores = np.concatenate(
        [best_scores(Sketches.of([small_grey(readers[path][key]) for path, key in some]), known)[1]
         for some in batched(chosen, 256)]
    )  # fmt: skip
    is_hidden = np.arange(len(chosen)) < len(mine)
    styles = _styles(pq.read_table(folder / "tags.parquet").to_pylist(), [key for _, key in chosen])
    rows = []
    for threshold in THRESHOLDS:
        found = scores >= threshold
        rows.append(
            {
                "threshold": threshold,
                "recall": round(float(found[is_hidden].mean()), 4),
                "false alarms": int(found[~is_hidden].sum()),
                "share of others": round(float(found[~is_hidden].mean()), 4),
                "of these": dict(Counter(np.array(styles)[found & ~is_hidden].tolist()).most_common()),
                "recall by change": {
                    change: round(float(found[: len(mine)][at].mean()), 4)
                    for change in sorted({hidden[key]["change"] for _, key in mine})
                    if (at := np.array([hidden[key]["change"] == change for _, key in mine])).any()
                },
            }
        )
    return {"hidden": len(mine), "others": len(chosen) - len(mine), "thresholds": rows}


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


def named_by_score(folder: Path, out: Path, shares: Sequence[float]) -> dict[str, Any]:
    """How many of the pairs that came to the filter name what is shown, and of the best by its score."""
    stage = next(path for path in stage_folders(out / "work") if path.name.endswith("-clip-score"))
    parts = [pq.read_table(part / "rows.parquet", columns=["key", "clip_score"]) for part in stage.glob("parts/*")]
    scores = {key: score for part in parts for key, score in zip(*part.to_pydict().values(), strict=True)}
    tags = pq.read_table(folder / "tags.parquet", columns=["key", "named", "fault"]).to_pylist()
    named = {tag["key"]: tag["named"] for tag in tags if not tag["fault"]}
    right = np.array([named[key] for key in sorted(scores, key=lambda key: -scores[key])])
    told: dict[str, Any] = {"pairs": len(right), "named rightly": round(float(right.mean()), 4), "best": []}
    for share in shares:
        best = right[: round(share * len(right))]
        kept = round(float(best.sum() / right.sum()), 4)
        told["best"].append({"share": share, "named rightly": round(float(best.mean()), 4), "of the right ones": kept})
    return told


def _hidden(folder: Path) -> dict[str, dict[str, Any]]:
    tags = pq.read_table(folder / "tags.parquet").to_pylist()
    return {tag["key"]: tag for tag in tags if tag["kind"] == "evaluation picture" and not tag["fault"]}


@functools.cache
def _samples(path: Path) -> dict[str, bytes]:
    """The pictures of a shard by their keys."""
    reader = TarReader(path)
    return {
        sample.key: next(reader.read(*span) for ending, span in sample.parts.items() if ending not in ("txt", "json"))
        for sample in reader.index().samples
    }


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
