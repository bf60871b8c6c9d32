"""What matters on a GPU, checked and measured within eight minutes.

    python benchmarks/gpu.py                  # needs diptych[train]; where open_clip_torch is, it is measured too
    python benchmarks/gpu.py --parts loss "step ViT-B-32" --out /tmp/gpu.json
    python benchmarks/gpu.py --device cpu --tiny --out /tmp/tiny.json        # without a GPU

Each part is a process of its own with a limit of its own: one that fails, hangs or runs out of memory takes no other
with it. Without a GPU it says so, writes nothing and ends well. A part that checks something says what `holds`; the
exit code is 1 where a check does not, or where a part failed.

- curves: the losses of the same steps in float32 on the CPU and on the GPU, in bfloat16 and float16 there, and with
  Muon; a ResNet and a vision transformer on the embedded pictograms. TOLERANCE says how far apart two may be.
- run: `diptych.train` as a user runs it, evaluated, stopped half way and gone on with.
- loss: `clip_loss` of 32,768 pairs beside the whole matrix: milliseconds, and peak memory against `diptych plan`'s.
- step MODEL: a training step on a ready batch, texts that fill the context; peak memory against `diptych plan`'s; what
  copying the pixels takes, from pinned memory and not.
- compile, muon: the same with `train.compile`, with `train.optimizer = "muon"`.
- open_clip MODEL: the same pairs in open_clip's own `train_one_epoch`, its pixels pinned as its loader pins them.
- inference: pictures a second from 8-bit pixels to features.
- ddp: one process under DistributedDataParallel with nccl has the losses of one without.

TF32 is off in `curves`, on in nothing else than torch's defaults. Writes results/gpu.json.
"""

import argparse
import contextlib
import copy
import dataclasses
import datetime
import functools
import gc
import importlib.util
import math
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

import history
from diptych.data.images import Preprocess
from diptych.eval.measure import evaluate_zero_shot
from diptych.model.clip import CLIPConfig
from diptych.model.presets import preset
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.pairs.pipeline import Batch, DataConfig, batches, pair_sources
from diptych.pairs.sources import Source
from diptych.runtime import hardware
from diptych.torch_runtime import generator
from diptych.train.devices import find_device
from diptych.train.distributed import Ranks, Spread
from diptych.train.loss import clip_loss
from diptych.train.plan import Setup, plan_run
from diptych.train.recipe import TokenizerConfig, TrainConfig, TrainRecipe
from diptych.train.run import Run
from diptych.train.trainer import StepReport, train
from diptych.train.update import train_step
from diptych.weights.bundle import Bundle

SEED, BUDGET, TINY_LIMIT = 0, 480, 600  # seconds, of all parts, and of each where the sizes are tiny
# Nats, between a loss on the GPU and the CPU's in float32, at any of the steps. A mistake in device, type or scale is
# larger; rounding, which grows from step to step, should be smaller, and was not measured on a GPU yet.
TOLERANCE = {"float32": 0.01, "bfloat16": 0.2, "float16": 0.1}
WAYS = [("float32", "adamw"), ("bfloat16", "adamw"), ("float16", "adamw"), ("float32", "muon")]
PEER = "open_clip"


