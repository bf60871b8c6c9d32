"""One training step beside open_clip's: samples a second, and peak memory at a large batch.

    make .venv-parity/.installed && .venv-parity/bin/python benchmarks/train_step.py

    OMP_NUM_THREADS=1 .venv-parity/bin/python benchmarks/train_step.py      # on a busy machine

All sides train the same weights on the same pairs in bfloat16 autocast under one torch, each in a process of its own;
rounds alternate. What runs is each project's own code, on one ready batch:

- open_clip: `open_clip_train.train.train_one_epoch` itself, its loader replaced by one that hands out the batch as its
  loader does, float32 pixels, normalised, and tokens padded to 77; with what its `main` builds by default for
  `--precision amp_bf16`: AdamW, `ClipLoss`, the cosine schedule, no clipping, no `--torchcompile`.
- diptych: the trainer's `update`, its batch as `diptych.pairs.pipeline` makes it: 8-bit pixels, which are normalised
  within the step, and tokens cut to the longest text.

Pixels are random. Captions are words drawn at random, as many as those of Flickr8k have: there a text has 14.1 tokens
in the mean, start and end included, with a deviation of 4.0 (30,428 captions), and a log-normal law fits. Where texts
fill the context nothing can be cut. Peak memory is VmHWM of the process at its end; `imports` is what it held before
there was a model, and the rest is what training takes; at 4,096 pairs some 12 GB for
open_clip. On a busy machine look at
the processor time of one thread, as benchmarks/loss.py says. Writes results/train_step.json.
"""

import argparse
import ctypes
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

import history
from diptych.runtime import hardware

SEED = 0
# Sizes of both towers; a text costs 0.75 of a picture, as 0.67 in ViT-B/32. Heads of 64 channels; open_clip's own GELU.
IMAGE = {"image_size": 64, "patch_size": 16, "width": 192, "layers": 8, "heads": 3, "activation": "gelu"}
TEXT = {"context_length": 77, "vocab_size": 49_408, "width": 128, "layers": 3, "heads": 2, "activation": "gelu"}
EMBED_DIM = 256
# Batches, and rounds after the first, which warms up; with 4,096 pairs a round of all sides takes minutes.
BATCH, ROUNDS = 256, 10
LARGE_BATCH, LARGE_ROUNDS = 4096, 2
SAVERS = {"micro_batch_size": 512, "activation_checkpointing": True, "optimizer_state": "bfloat16"}
# fmt: off
WORDS = [
    "a", "dog", "the", "man", "in", "on", "is", "two", "of", "with", "and", "woman", "people", "white", "black",
    "brown", "young", "boy", "girl", "red", "blue", "water", "front", "playing", "running", "standing", "grass",
    "snow", "street", "beach", "wearing", "shirt", "jumping", "through", "small", "large", "ball", "green",
    "over", "field",
]
# fmt: on


def captions(count: int, *, full: bool) -> list[str]:
    """Random words; token counts as those of Flickr8k, or more than fit."""
    draw = torch.Generator().manual_seed(SEED)
    lengths = torch.exp(2.439 + 0.321 * torch.randn(count, generator=draw)).round().clamp(1, 75).int().tolist()
    lengths = [75] * count if full else lengths
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=draw).tolist()) for n in lengths]


def pixels(count: int) -> Tensor:
    """[B, S, S, 3] uint8."""
    side = IMAGE["image_size"]
    return torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(SEED))


