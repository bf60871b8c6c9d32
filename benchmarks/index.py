"""Indexing photographs of 12 megapixels beside a plain loop of Pillow and transformers, and how far features move.

    python benchmarks/index.py PICTURES           (a folder with pictures of any size; they are enlarged)

The photographs are the folder's pictures enlarged to 4,000 x 3,000 with grain, so that a JPEG has some 4 MB, with EXIF.
Both ways use the same ViT-B/32 with random weights, opened before. The plain loop opens, prepares and encodes batch
after batch; ours is `Library.update` into a new index, with digests, facts and database. Rounds alternate. Writes
results/index.json.
"""

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from loading import made_up_merges
from PIL import Image

import diptych
from diptych.data import images as images_module
from diptych.data.images import Preprocess, open_image
from diptych.data.tokenizer import Tokenizer
from diptych.embed import encode_fast, find_images
from diptych.files import write_json
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import default_device, fast_dtype, generator, hardware
from diptych.search.library import Library
from diptych.weights.bundle import Bundle

SIZE, GRAIN, SEED, BATCH, MARGINS = (4000, 3000), 7.0, 0, 32, (1, 1.5, 2)


def write_photos(sources: list[Path], folder: Path) -> None:
    draw = np.random.default_rng(SEED)
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0110], exif[0x0132] = "Enlarger", "2024:05:06 07:08:09"
    for i, source in enumerate(sources):
        large = np.asarray(open_image(source).resize(SIZE, Image.Resampling.BICUBIC))
        grain = draw.standard_normal((SIZE[1], SIZE[0], 1), dtype=np.float32) * GRAIN
        photo = Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))
        photo.save(folder / f"{i:05}.jpg", quality=90, exif=exif)


def plain_loop(folder: Path, model: Any, processor: Any) -> torch.Tensor:
    features = []
    paths = sorted(folder.iterdir())
    with torch.inference_mode():
        for start in range(0, len(paths), BATCH):
            opened = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
            output = model.get_image_features(**processor(images=opened, return_tensors="pt"))
            found = output if isinstance(output, torch.Tensor) else output.pooler_output
            features.append(torch.nn.functional.normalize(found, dim=1))
    return torch.cat(features)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of wall clock and of the processor, and what came of it."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - start, time.process_time() - start_cpu, result


def rows_of(library: Library) -> np.ndarray:
    rows = {path: features for path, _, features in library.rows()}
    return np.stack([rows[path] for path in sorted(rows)])


def moved(bundle: Bundle, folder: Path) -> dict[str, dict[str, float]]:
    """Cosines between features of the fast path, at some margins, and of the exact one."""
    paths, found = find_images([folder]), {}
    exact = bundle.encode_images(paths, batch_size=BATCH).numpy()
    for margin in MARGINS:
        images_module.FAST_MARGIN = margin
        fast = []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            pixels = [bundle.preprocess.fast_pixels(path.read_bytes(), str(path))[0] for path in some]
            fast.append(encode_fast(bundle, pixels))
        cosines = (exact * np.concatenate(fast)).sum(axis=1)
        mean, worst = float(cosines.mean()), float(cosines.min())
        found[f"margin {margin:g}"] = {"mean": round(mean, 5), "worst": round(worst, 5)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ready", action="store_true", help="PICTURES are such photographs already")
    arguments = parser.parse_args()
    margin = images_module.FAST_MARGIN
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sources = find_images([arguments.pictures])
        sources = sources[:: max(1, len(sources) // arguments.photos)][: arguments.photos]
        if arguments.ready:
            (root / "photos").mkdir()
            for source in sources:
                (root / "photos" / source.name).write_bytes(source.read_bytes())
        else:
            write_photos(sources, root / "photos")
        (root / "merges.txt").write_text("\n".join(made_up_merges()) + "\n", encoding="utf-8")
        config = preset("ViT-B-32")
        bundle = Bundle(
            model=CLIP(config, generator(SEED)).eval(),
            preprocess=Preprocess(image_size=config.image.image_size),
            tokenizer=Tokenizer.from_merges(root / "merges.txt"),
        )
        bundle.save(root / "model")
        model = transformers.CLIPModel.from_pretrained(root / "model").eval()
        processor = transformers.AutoImageProcessor.from_pretrained(root / "model", backend="pil")
        ratios, cpu_ratios, ours, theirs, features, reference = [], [], [], [], None, None
        fast_dtype(default_device())  # its probe is made once a process
        for round_ in range(arguments.rounds):
            plain, plain_cpu, reference = timed(lambda: plain_loop(root / "photos", model, processor))
            library = Library.open(root / "photos", bundle, index=root / f"index{round_}")
            fast, fast_cpu, _ = timed(lambda library=library: library.update(batch_size=BATCH))
            features = rows_of(library)
            ratios.append(plain / fast)
            cpu_ratios.append(plain_cpu / fast_cpu)
            ours.append(arguments.photos / fast)
            theirs.append(arguments.photos / plain)
            print(f"round {round_}: {plain:.1f} s and {fast:.1f} s; processor {plain_cpu:.1f} s and {fast_cpu:.1f} s")
        assert features is not None
        assert reference is not None
        cosines = (features * reference.numpy()).sum(axis=1)
        small = "diptych-pictogram-small"
        names = {"ViT-B-32, random weights": bundle, small: diptych.load(small)}
        cosine = {name: moved(of, root / "photos") for name, of in names.items()}
        sizes = [path.stat().st_size for path in (root / "photos").iterdir()]
    result = {
        "what": f"photographs of {SIZE[0]} x {SIZE[1]} pixels, ViT-B/32, batches of {BATCH}; medians of rounds",
        "n": arguments.photos,
        "rounds": arguments.rounds,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "MB a photograph": round(statistics.mean(sizes) / 1e6, 2),
        "dtype": str(fast_dtype(default_device())),
        "margin": margin,
        "times as fast": round(statistics.median(ratios), 2),
        "times less processor time": round(statistics.median(cpu_ratios), 2),
        "photographs a second": round(statistics.median(ours), 2),
        "photographs a second, plain loop": round(statistics.median(theirs), 2),
        "cosine with the plain loop": {
            "mean": round(float(cosines.mean()), 5),
            "worst": round(float(cosines.min()), 5),
        },
        "cosine of fast and exact path": cosine,
    }
    write_json(Path(__file__).parent / "results" / "index.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
