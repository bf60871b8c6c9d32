"""A run of two processes with checkpoints in shares is killed again and again: does it come out as one that was not?

    python benchmarks/kill_shares.py [--times 20]

Each life is ended by SIGKILL to both processes, at a random moment after its first checkpoint. After each, every
checkpoint that stands must be whole by its digests. In the end the weights are compared with those of a run that nobody
killed. FSDP, gloo, a checkpoint each step, an average of the weights. Writes results/kill_shares.json.
"""

import argparse
import datetime
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import history
from diptych.runtime import hardware
from diptych.train.checkpoint import Checkpoint, list_checkpoints
from diptych.weights.bundle import Bundle

PROCESSES, SEED, STEPS = 2, 0, 60
RECIPE = f"""name = "killed"
seed = {SEED}
[model]
embed_dim = 64
image = {{ kind = "vit", image_size = 32, patch_size = 8, width = 64, layers = 2, heads = 2 }}
text = {{ context_length = 16, vocab_size = 600, width = 64, layers = 2, heads = 2 }}
[preprocess]
image_size = 32
[tokenizer]
vocab_size = 600
[data]
sources = [{{ path = "embedded:emoji" }}]
[train]
steps = {STEPS}
batch_size = 16
warmup_steps = 5
precision = "float32"
parallel = "fsdp"
ema_decay = 0.9
checkpoint_every = 1
checkpoint_format = "shares"
"""


def start(recipe: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    processes = []
    for rank in range(PROCESSES):
        own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        command = [sys.executable, "-m", "diptych", "train", recipe, "--out", out]
        processes.append(subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL))
    return processes


def live(recipe: Path, out: Path, moments: random.Random) -> bool:
    """One life, killed; whether a checkpoint was on its way."""
    before = [path.name for path in list_checkpoints(out / "checkpoints")]
    processes = start(recipe, out)
    try:
        end = time.monotonic() + 900  # on a machine that others use as well
        while [path.name for path in list_checkpoints(out / "checkpoints")] == before:
            assert time.monotonic() < end, "no checkpoint came"
            assert all(process.poll() is None for process in processes), "a process ended by itself"
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
    for path in list_checkpoints(out / "checkpoints"):
        Checkpoint.load(path)
    return any((out / "checkpoints").glob(".step-*.part"))


def finish(recipe: Path, out: Path) -> Bundle:
    for process in start(recipe, out):
        assert process.wait(600) == 0
    return Bundle.load(out / "bundle")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    moments = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(RECIPE)
        during = sum(live(recipe, Path(folder) / "run", moments) for _ in range(times))
        bundles = [finish(recipe, Path(folder) / name) for name in ("run", "undisturbed")]
    result = {
        "what": "a run of two processes with checkpoints in shares, killed",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": SEED,
        "hardware": hardware(),
        "killed": times,
        "killed_during_a_save": during,
        "same_bundle": bundles[0].fingerprint() == bundles[1].fingerprint(),
    }
    history.write(Path(__file__).parent / "results" / "kill_shares.json", result)
    print(result)


if __name__ == "__main__":
    main()
