"""Curation, section by section: processor time and peak memory, each in a process of its own.

    python benchmarks/curate.py texts        (2 minutes; WordNet's files: --wordnet FOLDER)

texts: a million alt texts in a Parquet table of addresses and texts go through the text rules, a list of queries from
packages, and MetaCLIP's balance. The process reads the table in parts of 100,000 rows, makes keys, judges, writes each
part's rows and ledger as Parquet, then reads them again for the draw: what one worker does, without the runner. Making
the table and the list of queries is not in it; reading the list and building what finds it is. There are two tables:
"like the web" has 3.5 matches a text, as MetaCLIP's pool, since half of what alt texts hold is made-up product codes,
names and file names; in "plain words" all is English in its frequencies, and a text has three times as many matches.
Writes results/curate.json; sections that are not run stay as they were.
"""

import argparse
import datetime
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import history
from diptych.captions.balance import Balance
from diptych.captions.match import Match
from diptych.captions.queries import merged
from diptych.captions.query_sources import packaged, wordnet
from diptych.rows.columns import pair_key, pairs_table
from diptych.rows.stage import CurateStage, Whole
from diptych.runtime import hardware

SEED, TEXTS, PART, T = 0, 1_000_000, 100_000, 20
RESULT = history.RESULTS / "curate.json"
LIMITS = {"processor seconds": 60, "peak MB": 700}
# Words of a text: at least one, the others geometric; and the share of them that are English.
TABLES = {"like the web": (7.6, 0.352), "plain words": (9.5, 1.0)}
_HAS_TEXT_RULES = importlib.util.find_spec("diptych.captions.text_rules") is not None


def write_table(file: Path, mean: float, english: float) -> None:
    """Addresses and alt texts, in the columns that LAION's tables have."""
    import wordfreq

    rng = np.random.default_rng(SEED)
    frequencies = wordfreq.get_frequency_dict("en", wordlist="large")
    words, weights = np.array(list(frequencies), object), np.array(list(frequencies.values()))
    sums = np.cumsum(weights)
    with pq.ParquetWriter(file, pa.schema([("URL", pa.string()), ("TEXT", pa.string())])) as writer:
        for start in range(0, TEXTS, PART):
            lengths = np.minimum(1 + rng.geometric(1 / mean, PART), 60)
            tokens = words[np.searchsorted(sums, rng.random(lengths.sum()) * sums[-1])]
            other = rng.random(len(tokens)) >= english
            tokens[other] = made_up(rng, int(other.sum()))
            capital = rng.random(len(tokens)) < 0.3
            tokens[capital] = [word.capitalize() for word in tokens[capital]]
            ends = np.cumsum(lengths)
            texts = [" ".join(tokens[end - length : end]) for length, end in zip(lengths, ends, strict=True)]
            marks = rng.choice(np.array(["", ".", "!", ", HD"], object), PART, p=[0.7, 0.2, 0.05, 0.05])
            urls = [f"https://pictures.example/{start + i:08}.jpg" for i in range(PART)]
            writer.write_table(pa.table({"URL": urls, "TEXT": [a + b for a, b in zip(texts, marks, strict=True)]}))


def made_up(rng: np.random.Generator, number: int) -> np.ndarray:
    """Words that no list has: "kuzamo418", "XT-5521"."""
    consonants, vowels = np.array(list("bdfgklmnprstvz")), np.array(list("aeiou"))
    syllables = [np.char.add(rng.choice(consonants, number), rng.choice(vowels, number)) for _ in range(3)]
    numbers = rng.integers(100, 10_000, number).astype(str)
    names = np.char.add(np.char.add(np.char.add(*syllables[:2]), syllables[2]), numbers)
    codes = np.char.add(np.char.add(np.char.upper(syllables[0]), "-"), numbers)
    return np.where(rng.random(number) < 0.5, names, codes).astype(object)