class Setting(NamedTuple):
    """Where and how large."""

    device: torch.device
    tiny: bool

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def synchronise(self) -> None:
        """A GPU goes on working while Python is ahead of it: no clock is read before it is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], rounds: int, *, warm_up: int = 3) -> float:
        """The median of some rounds."""
        taken = []
        for _ in range(self.size(warm_up + rounds, 2)):
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[self.size(warm_up, 1) :])

    def peak(self, work: Callable[[], object]) -> tuple[int, int] | None:
        """Bytes held before something, and at its peak; None where torch does not count them."""
        if self.device.type != "cuda":
            work()
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        self.synchronise()
        return before, torch.cuda.max_memory_allocated(self.device)


def recipe_of(model: CLIPConfig, pairs: int, **options: Any) -> TrainRecipe:
    """A recipe for batches that are handed over."""
    return TrainRecipe(
        name="gpu",
        model=model,
        data=DataConfig(sources=(Source(path="embedded:emoji"),)),
        train=TrainConfig(**{"steps": 1000, "batch_size": pairs, "warmup_steps": 10, "learning_rate": 1e-3} | options),
        preprocess=Preprocess(image_size=model.image.image_size),
        tokenizer=TokenizerConfig(vocab_size=model.text.vocab_size),
    )


def made_batch(model: CLIPConfig, pairs: int) -> Batch:
    """Random pixels, and texts that fill the context."""
    draw, side, text = generator(SEED), model.image.image_size, model.text
    tokens = torch.randint(1, text.vocab_size - 1, (pairs, text.context_length), generator=draw)
    tokens[:, -1] = text.vocab_size - 1  # the end
    pixels = torch.randint(256, (pairs, side, side, 3), dtype=torch.uint8, generator=draw)
    numbers = torch.arange(pairs)
    return Batch(pixels, tokens, numbers, numbers, [str(number) for number in range(pairs)], {}, 0)


class Words:
    """The source of a run whose batches are handed over: something for a tokenizer to learn from."""

    def __len__(self) -> int:
        return 1

    def captions(self, _index: int) -> list[str]:
        return ["a cat and a cat"]

    def fingerprint(self) -> str:
        return ""


def held(recipe: TrainRecipe, device: torch.device, sources: Sequence[Any] = (Words(),)) -> Run:
    return Run(recipe, sources, None, Ranks(0, 1, device))


def curve_recipes(setting: Setting) -> dict[str, TrainRecipe]:
    """The demo's ResNet, and a small vision transformer."""
    text = dataclasses.replace(preset("tiny-vit").text, vocab_size=1024, width=setting.size(128, 32))
    vit, resnet = preset("tiny-vit"), preset("tiny-resnet")
    if not setting.tiny:
        image = dataclasses.replace(vit.image, width=192, layers=4, heads=3, mlp_width=768)  # pyright: ignore[reportArgumentType]
        vit = dataclasses.replace(vit, image=image)
        image = ResNetTowerConfig(image_size=32, width=32, layers=(1, 1, 1, 1), heads=16)
        resnet = dataclasses.replace(resnet, image=image)
    pairs = setting.size(128, 16)
    text = dataclasses.replace(text, mlp_width=4 * text.width)
    return {
        name: recipe_of(dataclasses.replace(model, text=text), pairs) for name, model in (("vit", vit), ("rn", resnet))
    }


def are_finite(run: Run) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in run.model.parameters())


def losses(
    recipe: TrainRecipe,
    start: str,
    device: torch.device,
    *,
    given: Sequence[Batch],
    optimizer: Any,
    precision: Any = "float32",
) -> list[float]:
    """Of some steps from `start`; where one is not finite, the trainer stops."""
    settings = dataclasses.replace(recipe.train, optimizer=optimizer, precision=precision)
    recipe = dataclasses.replace(recipe, start_from=start, train=settings)
    run = held(recipe, device)
    found = [train_step(run, batch, [len(batch.images)]).loss for batch in given]
    assert are_finite(run)
    return found


def curves(setting: Setting) -> dict[str, Any]:
    torch.backends.cudnn.allow_tf32 = False  # convolutions take it by default, matrix products do not
    steps, rows, cpu = setting.size(30, 3), {}, torch.device("cpu")
    for name, recipe in curve_recipes(setting).items():
        sources = pair_sources(recipe.data)
        with tempfile.TemporaryDirectory() as folder:
            bundle = held(recipe, cpu, sources).bundle
            bundle.save(Path(folder) / "start")
            stream = batches(
                sources,
                recipe.data,
                preprocess=recipe.preprocess,
                tokenizer=bundle.tokenizer,
                batch_size=recipe.train.batch_size,
                seed=SEED,
                start=0,
                stop=steps,
            )
            given = list(stream)
            of = functools.partial(losses, recipe, str(Path(folder) / "start"), given=given)
            references = {optimizer: of(cpu, optimizer=optimizer) for optimizer in ("adamw", "muon")}
            for precision, optimizer in WAYS:
                here = references[optimizer]
                there = of(setting.device, precision=precision, optimizer=optimizer)
                apart = max(abs(a - b) for a, b in zip(there, here, strict=True))
                rows[f"{name}, {precision}, {optimizer}"] = {
                    "first": there[0],
                    "last": there[-1],
                    "last, float32 on the CPU": here[-1],
                    "farthest apart": apart,
                    "tolerance": TOLERANCE[precision],
                    "holds": apart <= TOLERANCE[precision],
                }
    return {"steps": steps, "pairs": recipe.train.batch_size, "rows": rows}


