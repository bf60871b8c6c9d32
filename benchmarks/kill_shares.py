"""A run with checkpoints in shares is killed again and again: does it come out as one that was not?

    python benchmarks/kill_shares.py [--times 20] [--turns 6]

Each life is ended by SIGKILL to all its processes, at a random moment after its first checkpoint; then every checkpoint
that stands must be whole by its digests. First two processes are killed so many times, and the weights compared with
those of two that nobody killed, which must be the same to the bit. Then four, one and two processes take turns, whose
sums are rounded otherwise. FSDP, gloo, a checkpoint each step, an average of the weights; one process saves whole
checkpoints. Processes are forked from one that has torch, or starting them would be most of the time. Writes
results/kill_shares.json.
"""

import argparse
import datetime
import io
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

import history
from diptych.pairs.shards import ShardWriter
from diptych.runtime import hardware
from diptych.train.checkpoint import Checkpoint, list_checkpoints
from diptych.train.recipe import read_recipe
from diptych.train.trainer import train
from diptych.weights.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from processes import run_ranks, start_ranks, wait_until

SEED, STEPS = 0, 40
LONGEST = 600.0  # seconds of one life, on a machine that others use as well
RECIPE = f"""name = "killed"
seed = {SEED}
[model]
embed_dim = 32
image = {{ kind = "vit", image_size = 32, patch_size = 8, width = 32, layers = 2, heads = 2 }}
text = {{ context_length = 16, vocab_size = 600, width = 32, layers = 2, heads = 2 }}
[preprocess]
image_size = 32
[tokenizer]
vocab_size = 600
[data]
sources = [{{ path = "pairs" }}]
[train]
steps = {STEPS}
batch_size = 16
warmup_steps = 5
precision = "float32"
parallel = "fsdp"
ema_decay = 0.9
epsilon = 1e-4
checkpoint_every = 1
checkpoint_format = "shares"
stall_seconds = {LONGEST}
"""


def write_pairs(folder: Path) -> None:
    """64 pictures of one colour each."""
    with ShardWriter(folder) as writer:
        for n in range(64):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (4 * n, 255 - 4 * n, 37 * n % 256)).save(file, "PNG")
            writer.add(f"{n:02d}", {"png": file.getvalue(), "txt": f"picture number {n}".encode()})


def learn(recipe: Path, out: Path) -> None:
    train(read_recipe(recipe), out)


def steps(out: Path) -> list[str]:
    return [path.name for path in list_checkpoints(out / "checkpoints")]


def live(recipe: Path, out: Path, count: int, moments: random.Random) -> bool:
    """One life of so many processes, killed; whether a checkpoint was on its way."""
    before = steps(out)
    processes, _ = start_ranks(learn, count, recipe, out)
    try:
        wait_until(
            lambda: steps(out) != before or any(p.exitcode is not None for p in processes), seconds=LONGEST, every=0.001
        )
        time.sleep(moments.uniform(0, 0.2))
        assert all(process.exitcode is None for process in processes), "a process ended by itself"
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
    for path in list_checkpoints(out / "checkpoints"):
        Checkpoint.load(path)
    return any((out / "checkpoints").glob(".step-*.part"))


def lives(recipe: Path, out: Path, counts: Sequence[int]) -> Iterator[bool]:
    """Lives until their end, and one that nobody ends, of two processes."""
    moments = random.Random(SEED)
    for number, count in enumerate(counts):
        start = time.monotonic()
        yield live(recipe, out, count, moments)
        print(f"{number + 1}: {count} processes, {time.monotonic() - start:.1f} s, {steps(out)[-1]}", flush=True)
    run_ranks(learn, 2, recipe, out, seconds=LONGEST)


def furthest(ours: Bundle, theirs: Bundle) -> float:
    pairs = [(ours.model.state_dict()[name], value) for name, value in theirs.model.state_dict().items()]
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20, help="lives of two processes")
    parser.add_argument("--turns", type=int, default=6, help="lives of four, one and two in turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(RECIPE)
        write_pairs(Path(folder) / "pairs")
        two, turns = Path(folder) / "two", Path(folder) / "turns"
        during = sum(lives(recipe, two, [2] * options.times))
        counts = list(itertools.islice(itertools.cycle((4, 1, 2)), options.turns))
        during_turns = sum(lives(recipe, turns, counts))
        run_ranks(learn, 2, recipe, Path(folder) / "undisturbed", seconds=LONGEST)
        undisturbed, *killed = [Bundle.load(Path(folder) / name / "bundle") for name in ("undisturbed", "two", "turns")]
        result = {
            "what": "a run with checkpoints in shares, killed, beside one of two processes that was not",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seed": SEED,
            "steps": STEPS,
            "hardware": hardware(),
            "two": {
                "killed": options.times,
                "killed_during_a_save": during,
                "same_bundle": killed[0].fingerprint() == undisturbed.fingerprint(),
            },
            "turns": {
                "processes": counts,
                "killed_during_a_save": during_turns,
                "furthest_weight": furthest(killed[1], undisturbed),
            },
            "seconds": round(time.monotonic() - start),
        }
    history.write(Path(__file__).parent / "results" / "kill_shares.json", result)
    print(result)


if __name__ == "__main__":
    main()
