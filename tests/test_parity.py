"""The same features in `transformers` and here, both ways, for every published family of vision transformers.

Against open_clip and the `openai-clip` package: benchmarks/parity.py, in an environment of its own.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import diptych
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import PRESETS, preset
from diptych.model.text_tower import TextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.golden import golden_picture
from diptych.weights.normalise import normalise
from standins import draw, stand_in, transformers_model

VITS = [name for name in PRESETS if name.startswith("ViT")]
TEXTS = ["a red kite", "a blue boat, 2 dogs", "", "naïve 🙂", "!! a cat !"]  # they do not unescape HTML
TOLERANCE = 1e-5
ROOT = Path(__file__).parent.parent
UNEVEN = CLIPConfig(  # what no published model is: no two sizes are the same, nor what the two towers do
    embed_dim=20,
    image=ImageTowerConfig(
        image_size=32, patch_size=8, width=48, layers=3, heads=4, mlp_width=112, activation="gelu", layer_norm_eps=1e-6
    ),
    text=TextTowerConfig(
        context_length=20, width=36, layers=2, heads=3, mlp_width=80, activation="gelu_tanh", layer_norm_eps=1e-3
    ),
)


VOCAB_SIZE = 520  # small, as no family differs in it


@functools.cache
def tokenizer_for(config: CLIPConfig) -> Tokenizer:
    texts = ["a red kite", "a blue boat", "a red boat"] * 3
    return Tokenizer.train(texts, vocab_size=VOCAB_SIZE, context_length=config.text.context_length)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(300, 460, 3), (336, 336, 3), (20, 31, 3)]
    return [golden_picture(), *(Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes)]


def small(name: str) -> CLIPConfig:
    config = UNEVEN if name == "uneven" else stand_in(preset(name))
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=VOCAB_SIZE))


def ours_of(config: CLIPConfig) -> CLIP:
    model = CLIP(config, generator(0))
    draw(model, seed=0)
    return model.eval()


def assert_same(bundle: Bundle, theirs: transformers.CLIPModel, folder: Path, pictures: list[Image.Image]) -> None:
    """Ours and theirs, each with its own way from pictures and texts to features, and to logits."""
    processor = transformers.CLIPProcessor.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        output = theirs(**processor(text=TEXTS, images=pictures, return_tensors="pt", padding=True, truncation=True))
    image_features, text_features = bundle.encode_images(pictures), bundle.encode_texts(TEXTS)
    logits_per_image = bundle.logit_scale * image_features @ text_features.T  # [B_images, B_texts]
    for ours, expected in (
        (image_features, output.image_embeds),
        (text_features, output.text_embeds),
        (logits_per_image, output.logits_per_image),
    ):
        torch.testing.assert_close(torch.from_numpy(ours), expected, rtol=0, atol=TOLERANCE)


def save_theirs(theirs: transformers.CLIPModel, config: CLIPConfig, folder: Path) -> None:
    side = config.image.image_size
    theirs.save_pretrained(folder)
    tokenizer_for(config).save(folder)
    pixels = transformers.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    transformers.CLIPProcessor(pixels, transformers.CLIPTokenizer.from_pretrained(folder)).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()  # since version 5 it is part of processor_config.json


@pytest.mark.parametrize("name", [*VITS, "uneven"])
def test_a_folder_that_transformers_saved_gives_the_same_features(name, pictures, tmp_path):
    config = small(name)
    tokenizer = tokenizer_for(config)
    theirs = transformers_model(config, bos_token_id=tokenizer.start_token_id, eos_token_id=tokenizer.end_token_id)
    draw(theirs, seed=1)
    save_theirs(theirs, config, tmp_path)
    bundle = diptych.load(tmp_path)
    assert bundle.model.config == config
    assert bundle.about == About()
    assert_same(bundle, theirs, tmp_path, pictures)


def test_a_folder_with_end_token_2_is_read_at_the_highest_id_of_a_text(pictures, tmp_path):
    config = small("uneven")
    # As in the files of OpenAI's models.
    theirs = transformers_model(config, bos_token_id=tokenizer_for(config).start_token_id, eos_token_id=2)
    draw(theirs, seed=1)
    save_theirs(theirs, config, tmp_path)
    assert_same(diptych.load(tmp_path), theirs, tmp_path, pictures)


@torch.no_grad()
def maskclip_of_transformers(theirs: transformers.CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """MaskCLIP's dense features, [B, h, w, D], written on `transformers`' CLIP: values alone in the last attention."""
    vision = theirs.vision_model
    x = vision.pre_layrnorm(vision.embeddings(images))
    *layers, last = vision.encoder.layers
    for layer in layers:
        x = layer(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
    attention = last.self_attn
    x = x + attention.out_proj(attention.v_proj(last.layer_norm1(x)))
    x = x + last.mlp(last.layer_norm2(x))
    x = theirs.visual_projection(vision.post_layernorm(x[:, 1:]))
    side = int(x.shape[1] ** 0.5)
    return x.reshape(len(x), side, side, -1)


@pytest.mark.parametrize("name", ["ViT-B-32", "uneven"])
def test_the_grid_of_a_vision_transformer_equals_maskclip_on_transformers(name, pictures, tmp_path):
    config = small(name)
    tokenizer = tokenizer_for(config)
    theirs = transformers_model(config, bos_token_id=tokenizer.start_token_id, eos_token_id=tokenizer.end_token_id)
    draw(theirs, seed=1)
    save_theirs(theirs, config, tmp_path)
    bundle = diptych.load(tmp_path)
    pixels = np.stack([bundle.preprocess.pixels(picture) for picture in pictures])
    expected = maskclip_of_transformers(theirs, normalise(bundle.preprocess, torch.from_numpy(pixels)))
    grid = torch.from_numpy(bundle.encode_grid(pixels))
    assert grid.std() > 0.1  # the bound below means something
    torch.testing.assert_close(grid, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [*VITS, "uneven"])
def test_transformers_opens_a_folder_of_ours_and_gives_the_same_features(name, pictures, tmp_path):
    config, tokenizer = small(name), tokenizer_for(small(name))
    preprocess = Preprocess(image_size=config.image.image_size)
    bundle = Bundle(model=ours_of(config), preprocess=preprocess, tokenizer=tokenizer)
    bundle.save(tmp_path)
    theirs = transformers.CLIPModel.from_pretrained(tmp_path, local_files_only=True).eval()
    assert_same(bundle, theirs, tmp_path, pictures)
    assert theirs.logit_scale.exp().item() == pytest.approx(bundle.logit_scale)
    fast = transformers.CLIPTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path, local_files_only=True)
    assert fast(TEXTS).input_ids == processor.tokenizer(TEXTS).input_ids
    assert theirs.config.text_config.eos_token_id == tokenizer.end_token_id == fast.eos_token_id
    assert theirs.config.text_config.pad_token_id == fast.pad_token_id


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_a_stand_in_shows_a_wrong_activation_epsilon_head_count_or_mask(name, pictures):
    config = small(name)
    model = ours_of(config)
    preprocess = Preprocess(image_size=config.image.image_size)
    pixels = torch.from_numpy(np.stack([preprocess(picture) for picture in pictures]))
    tokens = torch.from_numpy(tokenizer_for(config).encode(TEXTS))
    image_features, text_features = model.encode_image(pixels), model.encode_text(tokens)
    activations = {"quick_gelu", "gelu", "gelu_tanh"} - {config.image.activation}
    for mistake in (*({"activation": other} for other in activations), {"layer_norm_eps": 1e-6}, {"heads": 1}):
        towers = {part: dataclasses.replace(getattr(config, part), **mistake) for part in ("image", "text")}
        wrong = CLIP(dataclasses.replace(config, **towers))
        wrong.load_state_dict(model.state_dict(), assign=True)
        assert (wrong.encode_image(pixels) - image_features).abs().max() > 2 * TOLERANCE, mistake
        assert (wrong.encode_text(tokens) - text_features).abs().max() > 2 * TOLERANCE, mistake
    for block in model.text.blocks:
        block.attention.is_causal = False
    assert (model.encode_text(tokens) - text_features).abs().max() > 2 * TOLERANCE


def test_the_table_in_the_docs_is_what_was_measured_and_within_the_tolerance():
    result = json.loads((ROOT / "benchmarks" / "results" / "parity.json").read_text(encoding="utf-8"))
    docs = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert all(max(row["image_features"], row["text_features"]) <= TOLERANCE for row in result["features"])
    peers = re.search(r"^\| model \| (.+) \|$", docs, re.MULTILINE)[1].split(" | ")
    cells = {
        (row["model"], row["peer"]): f"{max(row['image_features'], row['text_features']):.1e}"
        for row in result["features"]
        if row["size"] == "whole"
    }
    expected = {f"| {model} | {' | '.join(cells.get((model, peer), '–') for peer in peers)} |" for model, _ in cells}
    assert {peer for _, peer in cells} == set(peers)
    assert set(re.findall(r"^\| (?:ViT-|RN).+$", docs, re.MULTILINE)) == expected
    assert all(f"{name} {result['versions'][name]}" in docs for name in ("torch", "transformers", "open_clip_torch"))
