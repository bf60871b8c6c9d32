"""What tests share: pairs that are drawn on the spot, and a run so small that it takes seconds."""

import dataclasses
import io
import itertools
import os
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from diptych.data.images import Preprocess
from diptych.data.pipeline import DataConfig, Source
from diptych.data.shards import ShardWriter
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import generator
from diptych.train.recipe import TokenizerConfig, TrainConfig, TrainRecipe
from diptych.weights.bundle import Bundle

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the network
torch.set_num_threads(1)  # tiny models are slower on two, and other tests run beside

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
def tiny_bundle() -> Bundle:
    """A model that was never trained; pictures of 32 pixels."""
    return untrained_bundle(0)


def untrained_bundle(seed: int) -> Bundle:
    tokenizer = Tokenizer.train(["a red kite"] * 3, vocab_size=515, context_length=16)
    config = preset("tiny-vit")
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=515))
    return Bundle(model=CLIP(config, generator(seed)), preprocess=Preprocess(image_size=32), tokenizer=tokenizer)
