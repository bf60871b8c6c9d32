"""Where a training step's time goes, part by part, against the fastest matrix product of this machine.

    python benchmarks/step_profile.py                                  # one thread and two; minutes
    python benchmarks/step_profile.py --cases demo --threads 1 --rounds 5 --out /tmp/small.json

Cases: `demo` is the demo's recipe on its own batches; `ViT-B-32` that model on 8 random pictures and captions as long
as Flickr8k's. In bfloat16 autocast and in float32, with the texts packed, as the trainer has them, and padded to the
longest of the batch, as it had them. Parts are timed one by one on the same batch: a forward pass of each tower, the
loss from features to the gradients of the features, a backward pass of each tower, and the optimizer; `whole` is the
trainer's own `train_step`, and `rest` what it does besides. Muon's update is timed in the same way, beside AdamW's.

The peak is the fastest of some square matrix products. FLOPs are those that torch's counter sees. All times are
processor time, of all threads together, medians of rounds in which all cases take turns: other work on the machine
hardly moves them. So a share of the peak is FLOPs a processor second, over those of the fastest product.

`waits`: the trainer's loop on the demo's pictograms and on 64 px of Flickr8k's photographs, where those are at hand,
with 0, 1 and 2 threads that prepare batches: the share of the clock that it waits for data. Writes
results/step_profile.json.
"""

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import diptych.cli
import history
from diptych.data.images import Preprocess
from diptych.model.presets import preset
from diptych.pairs.pipeline import Batch, DataConfig, batches, pair_sources
from diptych.pairs.sources import Source
from diptych.runtime import hardware
from diptych.torch_runtime import generator
from diptych.train.distributed import Ranks
from diptych.train.loss import clip_loss
from diptych.train.recipe import TokenizerConfig, TrainConfig, TrainRecipe, read_recipe
from diptych.train.run import Run
from diptych.train.update import train_step

SEED, PAIRS = 0, 8
DEMO = Path(diptych.cli.__path__[0]) / "demo.toml"
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "flickr8k"
CASES, PRECISIONS = ("demo", "ViT-B-32"), ("bfloat16", "float32")


def demo_recipe(**options: Any) -> TrainRecipe:
    recipe = read_recipe(DEMO)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))


def demo_batch(recipe: TrainRecipe, run: Run) -> Batch:
    stream = batches(
        run.sources,
        recipe.data,
        preprocess=recipe.preprocess,
        tokenizer=run.bundle.tokenizer,
        batch_size=recipe.train.batch_size,
        seed=SEED,
        start=0,
        stop=1,
    )
    (batch,) = stream
    return batch


def large_recipe(**options: Any) -> TrainRecipe:
    model = preset("ViT-B-32")
    return TrainRecipe(
        name="ViT-B-32",
        model=model,
        data=DataConfig(sources=(Source(path="embedded:emoji"),)),
        train=TrainConfig(steps=1000, batch_size=PAIRS, **options),
        preprocess=Preprocess(image_size=model.image.image_size),
        tokenizer=TokenizerConfig(vocab_size=model.text.vocab_size),
    )


def large_batch(recipe: TrainRecipe, _run: Run) -> Batch:
    """Lengths as benchmarks/train_step.py draws them."""
    draw, end, side = generator(SEED), recipe.model.text.vocab_size - 1, recipe.preprocess.image_size
    lengths = 2 + torch.exp(2.439 + 0.321 * torch.randn(PAIRS, generator=draw)).round().clamp(1, 75).long()
    tokens = torch.randint(1, end, (PAIRS, int(lengths.max())), generator=draw)
    tokens[torch.arange(PAIRS), lengths - 1] = end
    tokens[torch.arange(tokens.shape[1]) >= lengths[:, None]] = 0
    pixels = torch.randint(256, (PAIRS, side, side, 3), dtype=torch.uint8, generator=draw)
    numbers = torch.arange(PAIRS)
    return Batch(pixels, tokens, numbers, numbers, [""] * PAIRS, {}, 0)


