"""Balance on counts like MetaCLIP's published ones: how many pairs are kept at t = 20,000, and what the head holds.

    python benchmarks/curate_balance.py --captions ../shared/data/flickr8k       (10 minutes, writes results/)

Published (arXiv:2309.16671): 500,000 queries, of which 114,000 match nothing; 16,000 have more than 20,000 matches and
hold 94.5 % of all 5.6 billion; the largest three have 120, 107 and 100 million; 1.6 billion pairs become 400 million.
The fit: the c-th head query has C / (c + b)^a matches, the tail goes on as K / (c + k)^s, and these six numbers follow
from the published ones, of which the second and third largest count are left to check it. Pool and t are scaled down
together by --scale; `Balance` and `Cap` then run over it, part by part.

The counts alone leave open how many are kept: what matters is which queries are matched by the same text. So each pool
is one joint distribution with the published counts: how the number of head queries of a text is spread (at least one;
the others Poisson, or geometric), and how many tail queries a text has that has any ("together": 1 + Poisson). The last
two pools are those at which 400 million are kept, worked out from the formula and then run. With --captions the same
number is measured on real sentences, with a list from packages, where queries above t hold 94.5 % of the matches,
beside what it would be if tail queries came one by one.
"""

import argparse
import datetime
import math
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import brentq, fsolve

import history
from diptych.captions.balance import Balance, Cap, added, curve, match_counts
from diptych.captions.match import Matcher
from diptych.captions.queries import merged, read_queries
from diptych.captions.query_sources import packaged
from diptych.rows.columns import pairs_table
from diptych.rows.stage import Whole
from diptych.runtime import hardware

QUERIES, MATCHED, HEAD, T = 500_000, 386_000, 16_000, 20_000
PAIRS, MATCHES, HEAD_SHARE, LARGEST, KEPT = 1.6e9, 5.6e9, 0.945, 120e6, 400e6
SEED, PART = 0, 1_000_000  # pairs of a part
RESULT = history.RESULTS / "curate_balance.json"


