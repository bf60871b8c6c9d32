"""What the protocol of objectives costs the contrastive one: a step beside that of a commit without it.

    git worktree add /tmp/without 3c6910c^
    OMP_NUM_THREADS=1 python benchmarks/objective_cost.py --without /tmp/without [--now /tmp/with] [--rounds 12]

The same small run of the contrastive objective, in a process of its own from the sources of each side, which take
turns; counted is the processor time of its steps but the first WARM, by the median. The ratio is the geometric mean
over the rounds, with its 95 % interval by Student's t. The losses of both must be the same to the bit. Writes
results/objective_cost.json.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import history
from diptych.runtime import hardware

ROOT = Path(__file__).parent.parent
STEPS, WARM = 24, 4
RUN = f"""
import json, sys, tempfile, time
from pathlib import Path
import torch
from diptych.config import from_dict
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import train
torch.set_num_threads(1)
recipe = from_dict(TrainRecipe, {{
    "name": "contrastive", "seed": 0, "tokenizer": {{"vocab_size": 2048}}, "preprocess": {{"image_size": 32}},
    "model": {{
        "embed_dim": 256,
        "image": {{"kind": "resnet", "image_size": 32, "width": 16, "layers": [1, 1, 1, 1], "heads": 8}},
        "text": {{"kind": "clip", "context_length": 32, "vocab_size": 2048, "width": 128, "layers": 2, "heads": 2}},
    }},
    "data": {{"sources": [{{"path": "embedded:emoji", "weight": 1.0}}]}},
    "train": {{"steps": {STEPS}, "batch_size": 256, "learning_rate": 2e-3, "warmup_steps": 4, "precision": "float32",
              "checkpoint_every": {STEPS}}},
}})
moments, losses = [], []
def told(report):
    moments.append(time.process_time())
    losses.append(report.loss)
with tempfile.TemporaryDirectory() as folder:
    train(recipe, Path(folder) / "run", on_progress=told)
print(json.dumps({{"seconds": [b - a for a, b in zip(moments, moments[1:])], "losses": losses}}))
"""
_STUDENT = {5: 2.571, 8: 2.306, 11: 2.201, 15: 2.131}  # 97.5 % of Student's t, by degrees of freedom


def run(tree: Path) -> tuple[float, list[float]]:
    """Processor seconds of a step, and the losses."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return statistics.median(told["seconds"][WARM - 1 :]), told["losses"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", type=Path, required=True, help="a working tree of a commit before the protocol")
    parser.add_argument("--now", type=Path, default=ROOT, help="a working tree with it; default: this one")
    parser.add_argument("--rounds", type=int, default=12, choices=[degrees + 1 for degrees in _STUDENT])
    options = parser.parse_args()
    logs, rows = [], []
    for number in range(options.rounds):
        sides = ("without", "now") if number % 2 else ("now", "without")
        found = {side: run(getattr(options, side)) for side in sides}
        assert found["now"][1] == found["without"][1], "the losses differ"
        rows.append({side: seconds for side, (seconds, _) in found.items()})
        logs.append(math.log(rows[-1]["now"] / rows[-1]["without"]))
        print(rows[-1], flush=True)
    mean = statistics.fmean(logs)
    doubt = _STUDENT[len(logs) - 1] * statistics.stdev(logs) / len(logs) ** 0.5
    result = {
        "hardware": hardware(),
        "steps": STEPS,
        "rounds": rows,
        "ratio": math.exp(mean),
        "interval": [math.exp(mean - doubt), math.exp(mean + doubt)],
    }
    history.write(history.RESULTS / "objective_cost.json", result)
    print(result["ratio"], result["interval"])


if __name__ == "__main__":
    main()
