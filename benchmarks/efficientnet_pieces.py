"""How many pictures at a time the EfficientNet tower should take on a processor: pictures a second by piece and size.

    python benchmarks/efficientnet_pieces.py

Pieces take turns, so that a busy machine slows all of them. Writes results/efficientnet_pieces.json.
"""

import datetime
import statistics
import time

import torch

import history
from diptych.model import efficientnet_tower
from diptych.model.efficientnet_tower import EfficientNetTower, EfficientNetTowerConfig
from diptych.runtime import hardware
from diptych.torch_runtime import generator

SIDES, PIECES, BATCH, ROUNDS, SEED = (128, 160, 224), (1, 2, 4, 8, 16, 32), 32, 5, 0


@torch.inference_mode()
def main() -> None:
    tower = EfficientNetTower(EfficientNetTowerConfig(width=1.1, depth=1.2), 512).eval()
    tower.reset_parameters(generator(SEED))
    tower.to(memory_format=torch.channels_last)
    rates: dict[str, dict[str, float]] = {}
    for side in SIDES:
        images = torch.rand(BATCH, 3, side, side, generator=generator(SEED))
        seconds: dict[int, list[float]] = {piece: [] for piece in PIECES}
        for _ in range(ROUNDS):
            for piece in PIECES:
                efficientnet_tower._CACHED = -(-piece * side * side // torch.get_num_threads())
                start = time.process_time()
                tower.trunk(images)
                seconds[piece].append(time.process_time() - start)
        rates[str(side)] = {str(piece): round(BATCH / statistics.median(s), 1) for piece, s in seconds.items()}
        print(side, rates[str(side)], flush=True)
    result = {
        "pictures_per_second_of_processor_time": rates,  # by pixels of a side, then by pictures at a time
        "rounds": ROUNDS,
        "batch": BATCH,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    history.write(history.RESULTS / "efficientnet_pieces.json", result)


if __name__ == "__main__":
    main()
