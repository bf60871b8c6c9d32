"""From a crawl to a model: pages whose picture tags are known, curated, checked against the ledger, and trained on.

    python benchmarks/curate_crawl.py --work runs/curate-crawl [--data DATA] [--parts ...] [--pages 20000]

Writes a crawl (`made_crawl.py`), serves its pictures on this machine's loopback addresses, makes queries from packages,
and runs `diptych curate recipes/curate/crawl.toml`. Part "threshold" is what the threshold of overlap was chosen by.
Part "ledger" holds the ledger against the tags that were written; then a small model learns for a short while from the
shards, and the recipe is run again with that model's CLIP score, which sees wrong names. Part "train" trains the demo's
model at equal steps on these shards, on those before the filter, and on the same crawl without curation: what could be
fetched and has a text, with the evaluation pictures that are hidden in it and without them; and measures all on the
style that is held out, and on another one, `noto-v1`, which is in no crawl either. Part "workers" makes the shards of a
smaller crawl with 1, 2 and 4 workers, with daft, and through kills at random moments. DATA holds the shared sets, whose
photographs stand beside texts that do not tell of them; without it patches of colour do. With the package `emoji` sites
in ten other languages are among them. What is done already in the folder is used again. Writes
results/curate_crawl.json.
"""

import argparse
import contextlib
import datetime
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import history
from crawl_ledger import (
    accounted,
    found_in_shards,
    found_overlap,
    hidden_in_shards,
    named_by_score,
    stage_bytes,
    thresholds_on,
)
from crawl_server import HOSTS
from diptych.data.embedded import HELD_OUT, data_path
from diptych.eval.comparison import compared
from diptych.eval.result import Result
from diptych.eval.result_file import read_result
from diptych.measures.compare import compare_correct
from diptych.runtime import hardware, instruction_sets
from diptych.sets.writer import write_labelled
from made_crawl import SHARES, write_crawl
from made_crawl_pictures import VALIDATION_STYLE, training_pictures, validation_pictures

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "curate" / "crawl.toml"
DEMO = ROOT / "src" / "diptych" / "cli" / "demo.toml"
NOT_CURATED = """name = "crawl, not curated"
[[sources]]
path = "crawl"
[text]
rules = []
[fetch]
seconds_silent = 5.0
retries = 1
back_off = 0.2
[pictures]
min_side = 0
max_aspect = 1000.0
min_bytes = 0
min_detail = 0.0
[duplicates]
bytes = false
look = false
[shards]
samples = 5000
"""
FIRST = "curated, before the filter"
ARMS = ("curated", "not curated", FIRST, "not curated, evaluation pictures out")
FILTER_STEPS, FILTER_SHARE, FILTER_SHARES = 300, 0.5, (0.4, 0.5, 0.6)
PARTS = ("threshold", "ledger", "train", "workers")
RESULT = history.RESULTS / "curate_crawl.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--workers-pages", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=18_765)
    parser.add_argument("--set", dest="set_", nargs="*", default=[], help="options of the recipe, to try others")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    measured = {f"train, {args.steps} steps" if part == "train" else part: globals()[part](args) for part in args.parts}
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    result = {**before, **measured, "seed": 0, "shares": SHARES, "hardware": hardware()}
    result |= {
        "instructions": instruction_sets(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    history.write(args.out, result, keys=("kind", "arm", "change", "stage", "threshold", "share"), measured=measured)


def ledger(args: argparse.Namespace) -> dict[str, Any]:
    """Curate the crawl, in both ways, and hold the ledger against what was written."""
    folder = args.work / f"crawl-{args.pages}"
    write_crawl(folder, pages=args.pages, seed=0, port=args.port, data=args.data)
    _queries(folder)
    told: dict[str, Any] = {"crawl": json.loads((folder / "crawl.json").read_text())}
    told["crawl"]["asked"]["data"] = bool(args.data)
    with served(folder, args.port):
        told[FIRST] = _curated(folder, RECIPE.read_text(), args, [*_overlap(), *args.set_], name=FIRST)
        told["filter"] = _trained(folder / FIRST / "shards", folder / "filter", FILTER_STEPS, seed=7)
        told["curated"] = _filtered(folder, args)
        told["not curated"] = _curated(folder, NOT_CURATED, args, [], name="not curated")
    for arm in (FIRST, *ARMS[:2]):
        told[arm] |= {"ledger": accounted(folder, folder / arm)}
        told[arm] |= {"stages": stage_bytes(folder / arm)}
    told["overlap, after all rules"] = found_overlap(folder, folder / ARMS[0])
    told["overlap, in what was fetched"] = found_in_shards(folder, folder / ARMS[1], others=1_000)
    told["named rightly among the best by the filter"] = named_by_score(folder, folder / ARMS[0], FILTER_SHARES)
    if not (folder / ARMS[3]).exists():
        shutil.copytree(folder / ARMS[1], folder / ARMS[3])
        hidden = hidden_in_shards(folder, folder / ARMS[1])
        _run(["curate", "remove", str(folder / ARMS[3]), *hidden, "--note", "evaluation pictures"])
    return told


def _filtered(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same recipe, and then the half of the pairs that a model of the crawl's own finds most fitting.

    A model that has learned for a few passes knows what most pages agree on, and not yet by heart what one says
    (arXiv:2309.17425). Stages before the score are taken over.
    """
    if not (folder / ARMS[0]).exists():
        shutil.copytree(folder / FIRST / "work", folder / ARMS[0] / "work", ignore=shutil.ignore_patterns("shards"))
    model = json.dumps(str((folder / "filter" / "bundle").resolve()))
    options = [*_overlap(), f"score.model={model}", f"best.share={FILTER_SHARE}", *args.set_]
    return _curated(folder, RECIPE.read_text(), args, options)


def threshold(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Copies of `noto-v1` among other drawings, by the threshold of overlap."""
    others = training_pictures()
    drawn = np.random.default_rng(0).permutation(len(others))[:1_000]
    return thresholds_on(validation_pictures(), [others[i] for i in drawn.tolist()], copied=30)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train on each arm, and compare."""
    folder = args.work / f"crawl-{args.pages}"
    validation = _validation_set(args.work)
    results: dict[tuple[str, str, int], Result] = {}
    runs = []
    for seed in range(args.seeds):
        for arm in args.arms:
            out = args.work / f"model-{args.steps}" / f"{arm}, seed {seed}"
            facts = _trained(folder / arm / "shards", out, args.steps, seed)
            for name, data in (("held out", HELD_OUT), (VALIDATION_STYLE, str(validation))):
                file = out / f"{name}.json"
                if not file.exists():
                    _run(["evaluate", "zero-shot", "--model", str(out / "bundle"), "--data", data, "--out", str(file)])
                results[arm, name, seed] = read_result(file)
                numbers = results[arm, name, seed].numbers
                facts[name] = {one: round(numbers[one], 4) for one in ("top-1", "top-5")}
            runs.append({"arm": f"{arm}, seed {seed}", **facts})
    told: dict[str, Any] = {"steps": args.steps, "pairs seen": args.steps * 256, "runs": runs, "margins": {}}
    for name in ("held out", VALIDATION_STYLE):
        for arm in args.arms[1:]:
            pairs = [(results[arm, name, seed], results[args.arms[0], name, seed]) for seed in range(args.seeds)]
            told["margins"][f"{name}: {args.arms[0]} above {arm}"] = _margin(pairs)
    told["test pictures that are hidden in the crawl"] = _apart(folder, results, args)
    return told


def workers(args: argparse.Namespace) -> dict[str, Any]:
    """The shards of a smaller crawl, made in different ways, are the same to the byte."""
    folder = args.work / f"crawl-{args.workers_pages}"
    write_crawl(folder, pages=args.workers_pages, seed=0, port=args.port + 1, data=args.data)
    _queries(folder)
    options = [*_overlap(), "shards.samples=100", "fetch.part_rows=100", "fetch.retries=0",
               "fetch.seconds_silent=3.0"]  # fmt: skip
    told: dict[str, Any] = {"pages": args.workers_pages, "shards": {}}
    with served(folder, args.port + 1):
        for name, extra in (("1", ["--workers", "1"]), ("2", ["--workers", "2"]), ("4", ["--workers", "4"]),
                            ("daft", ["--workers", "2", "--engine", "daft"])):  # fmt: skip
            _carry_out(folder, RECIPE.read_text(), args.port + 1, options, f"by {name}", extra)
            told["shards"][name] = _digest(folder / f"by {name}" / "shards")
        told |= _killed(folder, args, [*options[2:], "fetch.seconds_silent=10.0"])
    told["same"] = len({*told["shards"].values()}) == 1
    assert told["same"], told
    return told


def _killed(folder: Path, args: argparse.Namespace, options: Sequence[str]) -> dict[str, Any]:
    """Kills of the whole process group at random moments, until there were so many; each time it goes on.

    Without overlap, in which most of the time would go by.
    """
    command = _command(folder, RECIPE.read_text(), args.port + 1, options, "killed", ["--workers", "2"])
    shutil.rmtree(folder / "killed", ignore_errors=True)
    start = time.monotonic()
    _wait(command, None)
    longest = time.monotonic() - start
    reference = _digest(folder / "killed" / "shards")
    draw, kills, whole = np.random.default_rng(0), 0, list[str]()
    during: Counter[str] = Counter()
    shutil.rmtree(folder / "killed")
    while kills < args.kills or not whole:
        last = kills >= args.kills
        if _wait(command, None if last else float(draw.uniform(1, longest * 0.7))):
            whole.append(_digest(folder / "killed" / "shards"))
            if not last:
                shutil.rmtree(folder / "killed")
        else:
            kills += 1
            stages = sorted(path.name for path in (folder / "killed" / "work").glob("*"))
            during[stages[-1] if stages else "before reading"] += 1
    assert {*whole} == {reference}, (whole, reference)
    return {"kills": kills, "whole after kills": len(whole), "killed during": dict(sorted(during.items()))} | {
        "same after kills": True
    }


def _wait(command: Sequence[str], seconds: float | None) -> bool:
    """Whether a command came to its end; else its whole group is killed after so many seconds."""
    process = subprocess.Popen(command, start_new_session=True, env=_environment(), stdout=subprocess.DEVNULL)
    try:
        assert process.wait(seconds or 3600) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def _curated(
    folder: Path, recipe: str, args: argparse.Namespace, options: Sequence[str], name: str = ARMS[0]
) -> dict[str, Any]:
    _carry_out(folder, recipe, args.port, options, name, ["--workers", str(args.workers)])
    return {"shards": _digest(folder / name / "shards")}


def _carry_out(folder: Path, recipe: str, port: int, options: Sequence[str], name: str, extra: Sequence[str]) -> None:
    subprocess.run(_command(folder, recipe, port, options, name, extra), check=True, env=_environment())


def _command(
    folder: Path, recipe: str, port: int, options: Sequence[str], name: str, extra: Sequence[str]
) -> list[str]:
    path = folder / f"{name}.toml"
    path.write_text(recipe)
    hosts = ", ".join(f'"{host}:{port}"' for host in HOSTS)
    # A busy machine answers late; a host that is given up would make the shards depend on it.
    asked = [f"fetch.allow_hosts=[{hosts}]", "fetch.max_host_failures=1000", *options]
    sets = [word for option in asked for word in ("--set", option)]
    return [sys.executable, "-m", "diptych", "curate", str(path), str(folder / name), *sets, *extra]


def _run(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "diptych", *words], check=True, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _overlap() -> list[str]:
    """Drawings look more alike than photographs; the threshold was chosen on `noto-v1`."""
    return [f"overlap.data={json.dumps([str(data_path(HELD_OUT))])}", "overlap.threshold=0.95"]


def _queries(folder: Path) -> None:
    if not (folder / "queries.txt").exists():
        _run(["curate", "queries", str(folder / "queries.txt"), "--packages"])


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    """The crawl's hosts, in a process of their own."""
    command = [sys.executable, str(Path(__file__).parent / "crawl_server.py"), str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.terminate()


def _digest(shards: Path) -> str:
    """SHA-256 of all files of a folder, by name."""
    digest = hashlib.sha256()
    for path in sorted(path for path in shards.iterdir() if path.is_file()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _trained(shards: Path, out: Path, steps: int, seed: int) -> dict[str, Any]:
    if not (out / "results.json").exists():
        options = [
            f'data.sources=[{{path="{shards}"}}]', f"train.steps={steps}", f"seed={seed}", "evaluate=[]",
            "train.evaluate_every=0", "train.optimizer=muon", "train.orthogonal_every=2",
        ]  # fmt: skip
        _run(["train", str(DEMO), "--out", str(out), *(word for one in options for word in ("--set", one))])
    facts = json.loads((out / "results.json").read_text())
    return {"pairs seen": facts["counts"]["pairs"], "minutes": round(facts["counts"]["train_seconds"] / 60, 2)}


def _validation_set(work: Path) -> Path:
    folder = work / VALIDATION_STYLE
    if not folder.exists():
        pictures = sorted(validation_pictures(), key=lambda one: one.caption)
        names = [one.caption.partition("\n")[0] for one in pictures]
        rows = [(one.key, Image.open(io.BytesIO(one.data)), number) for number, one in enumerate(pictures)]
        write_labelled(folder, names, {"test": rows}, templates=["{}"], about="A style that no made crawl has.")
    return folder


def _margin(pairs: Sequence[tuple[Result, Result]]) -> dict[str, Any]:
    """How much higher the second of each pair is, one pair a seed; the interval is over pictures, then over seeds."""
    each = [compared(before, after) for before, after in pairs]
    right = [(_correct(before), _correct(after)) for before, after in pairs]
    differences = torch.stack([after.double() - before.double() for before, after in right])  # [seeds, N]
    draw = np.random.default_rng(0)
    seeds, n = differences.shape
    values = differences.numpy()
    drawn = [
        values[np.ix_(draw.integers(seeds, size=seeds), draw.integers(n, size=n))].mean() for _ in range(2000)
    ]  # pictures and seeds drawn anew
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "margin": round(float(values.mean()), 4),
        "interval over pictures and seeds": [round(float(low), 4), round(float(high), 4)],
        "by seed": [
            {"margin": round(one.difference, 4), "interval": [round(one.interval.low, 4), round(one.interval.high, 4)],
             "p, McNemar": one.p_value}
            for one in each
        ],
    }  # fmt: skip


def _correct(result: Result) -> torch.Tensor:
    assert result.rows.correct is not None
    return result.rows.correct


def _apart(folder: Path, results: dict[tuple[str, str, int], Result], args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on the test pictures that are in the crawl, and on the others."""
    tags = pq.read_table(folder / "tags.parquet")
    hidden = {key for key, kind in zip(tags["subject"].to_pylist(), tags["kind"].to_pylist(), strict=True)
              if kind == "evaluation picture"}  # fmt: skip
    told: dict[str, Any] = {}
    for arm in args.arms:
        rows = [results[arm, "held out", seed].rows for seed in range(args.seeds)]
        is_hidden = torch.tensor([key.partition("/")[2] in hidden for key in rows[0].keys])  # behind the shard's name
        right = torch.stack([_correct(results[arm, "held out", seed]).double() for seed in range(args.seeds)]).mean(0)
        told[arm] = {
            "hidden": round(float(right[is_hidden].mean()), 4),
            "others": round(float(right[~is_hidden].mean()), 4),
            "n hidden": int(is_hidden.sum()),
        }
    first, *rest = args.arms
    if rest:
        is_hidden = torch.tensor([key.partition("/")[2] in hidden for key in results[first, "held out", 0].rows.keys])
        for arm in rest:
            others = [
                compare_correct(
                    _correct(results[arm, "held out", seed])[~is_hidden],
                    _correct(results[first, "held out", seed])[~is_hidden],
                )
                for seed in range(args.seeds)
            ]
            told[f"others: {first} above {arm}"] = [round(one.difference, 4) for one in others]
    return told


if __name__ == "__main__":
    main()
