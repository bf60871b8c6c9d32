"""Fused or plain attention on a CPU, for texts of a few tokens: time of one forward and backward pass, alternating.

    python benchmarks/attention.py

The trainer takes the plain kernel up to 32 tokens; this says what that is worth. Writes results/attention.json.
"""

import datetime
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diptych.files import write_json
from diptych.model.text_tower import TextTower, TextTowerConfig
from diptych.runtime import fast_dtype, generator, hardware

BATCH, WIDTH, HEADS, ROUNDS, SEED = 256, 128, 2, 30, 0


def seconds(tower: TextTower, tokens: torch.Tensor, kernel: SDPBackend) -> float:
    start = time.perf_counter()
    with sdpa_kernel(kernel):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_dtype(torch.device("cpu")) == torch.bfloat16):
            features = tower(tokens)
        features.float().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    rows = []
    for length in (8, 16, 32, 77):
        config = TextTowerConfig(context_length=length, vocab_size=4096, width=WIDTH, layers=1, heads=HEADS)
        with torch.device("meta"):
            tower = TextTower(config, 256)
        tower.to_empty(device="cpu").reset_parameters(generator(SEED))
        tokens = torch.randint(4096, (BATCH, length), generator=generator(SEED))
        times: dict[str, list[float]] = {"fused": [], "plain": []}
        for round_ in range(ROUNDS + 3):
            for name, kernel in (("fused", SDPBackend.FLASH_ATTENTION), ("plain", SDPBackend.MATH)):
                taken = seconds(tower, tokens, kernel)
                if round_ >= 3:  # the first ones warm up
                    times[name].append(taken)
        ratios = [fused / plain for fused, plain in zip(times["fused"], times["plain"], strict=True)]
        medians = {name: round(1000 * statistics.median(values), 2) for name, values in times.items()}
        rows.append({"tokens": length, "milliseconds": medians, "fused/plain": round(statistics.median(ratios), 2)})
    result = {
        "what": f"one-layer text tower, width {WIDTH}, {HEADS} heads, batch {BATCH}, forward and backward",
        "n": ROUNDS,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    write_json(Path(__file__).parent / "results" / "attention.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