def published_counts() -> np.ndarray:
    """[MATCHED] matches of each query, the most frequent first: the fit."""
    rank = np.arange(1, HEAD + 1)

    def head(a: float, b: float) -> np.ndarray:
        return LARGEST * ((1 + b) / (rank + b)) ** a

    def head_off(x: np.ndarray) -> list[float]:
        counts = head(*x)
        return [math.log(counts[-1] / T), math.log(counts.sum() / (HEAD_SHARE * MATCHES))]

    beyond = np.arange(HEAD + 1, MATCHED + 1)

    def tail(s: float, k: float) -> np.ndarray:
        return T * ((HEAD + k) / (beyond + k)) ** s

    def tail_off(x: np.ndarray) -> list[float]:
        counts = tail(*x)
        return [math.log(counts[-1]), math.log(counts.sum() / ((1 - HEAD_SHARE) * MATCHES))]

    return np.concatenate([head(*fsolve(head_off, [1.1, 1.0])), tail(*fsolve(tail_off, [2.0, 1000.0]))])


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Which queries are matched together."""

    heads: str  # "poisson" or "geometric", the number of head queries of a text beyond the first
    together: float | None  # mean number of tail queries of a text that has any; None: each goes where it falls

    @property
    def name(self) -> str:
        tail = "apart" if self.together is None else f"{self.together:.2f} together"
        return f"head {self.heads}, tail {tail}"


def kept_by_formula(joint: Joint, counts: np.ndarray) -> float:
    """Pairs that are expected to be kept: 1 - P(no tail query) P(no draw of the head)."""
    head, tail = counts[counts > T], counts[counts <= T].sum() / PAIRS
    miss, number = 1 - len(head) * T / head.sum(), head.sum() / PAIRS
    missed = (
        miss * math.exp(-(1 - miss) * (number - 1))
        if joint.heads == "poisson"
        else miss / number / (1 - (1 - 1 / number) * miss)
    )
    without = math.exp(-tail) if joint.together is None else 1 - tail / joint.together
    return PAIRS * (1 - without * missed)


def drawn_part(joint: Joint, counts: np.ndarray, part: int, pairs: int) -> pa.Table:
    """Pairs with their queries, the same whenever they are drawn."""
    rng = np.random.default_rng([SEED, part])
    head, tail = int((counts > T).sum()), counts[counts <= T].sum() / PAIRS
    number = counts[:head].sum() / PAIRS
    heads = 1 + rng.poisson(number - 1, pairs) if joint.heads == "poisson" else rng.geometric(1 / number, pairs)
    if joint.together is None:
        tails = rng.poisson(tail, pairs)
    else:
        tails = (rng.random(pairs) < tail / joint.together) * (1 + rng.poisson(joint.together - 1, pairs))
    rows = np.concatenate([np.repeat(np.arange(pairs), heads), np.repeat(np.arange(pairs), tails)])
    queries = np.concatenate([chosen(rng, counts[:head], heads.sum()), head + chosen(rng, counts[head:], tails.sum())])
    matches = np.sort(rows * QUERIES + queries)
    matches = matches[np.diff(matches, prepend=-1) > 0]
    offsets = np.searchsorted(matches, np.arange(pairs + 1) * QUERIES).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array((matches % QUERIES).astype(np.int32)))
    keys = pa.array([f"{key:032x}" for key in range(part * PART, part * PART + pairs)])
    return pa.table({"key": keys, "queries": lists})


def chosen(rng: np.random.Generator, counts: np.ndarray, number: int) -> np.ndarray:
    return np.searchsorted(np.cumsum(counts), rng.random(number) * counts.sum()).astype(np.int64)


def simulate(
    joint: Joint, counts: np.ndarray, scale: int, path: str, rule: type[Balance] | type[Cap]
) -> dict[str, Any]:
    """One pool through one rule."""
    pairs = round(PAIRS / scale)
    sizes = [min(PART, pairs - start) for start in range(0, pairs, PART)]

    def parts() -> Iterator[pa.Table]:
        return (drawn_part(joint, counts, part, size) for part, size in enumerate(sizes))

    stage = rule(queries=path, t=max(1, round(T / scale)), seed=SEED)
    facts = stage.total(stage.count(rows) for rows in parts())
    verdicts = capped(stage, parts(), facts) if isinstance(stage, Cap) else {}
    kept, after = 0, []
    for part, rows in enumerate(parts()):
        judged = stage.apply(rows, Whole(facts=facts, verdicts=verdicts.get(part)))
        kept += len(judged.kept)
        after.append(stage.count(judged.kept))
    told = curve(facts, added(after), QUERIES)
    through = pc.sum(pc.min_element_wise(facts["count"], facts["t"])).as_py()
    return {
        "rule": "metaclip" if rule is Balance else "cap",
        "joint": joint.name,
        "pairs": pairs,
        "t": stage.t,
        "matches a pair": round(told.matches / pairs, 3),
        "head, share of queries": round(told.head_of_queries, 4),
        "head, share of matches": round(told.head_share, 4),
        "head, share of matches after": round(told.head_share_after, 4),
        "kept, millions at full size": round(kept * scale / 1e6, 1),
        "by the formula, millions": round(kept_by_formula(joint, counts) / 1e6, 1),
        "pairs that queries let through, with repeats, millions": round(through * scale / 1e6, 1),
    }


def capped(stage: Cap, parts: Iterator[pa.Table], facts: pa.Table) -> dict[int, pa.Table]:
    """The verdicts of each part: one bucket holds all."""
    sent = []
    for part, rows in enumerate(parts):
        table = stage.scatter(rows, Whole(facts=facts), 1)
        sent.append(table.append_column("part", pa.array(np.full(len(table), part, np.int32))))
    resolved = stage.resolve(pa.concat_tables(sent), Whole(facts=facts))
    return {part: resolved.filter(pc.equal(resolved["part"], part)) for part in range(len(sent))}


def on_captions(folder: Path, path: Path) -> dict[str, Any]:
    """How many tail queries a real sentence has that has any, where the head holds HEAD_SHARE of the matches."""
    texts = []
    for archive in sorted(folder.glob("*/*.tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".txt") else None
                texts += file.read().decode().splitlines() if file else []
    lists = Matcher(read_queries(path)).match(pa.array(texts))
    rows = pairs_table([{"key": f"{i:032x}", "text": text, "source": 0} for i, text in enumerate(texts)])
    rows = rows.append_column("queries", lists)
    counts = match_counts(rows, False)["count"].to_numpy()
    ordered = np.sort(counts)[::-1]
    t = int(ordered[np.searchsorted(np.cumsum(ordered) / ordered.sum(), HEAD_SHARE)])
    stage = Balance(queries=str(path), t=t, seed=SEED)
    facts = stage.total([stage.count(rows)])
    is_tail = np.zeros(int(pc.max(facts["query"]).as_py()) + 1, bool)
    is_tail[facts["query"].to_numpy()[facts["count"].to_numpy() <= t]] = True
    of_tail = np.bincount(pc.list_parent_indices(lists).to_numpy()[is_tail[lists.flatten().to_numpy()]])
    mean = of_tail.sum() / len(texts)
    kept = len(stage.apply(rows, Whole(facts=facts)).kept)
    through = int(np.minimum(counts, t).sum())
    return {
        "captions": len(texts),
        "matches a caption": round(len(lists.flatten()) / len(texts), 2),
        "t": t,
        "head, share of matches": round(float(counts[counts > t].sum() / counts.sum()), 4),
        "tail queries of a caption that has any": round(float(of_tail.sum() / (of_tail > 0).sum()), 2),
        "the same, if they came one by one": round(float(mean / -math.expm1(-mean)), 2),
        "kept": kept,
        "let through, with repeats, for each kept": round(through / kept, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=100, help="how many times smaller the pool is")
    parser.add_argument("--captions", type=Path, help="captioned pictures in shards, such as Flickr8k's")
    arguments = parser.parse_args()
    counts = published_counts()
    pools = [Joint(heads=heads, together=None) for heads in ("poisson", "geometric")]
    for heads in ("poisson", "geometric"):
        off = lambda mean, heads=heads: kept_by_formula(Joint(heads=heads, together=mean), counts) - KEPT  # noqa: E731
        pools.append(Joint(heads=heads, together=float(brentq(off, 1.0, 20.0))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.txt"
        path.write_text("".join(f"query {number}\n" for number in range(QUERIES)))
        rows = [simulate(joint, counts, arguments.scale, str(path), Balance) for joint in pools]
        rows.append(simulate(pools[-1], counts, arguments.scale, str(path), Cap))
        captions = None
        if arguments.captions:
            real = Path(folder) / "packaged.txt"
            merged(packaged(), QUERIES).save(real)
            captions = on_captions(arguments.captions, real)
    result = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "seed": SEED,
        "scale": arguments.scale,
        "fit": {
            "largest three, millions": [round(count / 1e6, 1) for count in counts[:3]],
            "matches, billions": round(counts.sum() / 1e9, 3),
            "tail, millions of matches": round(counts[HEAD:].sum() / 1e6, 1),
        },
        "rows": rows,
        "captions": captions,
    }
    history.write(RESULT, result, keys=("rule", "joint"))
    for row in [*rows, captions or {}]:
        print("\n".join(f"{name}: {value}" for name, value in row.items()), end="\n\n")


if __name__ == "__main__":
    main()
