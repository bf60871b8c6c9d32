"""What it costs to look at the SHA-256 of shards before their samples are drawn, beside reading and decoding them.

    python benchmarks/shard_digests.py

Shards of photographs by formula (smooth colours with noise), JPEGs of 320 pixels, in the page cache after the first
round. Times are of one core, the median of rounds. Writes results/shard_digests.json.
"""

import datetime
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import history
from diptych.data.images import Preprocess, open_image
from diptych.files import sha256
from diptych.pairs.augment import Augment
from diptych.pairs.shards import ShardSet, ShardWriter
from diptych.runtime import hardware

SEED, SAMPLES, SHARDS, SIDE, ROUNDS, DECODED = 0, 4000, 4, 320, 5, 500


def photograph(random: np.random.Generator) -> bytes:
    """A JPEG of about the size that photographs of these pixels have."""
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + random.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def median_seconds(work: Callable[[], object]) -> float:
    """Of the rounds after one that warms the page cache."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    """Write shards, time the digest of each, the first read of all samples with it and without, and the decoding."""
    random = np.random.default_rng(SEED)
    few = [photograph(random) for _ in range(100)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        with ShardWriter(folder, samples_per_shard=SAMPLES // SHARDS) as writer:
            for number in range(SAMPLES):
                writer.add(f"{number:06d}", {"jpg": few[number % len(few)], "txt": b"a photograph by formula"})
        shards = sorted(folder.glob("*.tar"))
        size = sum(path.stat().st_size for path in shards)

        def read(*, verify: bool) -> None:
            pairs = ShardSet(folder, verify=verify)
            for number in range(len(pairs)):
                _ = pairs[number]

        preprocess, crop = Preprocess(image_size=224), Augment(crop_scale=(0.7, 1.0))

        def decode() -> None:
            for number in range(DECODED):
                crop(open_image(few[number % len(few)]), np.random.default_rng(number), preprocess)

        digest = median_seconds(lambda: [sha256(path) for path in shards])
        plain, verified = (median_seconds(lambda verify=verify: read(verify=verify)) for verify in (False, True))
        decoded = median_seconds(decode) / DECODED
    result = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "seed": SEED,
        "n": SAMPLES,
        "megabytes": round(size / 1e6, 1),
        "sha256_megabytes_a_second": round(size / 1e6 / digest),
        "microseconds_a_sample": {
            "read": round(1e6 * plain / SAMPLES, 1),
            "read, digests looked at": round(1e6 * verified / SAMPLES, 1),
            "sha256": round(1e6 * digest / SAMPLES, 1),
            "decode and crop to 224 px": round(1e6 * decoded, 1),
        },
    }
    history.write(Path(__file__).parent / "results" / "shard_digests.json", result)
    print(result)


if __name__ == "__main__":
    main()
