"""What a table of tokens in 4 bits in place of 8 does to the features of texts.

    python benchmarks/table_bits.py MODEL [MODEL ...]       # folders or names, with weights in more bits than 4

Each model is saved in int8 with a table of 8 bits and with one of 4; cosines are between the features that the two
give to 800 names of the embedded drawings and 400 sentences of them. Writes results/table_bits.json.
"""

import argparse
import tempfile
from pathlib import Path

import torch

import history
from diptych.data.embedded import data_path
from diptych.runtime import hardware
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from diptych.weights.registry import load_in_torch

NAMES, SENTENCES = 800, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    names = read_labelled(data_path("embedded:twemoji")).classnames[:NAMES]
    texts = [*names, *(f"a photo of a {name}" for name in names[:SENTENCES])]
    rows = []
    for model in parser.parse_args().models:
        bundle, features, sizes = load_in_torch(model), [], []
        with tempfile.TemporaryDirectory() as folder:
            for bits in (8, 4):
                out = Path(folder) / str(bits)
                bundle.save(out, dtype=torch.int8, table_bits=bits)
                features.append(Bundle.load(out).encode_texts(texts, truncate=True))
                sizes.append(sum(file.stat().st_size for file in out.iterdir()) / 1e6)
        cosines = (features[0] * features[1]).sum(axis=1)
        rows.append(
            {"model": Path(model).name, "mean": float(cosines.mean()), "least": float(cosines.min()), "MB": sizes}
        )
        print(rows[-1], flush=True)
    history.write(history.RESULTS / "table_bits.json", {"hardware": hardware(), "texts": len(texts), "rows": rows})


if __name__ == "__main__":
    main()