def through_stages(table: Path, queries: Path, work: Path) -> dict[str, Any]:
    """What the measured process does."""
    stages: list[CurateStage] = [*text_stages(), Match(queries=str(queries))]
    balance = Balance(queries=str(queries), t=T, seed=SEED)
    seconds: dict[str, float] = {"read": 0.0, **{stage.name: 0.0 for stage in stages}, "balance": 0.0, "write": 0.0}
    rows = dict.fromkeys(seconds, 0)
    matches = 0

    def done(name: str, start: float, count: int) -> float:
        now = time.process_time()
        seconds[name] += now - start
        rows[name] += count
        return now

    counts = []
    start = time.process_time()
    for number, part in enumerate(read_parts(table)):
        start = done("read", start, len(part))
        for stage in stages:
            judged = stage.apply(part, Whole())
            start, part = done(stage.name, start, len(judged.kept)), judged.kept
            pq.write_table(judged.dropped, work / f"{stage.name}-dropped-{number}.parquet", compression="zstd")
            start = done("write", start, 0)
        matches += len(part["queries"].combine_chunks().flatten())
        counts.append(balance.count(part))
        start = done("balance", start, 0)
        pq.write_table(part, work / f"rows-{number}.parquet", compression="zstd")
        start = done("write", start, 0)
    facts = balance.total(counts)
    for number in range(len(counts)):
        judged = balance.apply(pq.read_table(work / f"rows-{number}.parquet"), Whole(facts=facts))
        start = done("balance", start, len(judged.kept))
        pq.write_table(judged.kept, work / f"kept-{number}.parquet", compression="zstd")
        pq.write_table(judged.dropped, work / f"dropped-{number}.parquet", compression="zstd")
        start = done("write", start, 0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "processor seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak MB": round(peak_bytes() / 1e6),
        "matches a text": round(matches / max(rows["match"], 1), 2),
        "rows": {name: count for name, count in rows.items() if name != "write"},
        "seconds of each": {name: round(value, 1) for name, value in seconds.items()},
    }


def peak_bytes() -> int:
    """Of this process, as Linux tells it; ru_maxrss also counts what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def text_stages() -> list[CurateStage]:
    """The rules over texts, where they are there."""
    if not _HAS_TEXT_RULES:
        return []
    from diptych.captions import text_rules

    return [text_rules.TextRules()]


def read_parts(table: Path) -> Iterator[pa.Table]:
    """Rows of pairs of a table of addresses and texts."""
    for batch in pq.ParquetFile(table).iter_batches(PART):
        urls, texts = batch["URL"].to_pylist(), batch["TEXT"].to_pylist()
        yield pairs_table(
            [
                {"key": pair_key(url, text), "text": text, "url": url, "source": 0}
                for url, text in zip(urls, texts, strict=True)
            ]
        )


def texts_section(wordnet_folder: Path | None) -> dict[str, Any]:
    """Both tables through a process each."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = packaged()
        if wordnet_folder:
            sources.append(wordnet(wordnet_folder))
        made = merged(sources, 500_000)
        made.save(folder / "queries.txt")
        for table, (mean, english) in TABLES.items():
            file, work = folder / "table.parquet", folder / table
            work.mkdir()
            write_table(file, mean, english)
            command = [sys.executable, __file__, "child", str(file), str(folder / "queries.txt"), str(work)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
            row = {"table": table, "MB of text": round(text_bytes(file) / 1e6), **json.loads(done.stdout)}
            rows.append(row | {"within the limits": all(row[key] <= most for key, most in LIMITS.items())})
    return {"texts": TEXTS, "queries": len(made.texts), "t": T, "text rules": _HAS_TEXT_RULES, "rows": rows}


def text_bytes(table: Path) -> int:
    return sum(len(text.encode()) for text in pq.read_table(table, columns=["TEXT"])["TEXT"].to_pylist())


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(through_stages(*map(Path, sys.argv[2:]))))
        return

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["texts"])
    parser.add_argument("--wordnet", type=Path, help="folder of WordNet's files, for 89,000 queries more")
    arguments = parser.parse_args()
    measured = {arguments.section: texts_section(arguments.wordnet)}
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    now = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "hardware": hardware(), "seed": SEED}
    history.write(RESULT, before | now | measured, keys=("table",), measured=measured)
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