def run(setting: Setting) -> dict[str, Any]:
    """`train` from its beginning to its end, stopped half way as by Ctrl-C."""
    recipe = curve_recipes(setting)["rn"]
    steps = setting.size(60, 4)
    options = {"steps": steps, "checkpoint_every": steps, "log_every": 1, "precision": "auto"}
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))
    seen: list[StepReport] = []

    def stop_half_way(report: StepReport) -> None:
        seen.append(report)
        if report.step == steps // 2:
            signal.raise_signal(signal.SIGINT)

    from diptych.data.embedded import data_path
    from diptych.sets.open import read_labelled

    data = read_labelled(data_path("embedded:twemoji"))

    def measure(bundle: Any) -> dict[str, float]:
        return {"top1": evaluate_zero_shot(bundle, data).numbers["top-1"]}

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        first = train(recipe, out, on_progress=stop_half_way)
        last = train(recipe, out, on_progress=seen.append, evaluators={} if setting.tiny else {"twemoji": measure})
    falls = statistics.fmean(r.loss for r in seen[-5:]) < seen[0].loss
    holds = not first.finished and first.step == steps // 2 and last.finished and last.step == steps
    return {
        "losses": [seen[0].loss, seen[-1].loss],
        "metrics": dict(last.metrics),
        "pairs/s": round(statistics.median(r.pairs_per_second for r in seen), 1),
        "time": dict(last.counts["time"]),
        "holds": holds and (falls or setting.tiny),
    }


def loss(setting: Setting) -> dict[str, Any]:
    pairs, width = setting.size(32_768, 512), 512
    draw = generator(SEED)
    images, texts = (F.normalize(torch.randn(pairs, width, generator=draw)).to(setting.device) for _ in range(2))
    scale = torch.tensor(30.0, device=setting.device)
    inputs = [value.requires_grad_() for value in (images, texts, scale)]

    def plain(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        logits, target = scale * images @ texts.T, torch.arange(pairs, device=setting.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    model = dataclasses.replace(preset("ViT-B-32"), embed_dim=width)
    memory = plan_run(recipe_of(model, pairs), Setup(device=find_device("h100-80gb"), precision="float32")).memory
    planned = memory["loss tile"] + memory["features"] // 2  # the other half are the features, which are there before
    rows: dict[str, Any] = {"pairs": pairs, "width": width, "planned MB": round(planned / 1e6, 1)}
    gradients = []
    for name, way in (("tiles", clip_loss), ("whole matrix", plain)):

        def work(way: Callable[..., Tensor] = way) -> float:
            for value in inputs:
                value.grad = None
            value = way(*inputs)
            value.backward()
            return value.item()

        for value in inputs:  # what is held before must not have them
            value.grad = None
        try:
            peak = setting.peak(work)
            rows[name] = {"loss": work(), "milliseconds": round(1000 * setting.seconds(work, 5), 2)}
        except torch.OutOfMemoryError:
            rows[name] = "does not fit"
            continue
        rows[name]["peak MB"] = peak and round((peak[1] - peak[0]) / 1e6, 1)
        gradients.append([value.grad for value in inputs])
    if len(gradients) == 2:
        apart = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*gradients, strict=True))
        rows["gradients apart, of the largest"] = apart
        rows["holds"] = apart < 1e-3 and abs(rows["tiles"]["loss"] - rows["whole matrix"]["loss"]) < 1e-4
    return rows


def sizes(setting: Setting, name: str) -> tuple[CLIPConfig, int]:
    """A model, and pairs that a GPU of 24 GB takes."""
    if setting.tiny:
        model = preset("tiny-vit")
        return dataclasses.replace(model, text=dataclasses.replace(model.text, vocab_size=1024)), 16
    return preset(name), {"ViT-B-32": 512, "ViT-B-16": 192}[name]


def step(setting: Setting, name: str, **options: Any) -> dict[str, Any]:
    model, pairs = sizes(setting, name)
    recipe = recipe_of(model, pairs, **{"precision": "bfloat16"} | options)
    run = held(recipe, setting.device)
    batch = made_batch(model, pairs)
    found: dict[str, Any] = {"pairs": pairs}

    def work() -> float:
        return train_step(run, batch, [pairs]).loss

    start = time.perf_counter()
    found["losses"] = [work()]
    setting.synchronise()
    found["first step, seconds"] = round(time.perf_counter() - start, 2)
    taken = setting.seconds(work, 10)
    found["milliseconds"] = round(1000 * taken, 2)
    found["pairs/s"] = round(pairs / taken, 1)
    if peak := setting.peak(work):
        plan = plan_run(recipe, Setup(device=find_device("h100-80gb"), precision=run.precision))  # pyright: ignore[reportArgumentType]
        found["peak GB"], found["planned GB"] = round(peak[1] / 1e9, 2), round(plan.memory_total / 1e9, 2)
        for way, pixels in (("pinned", batch.images.pin_memory()), ("not pinned", batch.images)):
            copied = setting.seconds(lambda pixels=pixels: pixels.to(setting.device, non_blocking=True), 10)
            found[f"copy of pixels, {way}, milliseconds"] = round(1000 * copied, 2)
    found["losses"].append(work())
    found["holds"] = all(map(math.isfinite, found["losses"])) and are_finite(run)
    return found


