"""Random bits of a checkpoint, of shards, of a bundle and of an index are flipped, one at a time: which pass unnoticed?

    python benchmarks/flips.py [--each 50]

Noticed is what ends in a sentence when it is used as a user would: a checkpoint is read to go on, all samples of shards
are read, a bundle is loaded, an index is checked. All else is silent, also an error that is no sentence. A flip
goes to a file by chance, each file alike, and to a bit of it. Writes results/flips.json.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import history
from diptych.errors import DiptychError
from diptych.pairs.shards import ShardSet, ShardWriter
from diptych.pairs.sources import Source, open_pairs
from diptych.runtime import hardware
from diptych.train.checkpoint import Checkpoint, optimizer_tensors
from diptych.train.optim import adamw, parameter_groups
from diptych.weights.bundle import Bundle
from diptych.weights.registry import load_in_torch

MODEL, SEED = "diptych-pictogram-small", 0
_NOT_USED = (".lock", ".sqlite-shm")  # nothing is read from them


def checkpoint(at: Path) -> tuple[Path, Callable[[], object]]:
    """A checkpoint with moments and an average."""
    bundle = load_in_torch(MODEL)
    bundle.model.train().requires_grad_(True)
    optimizer = adamw(
        parameter_groups(bundle.model, weight_decay=0.1), betas=(0.9, 0.98), epsilon=1e-6, state="float32"
    )
    for parameter in bundle.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = Checkpoint(
        step=1,
        bundle=bundle,
        optimizer=optimizer_tensors(bundle.model, optimizer),
        counts={"pairs": 8, "bad": {"truncated": 1}},
        metrics={"set/top1": 0.5},
        recipe={"name": "flips"},
        precision="float32",
        data=["0" * 64],
        average={name: value.float() for name, value in bundle.model.state_dict().items()},
    ).save(at, keep=1)
    return path, lambda: Checkpoint.load(path)


def shards(at: Path) -> tuple[Path, Callable[[], object]]:
    """Eight shards of the embedded icons, with their manifest."""
    icons = open_pairs(Source(path="embedded:icons"))
    with ShardWriter(at, samples_per_shard=250) as writer:
        for number in range(2000):
            writer.add(f"{number:05d}", icons[number].parts)

    def read() -> None:
        pairs = ShardSet(at)
        for number in range(len(pairs)):
            _ = pairs[number]

    return at, read


def bundle(at: Path) -> tuple[Path, Callable[[], object]]:
    """The model that ships."""
    load_in_torch(MODEL).save(at / "bundle")
    return at / "bundle", lambda: Bundle.load(at / "bundle")


def index(at: Path) -> tuple[Path, Callable[[], object]]:
    """The index of 200 icons."""
    icons = open_pairs(Source(path="embedded:icons"))
    (at / "pictures").mkdir()
    for number in range(200):
        (at / "pictures" / f"{number}.webp").write_bytes(icons[number].picture or b"")

    def command(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "diptych", "index", *words, str(at / "pictures"), "--index", str(at / "index")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode and "Traceback" not in done.stderr:
            raise DiptychError(done.stderr or done.stdout)

    command("update", "--model", MODEL)
    return at / "index", lambda: command("check")


def silent_flips(folder: Path, use: Callable[[], object], *, count: int, random: np.random.Generator) -> list[str]:
    """Where flips passed unnoticed: FILE, byte and bit."""
    use()  # whole, it is used without a word
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size and not f.name.endswith(_NOT_USED))
    silent = []
    for _ in range(count):
        file = files[random.integers(len(files))]
        content = file.read_bytes()
        place, bit = int(random.integers(len(content))), int(random.integers(8))
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        file.write_bytes(changed)
        try:
            use()
            silent.append(f"{file.relative_to(folder)}, byte {place:,}, bit {bit}")
        except DiptychError:
            pass
        except Exception as error:  # it is noticed, but by no sentence
            silent.append(f"{file.relative_to(folder)}, byte {place:,}, bit {bit}: {type(error).__name__} {error}")
        finally:
            file.write_bytes(content)
    return silent


def main() -> None:
    """Flip bits of each kind, and write down what was silent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=50, help="flips of each kind")
    each = parser.parse_args().each
    random = np.random.default_rng(SEED)
    rows = []
    for make in (checkpoint, shards, bundle, index):
        with tempfile.TemporaryDirectory() as name:
            folder, use = make(Path(name))
            silent = silent_flips(folder, use, count=each, random=random)
        rows.append({"what": make.__name__, "flips": each, "silent": len(silent), "where": silent})
        print(f"{make.__name__}: {len(silent)} of {each} silent", *silent, sep="\n  ")
    facts = {"date": datetime.date.today().isoformat(), "hardware": hardware(), "seed": SEED, "rows": rows}
    history.write(Path(__file__).parent / "results" / "flips.json", facts, keys=["what"])


if __name__ == "__main__":
    main()