class Held:
    """A run of a recipe, its batch, and an update by Muon of the same gradients."""

    def __init__(self, name: str) -> None:
        recipe, take = (demo_recipe(), demo_batch) if name == "demo" else (large_recipe(), large_batch)
        optimizers: tuple[Any, ...] = ("adamw", "muon")
        recipes = [
            dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, optimizer=o)) for o in optimizers
        ]
        sources = pair_sources(recipe.data)
        self.run, self.muon = (Run(one, sources, None, Ranks(0, 1, torch.device("cpu"))) for one in recipes)
        self.batch = take(recipe, self.run)
        self.pairs = len(self.batch.images)
        end = self.run.bundle.tokenizer.end_token_id if name == "demo" else recipe.model.text.vocab_size - 1
        lengths = self.batch.tokens.eq(end).int().argmax(dim=1) + 1
        self.padding = 1 - lengths.float().mean().item() / self.batch.tokens.shape[1]


class Case:
    """The parts of a step, in one type of number and with texts packed or padded."""

    def __init__(self, held: Held, precision: str, *, packs: bool) -> None:
        self.held, self.precision, self.packs = held, precision, packs

    def _set(self) -> Run:
        self.held.run.precision = self.precision
        self.held.run.model.pack_texts(self.packs)
        return self.held.run

    def whole(self) -> None:
        train_step(self._set(), self.held.batch, [self.held.pairs])

    def parts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Each part, to be called in this order: what one makes, the next ones take."""
        run, batch = self._set(), self.held.batch
        model, made = run.model, dict[str, Any]()
        run.optimizer.zero_grad()
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0  # nothing moves, and the work is the same

        def forward(name: str, encode: Callable[[Tensor], Tensor], given: Tensor) -> None:
            with run.autocast():
                made[name] = encode(given)

        def loss() -> None:
            leaves = [made[name].detach().requires_grad_() for name in ("image", "text")]
            clip_loss(*leaves, model.logit_scale_factor(), text_ids=batch.text_ids).backward()
            made["gradients"] = [leaf.grad for leaf in leaves]

        yield "pixels", lambda: made.update(pixels=run.pixels(batch.images))
        yield "image, forward", lambda: forward("image", model.encode_image, made["pixels"])
        yield "text, forward", lambda: forward("text", model.encode_text, batch.tokens)
        yield "loss and its gradient", loss
        yield "image, backward", lambda: made["image"].backward(made["gradients"][0])
        yield "text, backward", lambda: made["text"].backward(made["gradients"][1])
        yield "AdamW", run.optimizer.step
        if self.packs:
            for ours, theirs in zip(model.parameters(), self.held.muon.model.parameters(), strict=True):
                theirs.grad = ours.grad
            yield "Muon", self.held.muon.optimizer.step


def counted(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def processor_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak(dtype: torch.dtype) -> float:
    """FLOPs a processor second of the fastest product."""
    found = []
    for side in (512, 1024, 2048):
        a = torch.ones(side, side, dtype=dtype)
        found += [2 * side**3 / processor_seconds(lambda a=a: torch.mm(a, a)) for _ in range(5)]
    return max(found)


def profiled(runs: dict[str, Held], precisions: list[str], rounds: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    peaks = {precision: peak(getattr(torch, precision)) for precision in PRECISIONS}
    cases = {
        f"{name}, {precision}, {'packed' if packs else 'padded'}": Case(held, precision, packs=packs)
        for name, held in runs.items()
        for precision in precisions
        for packs in (True, False)
    }
    flops = {name: {part: counted(work) for part, work in case.parts()} for name, case in cases.items()}
    times: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    for round_ in range(rounds + 1):
        for name, case in cases.items():
            taken = {part: processor_seconds(work) for part, work in case.parts()}
            taken["whole"] = processor_seconds(case.whole)
            if round_:
                for part, seconds in taken.items():
                    times[name].setdefault(part, []).append(seconds)
    rows = []
    for name, found in times.items():
        medians = {part: statistics.median(values) for part, values in found.items()}
        medians["rest"] = medians["whole"] - sum(v for part, v in medians.items() if part not in ("whole", "Muon"))
        counts = flops[name] | {"whole": sum(count for part, count in flops[name].items() if part != "Muon")}
        for part, seconds in medians.items():
            row = {"case": name, "part": part, "threads": threads, "milliseconds": round(1000 * seconds, 2)}
            row["share of the step"] = round(seconds / medians["whole"], 3)
            if count := counts.get(part):
                fastest = peaks["float32" if part == "Muon" else name.split(", ")[1]]  # its products are of float32
                row["GFLOP"] = round(count / 1e9, 2)
                row["share of the peak"] = round(count / seconds / fastest, 3)
            rows.append(row)
    packed = {
        name.removesuffix(", packed"): round(
            statistics.median(
                a / b for a, b in zip(found["whole"], times[name.replace("packed", "padded")]["whole"], strict=True)
            ),
            3,
        )
        for name, found in times.items()
        if name.endswith("packed")
    }
    return {
        "peak, GFLOP a processor second": {name: round(value / 1e9, 1) for name, value in peaks.items()},
        "rows": rows,
        "step packed / padded": packed,
    }


def waits(threads: int, steps: int) -> list[dict[str, Any]]:
    """The share of the clock that a loop of steps waits, and processor seconds of preparing a batch."""
    recipe = demo_recipe()
    photos = dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, sources=(Source(path=str(PHOTOS)),)),
    )
    rows = []
    for name, one in {"pictograms": recipe, "photographs": photos}.items():
        if name == "photographs" and not PHOTOS.exists():
            continue
        run = Run(one, pair_sources(one.data), None, Ranks(0, 1, torch.device("cpu")))
        for workers in (0, 1, 2):
            stream = batches(
                run.sources,
                one.data,
                preprocess=one.preprocess,
                tokenizer=run.bundle.tokenizer,
                batch_size=one.train.batch_size,
                seed=SEED,
                start=0,
                stop=steps + 1,
                threads=workers,
            )
            waited, decoded, start = 0.0, 0.0, 0.0
            for number in range(steps + 1):
                before = time.perf_counter()
                batch = next(stream)
                if number:  # the first one waits for the threads to begin
                    waited += time.perf_counter() - before
                    decoded += batch.seconds["decode"]
                train_step(run, batch, [len(batch.images)])
                start = start or time.perf_counter()
            passed = time.perf_counter() - start
            stream.close()
            row = {"pictures": name, "workers": workers, "threads": threads, "n": steps}
            row |= {"waits": round(waited / passed, 3), "batch, seconds of a core": round(decoded / steps, 3)}
            rows.append(row | {"step, seconds": round((passed - waited) / steps, 3)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=15, help="of the loops that are looked at for waits; 0: none")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "step_profile.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "what": "parts of a training step, processor time; medians of alternating rounds",
        "n": options.rounds,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "load average before": round(os.getloadavg()[0], 2),
        "threads": {},
        "waits": [],
    }
    runs = {name: Held(name) for name in options.cases}
    result["cases"] = {name: {"pairs": held.pairs, "padding": round(held.padding, 3)} for name, held in runs.items()}
    for threads in options.threads:
        result["threads"][str(threads)] = profiled(runs, options.precisions, options.rounds, threads)
        print(json.dumps(result["threads"][str(threads)], indent=1), flush=True)
    if options.steps:
        result["waits"] = waits(max(options.threads), options.steps)
        print(json.dumps(result["waits"], indent=1))
    history.write(options.out, result, keys=("case", "part", "pictures", "workers"))


if __name__ == "__main__":
    main()
