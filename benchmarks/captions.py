"""Captions encoded in the order of their lengths, as `encode_texts` does, beside batches as they come.

    OMP_NUM_THREADS=1 python benchmarks/captions.py ../shared/data/flickr8k/val

The first --count captions of a set of pairs; a batch is padded to its longest. Processor time, the least of --rounds
that alternate. Writes results/captions.json.
"""

import argparse
import datetime
import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import history
from diptych.model.vocabulary import text_lengths
from diptych.pairs.samples import captions_of
from diptych.pairs.sources import Source, open_pairs
from diptych.runtime import hardware, instruction_sets
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.engines import load

_BATCH = 256  # as `encode_texts` takes


def as_they_come(model: DualEncoder, texts: Sequence[str]) -> np.ndarray:
    """[N, D], each batch up to its longest text."""
    tokens = model.tokenizer.encode(texts, truncate=True)
    parts = []
    for start in range(0, len(tokens), _BATCH):
        batch = tokens[start : start + _BATCH]
        longest = text_lengths(batch, model.tokenizer.end_token_id, model.tokenizer.pad_token_id).max()
        parts.append(model.encode_tokens(batch[:, :longest]))
    return np.concatenate(parts)


def by_length(model: DualEncoder, texts: Sequence[str]) -> np.ndarray:
    """[N, D]."""
    return model.encode_texts(texts, batch_size=_BATCH, truncate=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["diptych-photo", "diptych-pictogram"])
    parser.add_argument("--out", type=Path, default=history.RESULTS / "captions.json")
    options = parser.parse_args()
    pairs = open_pairs(Source(path=str(options.pairs)), max_bad=0.0)
    captions = itertools.chain.from_iterable(captions_of(pairs[number]) for number in range(len(pairs)))
    texts = list(itertools.islice(captions, options.count))
    rows = []
    for name, engine in itertools.product(options.models, ("torch", "onnx")):
        model = load(name, engine=engine)
        apart = float(np.abs(as_they_come(model, texts) - by_length(model, texts)).max())
        least = {}
        for _, way in itertools.product(range(options.rounds), (as_they_come, by_length)):
            start = time.process_time()
            way(model, texts)
            least[way] = min(time.process_time() - start, least.get(way, np.inf))
        plain, ours = least[as_they_come], least[by_length]
        rows.append(
            {"model": name, "engine": engine, "as they come, s": round(plain, 2), "by length, s": round(ours, 2),
             "ratio": round(plain / ours, 2), "furthest apart": apart}
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": instruction_sets(),
        "conditions": {
            "captions": len(texts),
            "n": options.rounds,
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        },
        "rows": rows,
    }
    history.write(options.out, result, keys=("model", "engine"))


if __name__ == "__main__":
    main()
