"""Train the detector of copies that `diptych audit overlap` and the stage "overlap" of curation use.

    python recipes/build_detector.py OUT [--steps 240] [--seed 0]

Writes OUT, which ships as `src/diptych/curate/copy_detector.safetensors`.

It is trained as the paper's was (CLIP, arXiv:2103.00020, appendix C): InfoNCE at a fixed temperature of 0.07 between a
picture and its changed copy, without statistics of the batch. Its pictures are drawn here, and need no licence: leaves
that fall on each other, textures of 1/f noise, the drawings inside the package set on them. That a network may learn to
see from such pictures is known from "Learning to See by Looking at Noise" (arXiv:2106.05963).
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate

from diptych.data.embedded import data_path
from diptych.files import atomic_file
from diptych.model.copy_detector import CopyDetector
from diptych.pairs.shards import ShardSet
from diptych.torch_runtime import generator

CANVAS = 96  # px, side of a drawn picture; the detector's is cut from it
POOL = 8_000  # drawn pictures
PAIRS = 384  # a batch
TEMPERATURE = 0.07
LEARNING_RATE, WARM_UP = 1.5e-3, 40  # of AdamW; steps
SETS = ("embedded:emoji", "embedded:icons")


def noise(random: np.random.Generator, side: int) -> np.ndarray:
    """[side, side] in 0 to 1: a field whose power falls with the frequency, the more the smoother, in one direction."""
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    stretch = np.exp(random.normal(0, 0.6))
    radius = np.sqrt((y * stretch) ** 2 + (x / stretch) ** 2 + 1e-4)
    field = np.fft.irfft2(
        np.fft.rfft2(random.normal(size=(side, side))) / radius ** random.uniform(0.6, 2.2), (side,) * 2
    )
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)


def drawings() -> list[Image.Image]:
    """Those inside the package, grey."""
    found = []
    for name in SETS:
        shards = ShardSet(data_path(name))
        for index in range(0, len(shards), 3):
            picture = shards[index].picture
            assert picture
            found.append(Image.open(io.BytesIO(picture)).convert("L"))
    return found


def draw(random: np.random.Generator, fields: list[np.ndarray], pictograms: list[Image.Image]) -> np.ndarray:
    """One picture, [CANVAS, CANVAS] uint8: a ground, leaves with textures of their own on it, drawings at times."""
    canvas = _textured(random, fields)
    if random.random() < 0.3:
        canvas = Image.new("L", (CANVAS, CANVAS), int(random.choice([255, 255, 0, random.integers(256)])))
    for _ in range(int(random.choice([1, 5, 12, 25, 50]))):
        size = min(CANVAS, 7 / random.random() ** 0.8)  # many small, few large, as things in the world
        x, y = random.uniform(0, CANVAS, 2)
        mask = Image.new("L", (CANVAS, CANVAS))
        pen = ImageDraw.Draw(mask)
        corners = int(random.integers(2, 7))
        if corners == 2:
            tall = size * random.uniform(0.3, 1)
            pen.ellipse((x - size / 2, y - tall / 2, x + size / 2, y + tall / 2), fill=255)
        else:
            angles = np.sort(random.uniform(0, 2 * np.pi, corners))
            radii = size * random.uniform(0.3, 0.7, corners)
            pen.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)], fill=255)
        if random.random() < 0.3:
            mask = mask.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 4)))
        canvas.paste(_textured(random, fields), mask=mask)
    for _ in range(int(random.choice([0, 0, 1, 1, 3]))):
        drawing = pictograms[int(random.integers(len(pictograms)))]
        side = int(random.integers(16, CANVAS))
        drawing = drawing.resize((side, side), Image.Resampling.BILINEAR).rotate(random.uniform(-30, 30), fillcolor=255)
        at = tuple(int(v) for v in random.integers(-side // 4, CANVAS - side // 2, 2))
        canvas.paste(drawing, at, mask=drawing.point(lambda value: 255 if value < 250 else 0))
    return np.asarray(canvas)


def _textured(random: np.random.Generator, fields: list[np.ndarray]) -> Image.Image:
    field = fields[int(random.integers(len(fields)))]
    y, x = random.integers(0, len(field) - CANVAS, 2)
    level, contrast = random.uniform(0, 255), random.uniform(0, 255) * random.random() ** 0.5
    return Image.fromarray(
        np.clip(level + contrast * (field[y : y + CANVAS, x : x + CANVAS] - 0.5), 0, 255).astype(np.uint8)
    )


def changed(pictures: Tensor, random: torch.Generator, *, strong: bool) -> Tensor:
    """Copies of pictures, each changed in a way of its own.

    Args:
        pictures: [B, CANVAS, CANVAS] uint8.
        random: the source of chance.
        strong: else only what becomes of a picture on its way to the detector.

    Returns:
        [B, S, S] float, 0 to 255.
    """
    count, side = len(pictures), CopyDetector.side

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    def some(share: float) -> Tensor:
        return torch.rand(count, generator=random) < share

    x = pictures[:, None].float()
    if strong:
        keep = torch.where(some(0.75), uniform(0.62, 1.0), uniform(1.0, 1.15))  # of a side; above 1 is a border
        aspect = torch.where(some(0.3), uniform(0.85, 1.18), torch.ones(count)).sqrt()
        wide, tall = keep * aspect, keep / aspect
        angle = torch.where(some(0.3), uniform(-0.12, 0.12), torch.zeros(count))
        flip = torch.where(some(0.4), -1.0, 1.0)
        shift_x, shift_y = uniform(-1, 1) * (1 - wide).clamp(min=0), uniform(-1, 1) * (1 - tall).clamp(min=0)
        theta = torch.zeros(count, 2, 3)
        theta[:, 0] = torch.stack([flip * wide * angle.cos(), -tall * angle.sin(), shift_x], 1)
        theta[:, 1] = torch.stack([flip * wide * angle.sin(), tall * angle.cos(), shift_y], 1)
        ground = torch.where(some(0.5), 255.0, 0.0)[:, None, None, None]
        grid = affine_grid(theta, [count, 1, side, side], align_corners=False)
        x = grid_sample(x - ground, grid, mode="bilinear", align_corners=False) + ground
        for at, smaller in zip(torch.arange(count).chunk(8), (16, 20, 24, 32, 40, 48, 64, 64), strict=True):
            order = at  # every eighth of the batch is shrunk and drawn large again
            shrunk = interpolate(x[order], smaller, mode="bilinear", antialias=True, align_corners=False)
            x[order] = interpolate(shrunk, side, mode="bicubic", align_corners=False)
        x = _toned(x, uniform, some)
        x = _covered(x, random)
        x = (
            x
            + torch.randn(x.shape, generator=random)
            * torch.where(some(0.4), uniform(0, 10), torch.zeros(count))[:, None, None, None]
        )
        x = _compressed(x.clamp(0, 255), random)
    else:
        x = interpolate(x, side, mode="bilinear", antialias=True, align_corners=False)
    return x[:, 0].clamp(0, 255)


def _toned(x: Tensor, uniform, some) -> Tensor:
    count = len(x)
    gain = torch.where(some(0.7), uniform(0.6, 1.5), torch.ones(count))[:, None, None, None]
    offset = torch.where(some(0.5), uniform(-40, 40), torch.zeros(count))[:, None, None, None]
    power = torch.where(some(0.4), uniform(0.6, 1.6), torch.ones(count))[:, None, None, None]
    x = (gain * x + offset).clamp(0, 255)
    return 255 * (x / 255) ** power


def _covered(x: Tensor, random: torch.Generator) -> Tensor:
    """A fifth of the pictures has a bar or a patch over it, as captions and marks do."""
    side = x.shape[-1]
    for row in torch.nonzero(torch.rand(len(x), generator=random) < 0.2)[:, 0].tolist():
        height, width = (int(v) for v in torch.randint(6, 24, (2,), generator=random))
        width = width * 2
        top = int(torch.randint(0, side - height, (1,), generator=random))
        left = int(torch.randint(0, max(1, side - width), (1,), generator=random))
        patch = 255.0 * torch.rand(1, generator=random).round() + 60 * torch.randn(
            height, min(width, side), generator=random
        )
        x[row, 0, top : top + height, left : left + width] = patch
    return x


def _compressed(x: Tensor, random: torch.Generator) -> Tensor:
    """A third of the pictures as JPEGs of poor quality."""
    for row in torch.nonzero(torch.rand(len(x), generator=random) < 0.33)[:, 0].tolist():
        buffer = io.BytesIO()
        quality = int(torch.randint(25, 80, (1,), generator=random))
        Image.fromarray(x[row, 0].to(torch.uint8).numpy()).save(buffer, "JPEG", quality=quality)
        x[row, 0] = torch.from_numpy(np.array(Image.open(buffer))).float()
    return x


def train(pool: Tensor, steps: int, seed: int) -> CopyDetector:
    torch.manual_seed(seed)
    detector = CopyDetector().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    began = time.process_time()
    mean = 0.0
    for step in range(steps):
        random = generator(seed, step)
        rows = torch.randint(len(pool), (PAIRS,), generator=random)
        pictures = pool[rows]
        first, second = changed(pictures, random, strong=False), changed(pictures, random, strong=True)
        rate = min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        with torch.autocast("cpu", torch.bfloat16):
            features = detector(torch.cat([first, second]))
        logits = features[:PAIRS] @ features[PAIRS:].T / TEMPERATURE
        # The same picture drawn twice into a batch is no negative of itself.
        same = (rows[:, None] == rows[None]) & ~torch.eye(PAIRS, dtype=torch.bool)
        logits = logits.masked_fill(same, -torch.inf)
        label = torch.arange(PAIRS)
        loss = (cross_entropy(logits, label) + cross_entropy(logits.T, label)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
        right = (logits.argmax(1) == label).float().mean().item()
        mean = right if step == 0 else 0.95 * mean + 0.05 * right
        if step % 50 == 0 or step == steps - 1:
            print(
                f"step {step}: loss {loss.item():.3f}, known {mean:.3f}, {time.process_time() - began:.0f} s",
                flush=True,
            )
    return detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(asked.seed)
    fields = [noise(random, 2 * CANVAS) for _ in range(300)]
    pictograms = drawings()
    began = time.process_time()
    pool = torch.from_numpy(np.stack([draw(random, fields, pictograms) for _ in range(POOL)]))
    print(f"{len(pool):,} pictures drawn in {time.process_time() - began:.0f} s")
    detector = train(pool, asked.steps, asked.seed)
    weights = {name: value.half().contiguous() for name, value in detector.state_dict().items()}
    with atomic_file(asked.out) as aside:
        aside.write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))


if __name__ == "__main__":
    main()
