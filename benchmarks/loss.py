"""Losses by tiles and by the whole matrix: time of loss and backward, alternating; memory that they add.

    python benchmarks/loss.py

    OMP_NUM_THREADS=1 python benchmarks/loss.py      # on a busy machine

The plain twin is `F.cross_entropy` (for siglip_loss `F.logsigmoid`) on the full [B, B] matrix; the one that this
machine cannot hold is left out. Memory is the peak of a fresh process, less what it held before the loss: the features
are not in it, their gradients are. On a busy machine threads wait for each other at every step; one thread does not,
and its processor time, unlike the time on the clock, hardly depends on what else runs. Writes results/loss.json.
"""

import ctypes
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import history
from diptych.runtime import hardware
from diptych.torch_runtime import generator
from diptych.train.loss import clip_loss, siglip_loss

WIDTH, SEED = 512, 0
ROUNDS = {256: 60, 1024: 40, 4096: 6, 8192: 4, 32_768: 2}
TOO_LARGE = {("siglip_loss", "whole matrix", 32_768)}


def plain_clip_loss(images: Tensor, texts: Tensor, scale: Tensor, _bias: Tensor) -> Tensor:
    logits, target = scale * images @ texts.T, torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def plain_siglip_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits, sign = scale * images @ texts.T + bias, 2 * torch.eye(len(images)) - 1
    return -F.logsigmoid(sign * logits).sum() / len(images)


def tiled_clip_loss(images: Tensor, texts: Tensor, scale: Tensor, _bias: Tensor) -> Tensor:
    return clip_loss(images, texts, scale)


LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "clip_loss": {"tiles": tiled_clip_loss, "whole matrix": plain_clip_loss},
    "siglip_loss": {"tiles": siglip_loss, "whole matrix": plain_siglip_loss},
}


def inputs(batch: int) -> list[Tensor]:
    images, noise = (F.normalize(torch.randn(batch, WIDTH, generator=generator(SEED, i))) for i in range(2))
    values = images, F.normalize(0.5 * images + noise), torch.tensor(30.0), torch.tensor(-10.0)
    return [value.requires_grad_() for value in values]


def seconds(loss: Callable[..., Tensor], batch: int) -> dict[str, float]:
    arguments = inputs(batch)
    clock, processor = time.perf_counter(), time.process_time()
    loss(*arguments).backward()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def peak_megabytes(name: str, way: str, batch: int) -> float:
    code = f"import loss; loss.print_peak({name!r}, {way!r}, {batch})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    return float(run.stdout)


def print_peak(name: str, way: str, batch: int) -> None:
    loss = LOSSES[name][way]
    seconds(loss, 64)  # libraries and threads are loaded
    arguments = inputs(batch)
    ctypes.CDLL(None).malloc_trim(0)  # or what was freed above would be used again, and not be seen
    before = status_kilobytes("VmRSS")
    loss(*arguments).backward()
    print(round((status_kilobytes("VmHWM") - before) / 1024, 1))


def status_kilobytes(name: str) -> int:
    """Of this process; `ru_maxrss` would start at the peak of the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def compared(name: str, ways: dict[str, Callable[..., Tensor]], batch: int, rounds: int) -> dict[str, Any]:
    load = round(os.getloadavg()[0], 2)
    times: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    warm_ups = batch < max(ROUNDS)
    for round_ in range(warm_ups + rounds):
        for way, loss in ways.items():
            taken = seconds(loss, batch)
            if round_ >= warm_ups:
                times[way].append(taken)
    row: dict[str, Any] = {"loss": name, "batch": batch, "n": rounds, "load average before": load}
    row["peak megabytes"] = {way: peak_megabytes(name, way, batch) for way in ways}
    for kind in ("clock", "processor"):
        row[f"milliseconds, {kind}"] = {
            way: round(1000 * statistics.median(taken[kind] for taken in values), 2) for way, values in times.items()
        }
        if len(ways) == 2:
            ratios = [tiles[kind] / whole[kind] for tiles, whole in zip(*times.values(), strict=True)]
            spread = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
            row[f"tiles/whole matrix, {kind}"] = {of: round(ratio, 3) for of, ratio in spread.items()}
    return row


def main() -> None:
    rows = []
    for name, ways in LOSSES.items():
        for batch, rounds in ROUNDS.items():
            rows.append(
                compared(name, {way: ways[way] for way in ways if (name, way, batch) not in TOO_LARGE}, batch, rounds)
            )
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "what": f"loss and backward, D = {WIDTH}, float32",
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    history.write(history.RESULTS / "loss.json", result, keys=("loss", "batch"))


if __name__ == "__main__":
    main()
