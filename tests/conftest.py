"""What tests share: pairs that are drawn on the spot, and a run so small that it takes seconds."""

import dataclasses
import io
import itertools
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from PIL import Image, ImageDraw

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import DataConfig, Source
from diptych.pairs.shards import ShardWriter
from diptych.torch_runtime import generator
from diptych.train.recipe import TokenizerConfig, TrainConfig, TrainRecipe
from diptych.train.trainer import StepReport, TrainResult, train
from diptych.weights.bundle import Bundle
from runs import change, count_pairs, watched

# A shell hands it ignored to what it starts in the background; tests send it, and what they start inherits this.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the network
hypothesis.settings.register_profile("same every time", derandomize=True)
hypothesis.settings.load_profile("same every time")
torch.set_num_threads(1)  # tiny models are slower on two, and other tests run beside

_LONGEST = {False: 600, True: 3600}  # seconds of a test that is not, and of one that is marked as slow


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """No test waits for ever: for a process, a socket, or a moment that does not come."""
    seconds = _LONGEST[item.get_closest_marker("slow") is not None]

    def end(_number: int, _frame: object) -> None:
        pytest.fail(f"the test took more than {seconds} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, 30)  # again and again: what cleans up may wait, too
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


COLORS = ("red", "green", "blue", "black", "orange")
SHAPES = ("square", "circle", "bar", "cross")
SIZES = (10, 14)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawing(color: str, shape: str, size: int) -> Image.Image:
    image = Image.new("RGB", (32, 32), "white")
    draw = ImageDraw.Draw(image)
    low, high = 16 - size, 15 + size
    if shape == "square":
        draw.rectangle((low, low, high, high), fill=color)
    elif shape == "circle":
        draw.ellipse((low, low, high, high), fill=color)
    if shape in ("bar", "cross"):
        draw.rectangle((low, 13, high, 18), fill=color)
    if shape == "cross":
        draw.rectangle((13, low, 18, high), fill=color)
    return image


@pytest.fixture(scope="session")
def pair_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 drawings of 20 things, each with two captions, in 3 shards and a manifest. Not to be written to."""
    folder = tmp_path_factory.mktemp("pairs")
    with ShardWriter(folder, samples_per_shard=16) as writer:
        for number, (color, shape, size) in enumerate(itertools.product(COLORS, SHAPES, SIZES)):
            captions = f"{color} {shape}\na drawing of a {color} {shape}\n"
            writer.add(f"{number:03d}", {"png": png(drawing(color, shape, size)), "txt": captions.encode()})
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [f"a drawing of a {color} {shape}" for color in COLORS for shape in SHAPES]
    return Tokenizer.train(texts, vocab_size=600, context_length=16)


@pytest.fixture(scope="session")
def tiny_recipe(pair_shards: Path) -> TrainRecipe:
    """Eight steps of eight pairs; a log line each step, a checkpoint every second one."""
    model = preset("tiny-resnet")
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, vocab_size=600))
    return TrainRecipe(
        name="tiny",
        model=model,
        data=DataConfig(sources=(Source(path=str(pair_shards)),)),
        train=TrainConfig(
            steps=8,
            batch_size=8,
            learning_rate=2e-3,
            warmup_steps=2,
            precision="float32",
            log_every=1,
            checkpoint_every=2,
        ),
        preprocess=Preprocess(image_size=32),
        tokenizer=TokenizerConfig(vocab_size=600),
    )


@pytest.fixture(scope="session")
def undisturbed(tiny_recipe, tmp_path_factory) -> tuple[Path, TrainResult, list[StepReport]]:
    """The tiny recipe, run once. Not to be written to."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out, *watched(change(tiny_recipe, evaluate_every=3), out, evaluators={"set": count_pairs})


@pytest.fixture(scope="session")
def run_tiny(tiny_recipe) -> Callable[..., tuple[TrainResult, list[StepReport]]]:
    """The same run somewhere else, with an ear on its progress."""

    def run(out: Path, on_progress: Callable[[StepReport], None] = lambda _: None, **options: Any):
        seen: list[StepReport] = []

        def listen(progress: StepReport) -> None:
            seen.append(progress)
            on_progress(progress)

        recipe = change(tiny_recipe, evaluate_every=3, **options)
        return train(recipe, out, evaluators={"set": count_pairs}, on_progress=listen), seen

    return run


@pytest.fixture
def spoiled_shards(tmp_path) -> Path:
    """Every fifth of 40 pictures is cut short."""
    folder = tmp_path / "spoiled"
    with ShardWriter(folder) as writer:
        for n in range(40):
            picture = png(drawing("red" if n % 2 else "blue", "cross", 4 + n % 10))
            writer.add(str(n), {"png": picture[:60] if n % 5 == 0 else picture, "txt": b"blue cross"})
    return folder


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """A vision transformer with random weights; pictures of 32 pixels."""
    return untrained_bundle(0)


def untrained_bundle(seed: int) -> Bundle:
    tokenizer = Tokenizer.train(["a red kite", "a blue boat", "a red boat"] * 3, vocab_size=530, context_length=77)
    config = preset("tiny-vit")
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size, context_length=77)
    model = CLIP(dataclasses.replace(config, text=text), generator(seed)).eval()
    return Bundle(model=model, preprocess=Preprocess(image_size=32), tokenizer=tokenizer)


@pytest.fixture
def labelled_sets(tmp_path: Path) -> Path:
    """Two labelled sets of class folders with train and test, and one of captioned pictures in a tar."""
    for number, name in enumerate(("colours", "shades")):
        for split in ("train", "test"):
            for color in COLORS[:3]:
                folder = tmp_path / "data" / name / split / color
                folder.mkdir(parents=True)
                for i in range(4):
                    (folder / f"{i}.png").write_bytes(png(drawing(color, SHAPES[(i + number) % 4], 8 + i + len(split))))
    (tmp_path / "data" / "shades" / "test" / "red" / "0.png").write_text("broken")
    captioned = tmp_path / "data" / "captioned" / "test"
    captioned.mkdir(parents=True)
    with tarfile.open(captioned / "0.tar", "w") as tar:
        for number, (color, shape) in enumerate(itertools.product(COLORS[:3], SHAPES)):
            for ending, content in (
                ("png", png(drawing(color, shape, 12))),
                ("txt", f"{color} {shape}\na drawing of a {color} {shape}".encode()),
            ):
                member = tarfile.TarInfo(f"{number:02d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (captioned / "nshards.txt").write_text("1")
    (captioned.parent / "dataset_type.txt").write_text("retrieval")
    return tmp_path / "data"