def compiled(setting: Setting) -> dict[str, Any]:
    if setting.tiny:  # a C++ compiler would take minutes: everything but the compiler runs
        torch._dynamo.config.disable = True
    return step(setting, "ViT-B-32", compile=True)


def open_clip(setting: Setting, name: str) -> dict[str, Any]:
    """Its `train_one_epoch`, and between two batches that it asks for, one step."""
    if not all(importlib.util.find_spec(module) for module in (PEER, "open_clip_train")):
        return {"skipped": "open_clip_torch is not installed"}
    from open_clip import create_loss, create_model_and_transforms
    from open_clip_train import params, scheduler, train

    _, pairs = sizes(setting, name)
    args = params.parse_args(["--model", name, "--precision", "amp_bf16", "--batch-size", str(pairs)])
    vars(args).update(device=str(setting.device), rank=0, world_size=1, distributed=False, distill=False, wandb=False)
    model, _, _ = create_model_and_transforms(name, precision=args.precision, device=setting.device, output_dict=True)
    named = list(model.named_parameters())
    plain = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
    groups = [
        {"params": [p for n, p in named if (n in plain) == is_plain], "weight_decay": 0.0 if is_plain else args.wd}
        for is_plain in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)
    draw = generator(SEED)
    images, tokens = torch.randn(pairs, 3, 224, 224, generator=draw), made_batch(preset(name), pairs).tokens
    if setting.device.type == "cuda":
        images, tokens = images.pin_memory(), tokens.pin_memory()
        torch.cuda.reset_peak_memory_stats(setting.device)
    warm_up, rounds, taken = setting.size(3, 1), setting.size(10, 1), []

    class Loader:
        num_batches = num_samples = 100_000

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for number in range(warm_up + rounds):
                setting.synchronise()
                start = time.perf_counter()
                yield images, tokens  # asked for the next one, the last one's step is queued
                setting.synchronise()
                if number >= warm_up:
                    taken.append(time.perf_counter() - start)

    data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda _: None)}
    schedule = scheduler.cosine_lr(optimizer, args.lr, args.warmup, 100_000)
    train.train_one_epoch(model, data, create_loss(args), 0, optimizer, None, schedule, None, args)
    second = statistics.median(taken)
    found = {"pairs": pairs, "milliseconds": round(1000 * second, 2), "pairs/s": round(pairs / second, 1)}
    if setting.device.type == "cuda":
        found["peak GB"] = round(torch.cuda.max_memory_allocated(setting.device) / 1e9, 2)
    return found


def inference(setting: Setting) -> dict[str, Any]:
    """Pictures a second as `Bundle.encode_each` encodes them, and how far features are from the processor's."""
    found = {}
    for name in ("ViT-B-32", "ViT-B-16"):
        model, _ = sizes(setting, name)
        count = setting.size(256, 8)
        plain = held(recipe_of(model, count), torch.device("cpu")).bundle
        pixels = made_batch(model, count).images.numpy()
        expected = plain.encode_pixels(pixels[:8])
        for precision in ("float32", "bfloat16", "float16"):
            bundle = dataclasses.replace(plain, model=copy.deepcopy(plain.model)).to(setting.device, precision)

            def work(bundle: Bundle = bundle, pixels: np.ndarray = pixels) -> list[np.ndarray]:
                return list(bundle.encode_each([pixels, pixels]))

            apart = np.linalg.norm(bundle.encode_pixels(pixels[:8]) - expected, axis=1).max()
            found[f"{name}, {precision}, distance to the processor"] = round(float(apart), 5)
            found[f"{name}, {precision}, pictures/s"] = round(2 * count / setting.seconds(work, 20), 1)
    return found