def first_weights(folder: Path) -> None:
    """The model that both sides start from, as each of them reads it: `folder/bundle` and `folder/vit`."""
    import open_clip

    from diptych.data.images import Preprocess
    from diptych.data.tokenizer import Tokenizer
    from diptych.model.clip import CLIP, CLIPConfig
    from diptych.model.image_tower import ImageTowerConfig
    from diptych.model.text_tower import TextTowerConfig
    from diptych.torch_runtime import generator
    from diptych.weights.bundle import Bundle
    from diptych.weights.convert import save_as

    config = CLIPConfig(embed_dim=EMBED_DIM, image=ImageTowerConfig(**IMAGE), text=TextTowerConfig(**TEXT))
    tokenizer = Tokenizer.from_merges(Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz"))
    bundle = Bundle(
        model=CLIP(config, generator(SEED)), preprocess=Preprocess(image_size=IMAGE["image_size"]), tokenizer=tokenizer
    )
    bundle.save(folder / "bundle")
    save_as(bundle, folder / "vit", format="open_clip")


class Clocks(NamedTuple):
    """Seconds; processor time hardly depends on what else runs, where a step has one thread."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> "Clocks":
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def since(cls, start: "Clocks") -> "Clocks":
        return cls(*(now - before for now, before in zip(cls.now(), start, strict=True)))


class OpenClip:
    """`train_one_epoch` with a loader that takes orders."""

    def __init__(self, folder: Path, batch_size: int, full: bool, options: list[str]) -> None:
        from open_clip import create_loss, create_model_and_transforms, get_tokenizer
        from open_clip_train import params, scheduler, train

        self.imports = status_megabytes("VmRSS")
        model = f"local-dir:{folder / 'vit'}"
        args = params.parse_args(
            ["--model", model, "--precision", "amp_bf16", "--batch-size", str(batch_size), *options]
        )
        vars(args).update(device="cpu", rank=0, world_size=1, distributed=False, distill=False, wandb=False)
        self.model, preprocess, _ = create_model_and_transforms(
            model, precision=args.precision, device="cpu", output_dict=True
        )
        if args.grad_checkpointing:
            self.model.set_grad_checkpointing()
        named = list(self.model.named_parameters())
        plain = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
                {"params": [p for n, p in named if n not in plain], "weight_decay": args.wd},
            ],
            lr=args.lr,
            betas=(args.beta1, args.beta2),
            eps=args.eps,
        )
        normalise = preprocess.transforms[-1]
        images = torch.stack([normalise(image.permute(2, 0, 1) / 255) for image in pixels(batch_size)])
        tokens = get_tokenizer(model)(captions(batch_size, full=full))
        loss = create_loss(args)
        loss.register_forward_hook(self._note)
        self._parts = list(zip(images.chunk(args.accum_freq), tokens.chunk(args.accum_freq), strict=True))
        self._train = lambda loader: train.train_one_epoch(
            self.model,
            {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)},
            loss,
            0,
            optimizer,
            None,
            scheduler.cosine_lr(optimizer, args.lr, args.warmup, 100_000),
            None,
            args,
        )
        self.num_batches = self.num_samples = 100_000
        self._batch_size = batch_size

    def _note(self, _module: torch.nn.Module, _inputs: Any, losses: dict[str, Tensor]) -> None:
        self._loss = losses["contrastive_loss"].item()

    def serve(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._train(self)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self._pipe.recv():
            start = Clocks.now()
            yield from self._parts  # asked for the next one, the last one's step is done
            self._pipe.send((Clocks.since(start), self._loss))
            give_back(self._batch_size)


class Ours:
    """The trainer's update."""

    def __init__(self, folder: Path, batch_size: int, full: bool, options: dict[str, Any]) -> None:
        from diptych.pairs.pipeline import Batch, DataConfig, Source
        from diptych.train.distributed import Ranks
        from diptych.train.recipe import TokenizerConfig, TrainConfig, TrainRecipe
        from diptych.train.run import Run
        from diptych.weights.bundle import Bundle

        self.imports = status_megabytes("VmRSS")
        bundle = Bundle.load(folder / "bundle")
        recipe = TrainRecipe(
            name="step",
            model=bundle.model.config,
            data=DataConfig(sources=(Source(path="none"),)),
            train=TrainConfig(
                steps=100_000, batch_size=batch_size, warmup_steps=10_000, precision="bfloat16", **options
            ),
            preprocess=bundle.preprocess,
            tokenizer=TokenizerConfig(vocab_size=TEXT["vocab_size"]),
            start_from=str(folder / "bundle"),
        )
        del bundle
        self._run = Run(recipe, [], None, Ranks(0, 1, torch.device("cpu")))
        tokens = torch.from_numpy(self._run.bundle.tokenizer.encode(captions(batch_size, full=full), truncate=True))
        tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]
        self._batch = Batch(
            pixels(batch_size), tokens, torch.arange(batch_size), torch.arange(batch_size), [""] * batch_size, {}, 0
        )

    def serve(self, pipe: Connection) -> None:
        from diptych.train.update import train_step

        while pipe.recv():
            start = Clocks.now()
            outcome = train_step(self._run, self._batch, [len(self._batch.images)])
            pipe.send((Clocks.since(start), outcome.loss))
            give_back(len(self._batch.images))


def status_megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def give_back(batch_size: int) -> None:
    """Freed memory of a large step, to the system: the other sides need it."""
    if batch_size > BATCH:
        ctypes.CDLL(None).malloc_trim(0)


def serve(side: type, pipe: Connection, *arguments: Any) -> None:
    torch.manual_seed(SEED)
    built = side(*arguments)
    pipe.send(built.imports)
    built.serve(pipe)
    pipe.send(status_megabytes("VmHWM"))


