"""Logistic regression at seven strengths: ours against scikit-learn, seconds and the loss that each ends at.

    python benchmarks/linear_probe.py [EXAMPLES WIDTH CLASSES ROUNDS]

The strengths are the first seven of the paper's search, 1e-6 to 1e6. scikit-learn runs as it comes (tol 1e-4), where it
stops weak penalties far from the optimum, and with tol 1e-7, where its losses come near ours; once with each precision
of the features at 1e-4. The features are made: as many examples of each class, normal around class means that are as
far apart as 0.7 of the noise, variance of axis i falling as 1 / i, turned at random and moved by an offset, as features
of networks are. Writes results/linear_probe.json.
"""

import datetime
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

import history
from diptych.measures.logistic import Examples, LogisticProblem
from diptych.runtime import hardware
from diptych.torch_runtime import generator

SEED = 0
L2 = [10.0**decade for decade in range(-6, 7, 2)]

Fits = list[tuple[torch.Tensor, torch.Tensor]]  # weights and bias at each strength


def features_like_a_networks(examples: int, width: int, classes: int) -> Examples:
    random = generator(SEED)
    targets = torch.arange(examples) % classes
    means = 0.7 * torch.randn(classes, width, generator=random)
    scales = 3 * torch.arange(1, width + 1) ** -0.5
    features = (means[targets] + torch.randn(examples, width, generator=random)) * scales
    turn = torch.linalg.qr(torch.randn(width, width, generator=random)).Q
    return Examples(features @ turn + torch.randn(width, generator=random), targets)


def ours(data: Examples) -> Fits:
    fits = LogisticProblem(data).solve(L2)
    return list(zip(fits.weights, fits.bias, strict=True))


def scikit(data: Examples, dtype: torch.dtype, tol: float) -> Fits:
    features, targets = data.features.to(dtype).numpy(), data.targets.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 1,000 iterations were not enough
        models = [LogisticRegression(C=1 / l2, tol=tol, max_iter=1000).fit(features, targets) for l2 in L2]
    return [(torch.tensor(model.coef_), torch.tensor(model.intercept_)) for model in models]


def losses(data: Examples, fits: Fits) -> list[float]:
    """Nats an example with the penalty, in float64."""
    found = []
    for (weights, bias), l2 in zip(fits, L2, strict=True):
        logits = torch.addmm(bias.double(), data.features.double(), weights.double().T)
        penalty = l2 / 2 / len(logits) * weights.double().square().sum()
        found.append((cross_entropy(logits, data.targets) + penalty).item())
    return found


def main() -> None:
    examples, width, classes, rounds = map(int, sys.argv[1:]) if sys.argv[1:] else (10_000, 768, 100, 1)
    data = features_like_a_networks(examples, width, classes)
    ways: dict[str, Callable[[], Fits]] = {
        "ours": lambda: ours(data),
        "scikit-learn, float32, tol 1e-4": lambda: scikit(data, torch.float32, 1e-4),
        "scikit-learn, float64, tol 1e-4": lambda: scikit(data, torch.float64, 1e-4),
        "scikit-learn, float64, tol 1e-7": lambda: scikit(data, torch.float64, 1e-7),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    ended: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, run in ways.items():
            start, start_processor = time.perf_counter(), time.process_time()
            fits = run()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - start_processor)
            ended[name] = losses(data, fits)
            print(name, f"{wall[name][-1]:.1f} s, processor {processor[name][-1]:.1f} s", flush=True)
    result = {
        "what": f"{examples:,} x {width} features, {classes} classes, {len(L2)} strengths of the penalty together",
        "n": rounds,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "load average at the end": round(os.getloadavg()[0], 1),
        "rows": [
            {
                "solver": name,
                "seconds, median": round(statistics.median(wall[name]), 2),
                "processor seconds, median": round(statistics.median(processor[name]), 2),
                "seconds/ours": round(
                    statistics.median(a / b for a, b in zip(wall[name], wall["ours"], strict=True)), 1
                ),
                "loss at each strength": {f"{l2:g}": loss for l2, loss in zip(L2, ended[name], strict=True)},
            }
            for name in ways
        ],
    }
    history.write(history.RESULTS / "linear_probe.json", result, keys=("solver",))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
