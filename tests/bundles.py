"""Small bundles with random weights, for test_bundle.py and test_saving.py."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.golden import golden_picture

TEXTS = ["a red kite", "a blue boat, a red kite &amp; 2 dogs", "", "naïve 🙂", "!!! a cat !"]
ABOUT = About(source="here", licence="CC0-1.0", data="drawn [1,  2] by hand", recipe="a = [\n1,\n2]\n", created="2026")


def fitting(name: str, tokenizer: Tokenizer) -> CLIPConfig:
    config = preset(name)
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size))


def new_tokenizer() -> Tokenizer:
    return Tokenizer.train(["a red kite", "a blue boat", "a red boat"] * 3, vocab_size=530, context_length=16)


def make(name: str, tokenizer: Tokenizer) -> Bundle:
    model = CLIP(fitting(name, tokenizer), generator(0))
    if name == "tiny-resnet":
        for parameter_name, parameter in model.image.named_parameters():
            if parameter_name.endswith("bn3.weight"):  # untrained, all bottlenecks would be their shortcut
                torch.nn.init.ones_(parameter)
        tokens = torch.from_numpy(tokenizer.encode(TEXTS[:1] * 8))
        model(torch.randn(8, 3, 32, 32, generator=generator(1)), tokens)  # moves statistics
    model.eval()
    return Bundle(model=model, preprocess=Preprocess(image_size=32), tokenizer=tokenizer, about=ABOUT)


def some_pictures() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    shapes = [(40, 60, 3), (90, 33, 3), (32, 32, 3), (20, 20, 3), (64, 48, 3)]
    return [golden_picture(), *(Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes)]
