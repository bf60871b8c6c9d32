"""Attention that keeps its matrix, or torch's fused kernel, on a CPU: time of both passes, alternating.

    python benchmarks/attention.py

    OMP_NUM_THREADS=1 python benchmarks/attention.py      # on a busy machine: look at the processor time

Training in bfloat16 takes the first up to 256 positions; this says what that is worth. Writes results/attention.json.
"""

import datetime
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import history
from diptych.model.blocks import KeptAttention
from diptych.runtime import hardware
from diptych.torch_runtime import generator

ROUNDS, SEED = 20, 0
# Rows, heads of 64 channels, positions, causal: as texts and pictures have them; 50 in ViT-B/32, 257 in ViT-L/14.
SHAPES = [(256, 4, 17, True), (256, 4, 33, True), (128, 4, 50, False), (64, 4, 77, True), (32, 4, 257, False)]
WAYS: dict[str, Callable[..., Tensor]] = {
    "kept": KeptAttention.apply,
    "fused": lambda query, key, value, is_causal: F.scaled_dot_product_attention(
        query, key, value, is_causal=is_causal
    ),
}


def seconds(way: Callable[..., Tensor], projected: Tensor, is_causal: bool) -> dict[str, float]:
    """Of a forward and a backward pass.

    Args:
        way: query, key, value [B, H, L, E] and is_causal to [B, H, L, E].
        projected: [B, L, 3, H, E], as the fused projection gives it.
        is_causal: position i sees positions up to i.
    """
    query, key, value = projected.permute(2, 0, 3, 1, 4).unbind()
    clock, processor = time.perf_counter(), time.process_time()
    out = way(query, key, value, is_causal)
    out.backward(torch.ones_like(out))
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def compared(shape: tuple[int, int, int, bool], dtype: torch.dtype) -> dict[str, Any]:
    rows, heads, positions, is_causal = shape
    projected = torch.randn(rows, positions, 3, heads, 64, generator=generator(SEED)).to(dtype).requires_grad_()
    times: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for round_ in range(ROUNDS + 3):
        for name, way in WAYS.items():
            taken = seconds(way, projected, is_causal)
            if round_ >= 3:  # the first ones warm up
                times[name].append(taken)
    row: dict[str, Any] = {"type": str(dtype).removeprefix("torch."), "rows": rows, "heads": heads}
    row |= {"positions": positions, "causal": is_causal}
    for kind in ("clock", "processor"):
        ratios = [fused[kind] / kept[kind] for fused, kept in zip(times["fused"], times["kept"], strict=True)]
        row[f"milliseconds, {kind}"] = {
            name: round(1000 * statistics.median(taken[kind] for taken in values), 2) for name, values in times.items()
        }
        row[f"fused/kept, {kind}"] = round(statistics.median(ratios), 2)
    return row


def main() -> None:
    result = {
        "what": "attention alone, forward and backward, heads of 64 channels",
        "n": ROUNDS,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": [compared(shape, dtype) for dtype in (torch.bfloat16, torch.float32) for shape in SHAPES],
    }
    history.write(history.RESULTS / "attention.json", result, keys=("type", "rows", "positions", "heads", "causal"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