def ddp(setting: Setting) -> dict[str, Any]:
    recipe = curve_recipes(setting)["vit"]
    batch = made_batch(recipe.model, recipe.train.batch_size)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision="float32"))
    with tempfile.TemporaryDirectory() as folder:
        backend = "cpu:gloo,cuda:nccl" if setting.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            found = []
            for spreads in (False, True):
                run = held(recipe, setting.device)
                if spreads:  # with a group of one, but as several are held together
                    several: Any = SimpleNamespace(count=2, device=setting.device, rows=lambda vector: vector[None])
                    run.spread = Spread(run.learner, several, "ddp", run.model.blocks())
                found.append([train_step(run, batch, [len(batch.images)]).loss for _ in range(5)])
                run.spread.close()
            value = torch.ones(3, device=setting.device)
            dist.all_reduce(value)
            told: list[Any] = [None]
            dist.all_gather_object(told, "said")
        finally:
            gc.collect()  # of what held the run together, as in `launched_ranks`
            dist.destroy_process_group()
    apart = max(abs(a - b) for a, b in zip(*found, strict=True))
    holds = apart < 1e-3 and told == ["said"] and value.tolist() == [1, 1, 1]
    return {"losses": found[1], "farthest apart": apart, "holds": holds}


# What runs, and for how many seconds at most; in order of importance, as all together have BUDGET.
PARTS: dict[str, tuple[Callable[[Setting], dict[str, Any]], int]] = {
    "curves": (curves, 120),
    "loss": (loss, 60),
    "step ViT-B-32": (lambda setting: step(setting, "ViT-B-32"), 60),
    "open_clip ViT-B-32": (lambda setting: open_clip(setting, "ViT-B-32"), 60),
    "run": (run, 90),
    "step ViT-B-16": (lambda setting: step(setting, "ViT-B-16"), 60),
    "open_clip ViT-B-16": (lambda setting: open_clip(setting, "ViT-B-16"), 60),
    "ddp": (ddp, 60),
    "inference": (inference, 60),
    "float16": (lambda setting: step(setting, "ViT-B-32", precision="float16"), 60),
    "muon": (lambda setting: step(setting, "ViT-B-32", optimizer="muon"), 60),
    "compile": (compiled, 120),
}


def _part(pipe: Connection, name: str, setting: Setting) -> None:
    try:
        torch.manual_seed(SEED)
        if setting.device.type == "cuda":
            torch.cuda.set_device(setting.device)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # `train` takes a GPU where it sees one
        pipe.send(PARTS[name][0](setting))
    except BaseException as error:  # whatever it is, the report is the place for it
        pipe.send({"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def measured(name: str, setting: Setting, seconds: float) -> dict[str, Any]:
    """A part in a process of its own."""
    if seconds < 1:
        return {"failed": f"the {BUDGET} s of all parts were over"}
    # A GPU's driver does not survive a fork; without one, a fork has everything imported.
    context: Any = multiprocessing.get_context("spawn" if setting.device.type == "cuda" else "fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_part, args=(theirs, name, setting))
    start = time.perf_counter()
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(seconds) else {"failed": f"not done after {seconds:.0f} s"}
    except EOFError:
        process.join(10)
        found = {"failed": f"exit code {process.exitcode}"}
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def good(found: Any) -> bool:
    """Whether a part was done, and whatever it checked holds."""
    if not isinstance(found, dict):
        return True
    return "failed" not in found and found.get("holds", True) and all(map(good, found.values()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes for a look at the script itself")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--out", type=Path, default=history.RESULTS / "gpu.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing was measured, and nothing was written.")
        return
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    setting, start, parts = Setting(device, options.tiny), time.perf_counter(), {}
    for name in options.parts:
        left = BUDGET - (time.perf_counter() - start)
        parts[name] = measured(name, setting, TINY_LIMIT if options.tiny else min(PARTS[name][1], left))
        print(f"{name}: {parts[name]}", flush=True)
    for name in ("ViT-B-32", "ViT-B-16"):
        with contextlib.suppress(KeyError):
            ours, theirs = parts[f"step {name}"]["pairs/s"], parts[f"{PEER} {name}"]["pairs/s"]
            parts[f"step {name}"][f"pairs/s / {PEER}'s"] = round(ours / theirs, 3)
    result = {
        "what": "tiny sizes: no measurement" if options.tiny else "see the head of benchmarks/gpu.py",
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": str(device),
        "hardware": hardware(),
        "parts": parts,
    }
    history.write(options.out, result)
    failed = [name for name, found in parts.items() if not good(found)]
    print(f"-> {options.out}; {len(parts) - len(failed)} of {len(parts)} parts are good. " + ", ".join(failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