class Worker:
    """One side in a process of its own."""

    def __init__(self, side: type, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(side, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> float:
        """To be called first: what its imports took, MB."""
        return self._pipe.recv()

    def step(self) -> tuple[Clocks, float]:
        """One step: its time, and the loss before it."""
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> float:
        """Peak of its memory, MB."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak


def compared(
    folder: Path, batch_size: int, rounds: int, sides: dict[str, Any], *, full: bool = False
) -> dict[str, Any]:
    """Times and peaks of some sides, alternating; ratios are to the first side."""
    load = round(os.getloadavg()[0], 2)
    workers = {
        name: Worker(OpenClip if isinstance(options, list) else Ours, folder, batch_size, full, options)
        for name, options in sides.items()
    }
    imports = {name: worker.ready() for name, worker in workers.items()}
    first: dict[str, tuple[Clocks, float]] = {name: worker.step() for name, worker in workers.items()}
    times: dict[str, list[Clocks]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            times[name].append(worker.step()[0])
    peaks = {name: worker.close() for name, worker in workers.items()}
    reference = next(iter(sides))
    rows = {}
    for name in workers:
        taken, theirs = times[name], times[reference]
        own, other = peaks[name] - imports[name], peaks[reference] - imports[reference]
        rows[name] = {
            "options": sides[name],
            "loss of the first step": round(first[name][1], 4),
            "first step, seconds": round(first[name][0].clock, 2),
            "step, seconds": median(t.clock for t in taken),
            "step, processor seconds": median(t.processor for t in taken),
            "pairs a second": round(batch_size / statistics.median(t.clock for t in taken), 1),
            "peak, MB": round(peaks[name]),
            "imports, MB": round(imports[name]),
        }
        if name != reference:
            rows[name] |= {
                "time / first side's": median(t.clock / r.clock for t, r in zip(taken, theirs, strict=True)),
                "processor time / first side's": median(
                    t.processor / r.processor for t, r in zip(taken, theirs, strict=True)
                ),
                "pairs a second / first side's": median(r.clock / t.clock for t, r in zip(taken, theirs, strict=True)),
                "peak / first side's": round(peaks[name] / peaks[reference], 3),
                "peak without imports / first side's": round(own / other, 3),
            }
    return {"batch": batch_size, "n": rounds, "load average before": load, "sides": rows}


def median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=0, help="of each part, instead of its own number")
    parser.add_argument(
        "--parts", nargs="+", choices=("short", "full", "compile", "memory"), help="of the file; else all"
    )
    parser.add_argument("--large-batch", type=int, default=LARGE_BATCH, help="pairs, of the part on memory")
    options = parser.parse_args()
    out = history.RESULTS / "train_step.json"
    plain = {"open_clip": [], "diptych": {}}
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "short": lambda folder: compared(folder, BATCH, options.rounds or ROUNDS, plain),
        "full": lambda folder: compared(folder, BATCH, options.rounds or ROUNDS, plain, full=True),
        "compile": lambda folder: compared(
            folder, BATCH, options.rounds or ROUNDS, {"diptych": {}, "diptych, compiled": {"compile": True}}
        ),
        "memory": lambda folder: compared(
            folder,
            options.large_batch,
            options.rounds or LARGE_ROUNDS,
            {
                "open_clip": [],
                "open_clip, checkpointing": ["--grad-checkpointing"],
                "open_clip, accumulation": ["--accum-freq", "8"],
                "diptych": {},
                "diptych, micro-batches": {"micro_batch_size": 512},
                "diptych, savers": SAVERS,
                "diptych, savers and patch dropout": SAVERS | {"patch_dropout": 0.5},
            },
        ),
    }
    result = json.loads(out.read_text(encoding="utf-8")) if options.parts else {"parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        first_weights(Path(folder))
        for name in options.parts or parts:
            result["parts"][name] = parts[name](Path(folder))
            print(name, json.dumps(result["parts"][name], indent=2), flush=True)
    result |= {
        "what": "one training step in bfloat16 autocast, of a ViT of 64 px and a text tower of 77 tokens",
        "model": {"embed_dim": EMBED_DIM, "image": IMAGE, "text": TEXT},
        "open_clip": importlib.metadata.version("open_clip_torch"),
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    measured = {"parts": {name: result["parts"][name] for name in options.parts or parts}}
    history.write(out, result, measured=measured)


if __name__ == "__main__":
    main()
