"""What following a colour profile costs: photographs with a Display P3 profile against the same with sRGB's.

    nice .venv/bin/python benchmarks/colour.py [--count 12] [--rounds 3]

Pictures are drawn from a seed, 4,000 x 3,000 pixels, smooth with grain, JPEG of quality 92. Measured is the processor
time of one thread for a picture: of `Preprocess.pixels`, the exact path, which converts every pixel, and of
`fast_pixels`, that of indexing, which decodes at a part of the size first. In turns, so that what else runs hits all
alike.
"""

import argparse
import io
import json
import platform
import statistics
import time

import numpy as np
import PIL.features
from PIL import Image, ImageCms

from diptych.data.images import Preprocess
from diptych.data.profiles import cicp_profile

SIZE = (4000, 3000)


def photograph(seed: int, profile: bytes) -> bytes:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        SIZE, Image.Resampling.BICUBIC
    )
    grain = np.tile(random.normal(0, 6, (300, 400, 1)), (10, 10, 1))
    pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92, icc_profile=profile)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    p3 = cicp_profile(12, 13)
    assert p3 is not None
    profiles = {
        "no profile": b"",
        "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "Display P3": p3,
    }
    preprocess = Preprocess(image_size=224)
    files = {name: [photograph(seed, profile) for seed in range(args.count)] for name, profile in profiles.items()}
    ways = {
        "exact": preprocess.pixels,
        "fast": lambda data: preprocess.fast_pixels(data, "picture"),
    }
    seconds: dict[tuple[str, str], list[float]] = {(way, name): [] for way in ways for name in files}
    for _ in range(args.rounds + 1):  # the first warms up
        for way, read in ways.items():
            for i in range(args.count):
                for name, pictures in files.items():
                    start = time.thread_time()
                    read(pictures[i])
                    seconds[way, name].append(time.thread_time() - start)
    result = {
        f"{way}, {name}": round(1000 * statistics.median(times[args.count :]), 1)
        for (way, name), times in seconds.items()
    }
    print(
        json.dumps({"ms a picture, median": result, "n": args.count, "rounds": args.rounds, "pixels": SIZE}, indent=2)
    )
    print(
        platform.processor() or platform.machine(),
        "Pillow",
        PIL.__version__,
        "littleCMS",
        PIL.features.version("littlecms2"),
    )


if __name__ == "__main__":
    main()
