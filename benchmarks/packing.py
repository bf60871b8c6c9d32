"""From what share of padding on a text tower is faster on packed texts: forward and backward pass, alternating.

    OMP_NUM_THREADS=1 python benchmarks/packing.py

Texts of up to 24 tokens whose lengths are drawn evenly, so that the share of a batch that is padding comes out as
stated. Processor time, medians; ratios are medians of those of a round. Writes results/packing.json.
"""

import argparse
import copy
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import history
from diptych.model import packing
from diptych.model.text_tower import TextTower, TextTowerConfig
from diptych.runtime import hardware
from diptych.torch_runtime import generator

SEED, LONGEST, VOCABULARY = 0, 24, 4096
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7)
# The demo's tower and batch; and one of four times the width.
TOWERS = {"width 128, 1 layer": (128, 1, 256), "width 512, 2 layers": (512, 2, 16)}


def texts(count: int, share: float) -> Tensor:
    """[B, L], so much of it padding."""
    draw, mean = generator(SEED), LONGEST * (1 - share)
    spread = min(LONGEST - mean, mean - 1)
    lengths = (mean + spread * (2 * torch.rand(count, generator=draw) - 1)).round().long()
    lengths[0] = LONGEST
    tokens = torch.randint(1, VOCABULARY - 1, (count, LONGEST), generator=draw)
    tokens[torch.arange(count), lengths - 1] = VOCABULARY - 1
    tokens[torch.arange(LONGEST) >= lengths[:, None]] = 0
    return tokens


def seconds(tower: TextTower, tokens: Tensor, dtype: torch.dtype) -> float:
    start = time.process_time()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        features = tower(tokens)
    features.float().square().sum().backward()
    taken = time.process_time() - start
    tower.zero_grad()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=history.RESULTS / "packing.json")
    options = parser.parse_args()
    packing._LEAST_PADDING = 0.0  # it is what is asked for
    rows: list[dict[str, Any]] = []
    for name, (width, layers, count) in TOWERS.items():
        sizes = TextTowerConfig(context_length=32, vocab_size=VOCABULARY, width=width, layers=layers, heads=width // 64)
        padded = TextTower(sizes, 256)
        padded.reset_parameters(generator(SEED))
        packed = copy.deepcopy(padded)
        packed.packs = True
        for dtype in (torch.bfloat16, torch.float32):
            given = {share: texts(count, share) for share in SHARES}
            times: dict[float, list[tuple[float, float]]] = {share: [] for share in SHARES}
            for round_ in range(options.rounds + 1):
                for share, tokens in given.items():
                    pair = seconds(packed, tokens, dtype), seconds(padded, tokens, dtype)
                    if round_:
                        times[share].append(pair)
            for share, pairs in times.items():
                row: dict[str, Any] = {"tower": name, "type": str(dtype).removeprefix("torch."), "texts": count}
                lengths = given[share].argmax(dim=1) + 1
                row["padding"] = round(1 - lengths.float().mean().item() / LONGEST, 3)
                row["padded, milliseconds"] = round(1000 * statistics.median(b for _, b in pairs), 2)
                row["packed / padded"] = round(statistics.median(a / b for a, b in pairs), 3)
                rows.append(row)
                print(json.dumps(row), flush=True)
    result = {
        "what": "forward and backward pass of a text tower, processor time",
        "n": options.rounds,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    history.write(options.out, result, keys=("tower", "type", "padding"))


if __name__ == "__main__":
    main()
