"""Teach the text tower of a model for pictograms what a name in a sentence is, and what a tag by itself means.

    python recipes/pictogram_words.py runs/diptych-pictogram/bundle pictograms-all diptych-pictogram

That was version 1: recipes/pictogram-styles.toml trains it on, and recipes/pictogram_languages.py gives it another text
tower.

The training of recipes/diptych-pictogram.toml shows bare names and whole lines of tags, so "a cat" lies far from "cat".
Here no picture is looked at: the text tower learns from what it was before. A bare name keeps its vector, in a sentence
it gets the same one, and a tag gets the mean of those of the emoji that have it. The result is stored in 8 bits.
7 min on 2 cores of an AMD EPYC, 2026-11-28, with other work beside it.
"""

import argparse
import random
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.pairs.shards import ShardSet, captions_of
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle

SENTENCES = (
    "a {}", "an {}", "the {}", "a picture of a {}", "a photo of a {}.", "a drawing of a {}", "an icon of a {}",
    "an emoji of a {}", "{} icon", "{} emoji", "icon of {}", "picture of {}", "the {} sign", "a {} symbol", "my {}",
    "this is a {}.",
)  # fmt: skip
PLAIN = 0.4  # share of the texts that stand by themselves
SHARES = {"emoji": 0.45, "icons": 0.3, "tags": 0.25}  # of a batch
STEPS, BATCH_SIZE, LEARNING_RATE, WARMUP = 2000, 512, 1e-3, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path, help="a folder that build_pictograms.py --full all wrote")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    clip = Bundle.load(arguments.bundle)
    emoji = read_captions(arguments.corpus / "emoji")
    names = {
        "emoji": sorted({*(name for name, *_ in emoji), *sum(read_captions(arguments.corpus / "skin-tones"), ())}),
        "icons": sorted({name for name, *_ in read_captions(arguments.corpus / "icons")}),
    }
    texts = {kind: (some, torch.from_numpy(clip.encode_texts(some, truncate=True))) for kind, some in names.items()}
    texts["tags"] = mean_of_tags(emoji, dict(zip(*texts["emoji"], strict=True)))
    print({kind: len(some) for kind, (some, _) in texts.items()})
    teach(clip, texts)
    clip.save(arguments.out, dtype=torch.int8)


def read_captions(folder: Path) -> list[tuple[str, ...]]:
    """The captions of each sample of a folder of shards."""
    samples = ShardSet(folder)
    return [tuple(captions_of(samples[row])) for row in range(len(samples))]


def mean_of_tags(emoji: list[tuple[str, ...]], vectors: dict[str, Tensor]) -> tuple[list[str], Tensor]:
    """Tags that are no names, and [N, D], the mean direction of the emoji that have each."""
    named: dict[str, set[str]] = defaultdict(set)
    for name, *lines in emoji:
        for tag in ", ".join(lines).split(", "):
            if tag and tag not in vectors:
                named[tag].add(name)
    tags = sorted(named)
    means = [torch.stack([vectors[name] for name in sorted(named[tag])]).mean(dim=0) for tag in tags]
    return tags, normalize(torch.stack(means), dim=1)


def teach(clip: Bundle, texts: dict[str, tuple[list[str], Tensor]]) -> None:
    """Fit the text tower to the vectors that texts should have, plain or in a sentence."""
    draw, seeded = random.Random(0), generator(0)
    model = clip.model.train()
    tower = [parameter for name, parameter in model.named_parameters() if name.startswith("text.")]
    optimizer = torch.optim.AdamW(tower, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=WARMUP / STEPS, cycle_momentum=False
    )
    for step in range(1, STEPS + 1):
        batch, wanted = [], []
        for kind, share in SHARES.items():
            some, vectors = texts[kind]
            rows = torch.randint(len(some), (round(share * BATCH_SIZE),), generator=seeded)
            batch += [some[row] if draw.random() < PLAIN else draw.choice(SENTENCES).format(some[row]) for row in rows]
            wanted.append(vectors[rows])
        tokens = torch.from_numpy(clip.tokenizer.encode(batch, truncate=True))
        longest = int((tokens == clip.tokenizer.end_token_id).int().argmax(dim=1).max()) + 1  # of the batch
        loss = (1 - (model.encode_text(tokens[:, :longest]) * torch.cat(wanted)).sum(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:,}/{STEPS:,}  1 - cosine {loss.item():.4f}", flush=True)
    model.eval()


if __name__ == "__main__":
    main()
