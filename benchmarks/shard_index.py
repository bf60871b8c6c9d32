"""How much memory does it take to know where tens of millions of samples lie, and how long to look one up?

    python benchmarks/shard_index.py [--samples 20_000_000]

Shards of 10,000 samples as img2dataset writes them: a key of nine digits, a picture of 5 to 45 kB, its caption and its
JSON. What a scan of a shard tells is packed as `pairs/shards.py` packs it, shard by shard; no shard is read. The memory
is what the process has more than before, as the system counts it. Writes results/shard_index.json.
"""

import argparse
import datetime
import gc
import random
import time
from pathlib import Path

import numpy as np

import history
from diptych.data.tar import TarSample
from diptych.pairs.packed import PackedSamples
from diptych.runtime import hardware

SHARD, SEED, LOOKUPS = 10_000, 0, 100_000
BLOCK = 512  # bytes; headers and contents of a tar are padded to it


def scanned(first: int, chance: np.random.Generator) -> list[TarSample]:
    """What a scan of one shard tells."""
    sizes = np.stack([chance.integers(low, high, SHARD) for low, high in ((5_000, 45_000), (20, 200), (300, 900))], 1)
    padded = BLOCK + (sizes + BLOCK - 1) // BLOCK * BLOCK
    offsets = padded.cumsum().reshape(padded.shape) - padded + BLOCK
    jpg, txt, json = (zip(offsets[:, part].tolist(), sizes[:, part].tolist(), strict=True) for part in range(3))
    return [
        TarSample(f"{number:09d}", {"jpg": picture, "txt": caption, "json": about})
        for number, picture, caption, about in zip(range(first, first + SHARD), jpg, txt, json, strict=True)
    ]


def resident() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=20_000_000)
    samples = parser.parse_args().samples
    chance = np.random.default_rng(SEED)
    gc.disable()  # it would look through all objects again and again, and there are no circles
    PackedSamples(scanned(0, chance))  # what the first time alone takes
    before, seconds = resident(), 0.0
    shards: list[PackedSamples] = []
    for first in range(0, samples, SHARD):
        found = scanned(first, chance)
        start = time.process_time()
        shards.append(PackedSamples(found))
        seconds += time.process_time() - start
    after = resident()
    numbers = random.Random(SEED).choices(range(len(shards) * SHARD), k=LOOKUPS)
    start = time.process_time()
    for number in numbers:
        assert shards[number // SHARD][number % SHARD].key == f"{number:09d}"
    looked_up = time.process_time() - start
    result = {
        "what": "the place of each sample of many shards, in memory",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": SEED,
        "hardware": hardware(),
        "samples": len(shards) * SHARD,
        "shards": len(shards),
        "megabytes": round((after - before) / 1e6, 1),
        "bytes_per_sample": round((after - before) / (len(shards) * SHARD), 1),
        "bytes_of_arrays_per_sample": round(sum(shard.nbytes for shard in shards) / (len(shards) * SHARD), 1),
        "seconds_of_packing, clock": round(seconds, 1),
        "microseconds_a_lookup": round(1e6 * looked_up / LOOKUPS, 2),
    }
    history.write(Path(__file__).parent / "results" / "shard_index.json", result)
    print(result)


if __name__ == "__main__":
    main()
