"""Indexing photographs of 12 megapixels beside a plain loop of Pillow and transformers, and how far features move.

    python benchmarks/index.py PICTURES --photos 600 --cache FOLDER      (PICTURES of any size; they are enlarged)
    python benchmarks/index.py PICTURES --as-they-are 1000               (these alone, with the command and its model)

The photographs are the folder's pictures enlarged to 4,000 x 3,000 with grain, so that a JPEG has some 4 MB, with EXIF;
--cache keeps them for the next run (600 have 2.2 GB). Both ways use the same ViT-B/32 with random weights, opened
before. The plain loop opens, prepares and encodes batch after batch; ours is `Library.update` into a new index, with
digests, facts and database. A round has 100 photographs of its own, read once before; who is first alternates.
Features are compared with the plain loop's on all of them, and with the exact path's on the first --exact. Making a
photograph takes a core about a second, measuring one about 0.7 s on two cores. Writes results/index.json; the command's
times are in its row "as they are", which a run without the option keeps.
"""

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

import diptych
import history
from diptych.data import images as images_module
from diptych.data.images import Preprocess, open_image
from diptych.data.tokenizer import Tokenizer
from diptych.embed import encode_fast, find_images
from diptych.files import atomic_file
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import hardware
from diptych.search.library import Library
from diptych.torch_runtime import default_device, fast_dtype, generator
from diptych.weights.bundle import Bundle
from loading import made_up_merges

SIZE, GRAIN, SEED, BATCH, MARGINS = (4000, 3000), 7.0, 0, 32, (1, 1.5, 2)
EACH = 100  # photographs of a round
RESULT = history.RESULTS / "index.json"


def write_photos(sources: list[Path], folder: Path) -> float:
    """Make those photographs that are not there yet, in folders of EACH; seconds that it took."""
    start = time.perf_counter()

    def write(i: int) -> None:
        path = folder / f"{i // EACH:03}" / f"{i:05}.jpg"
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng((SEED, i))
        large = np.asarray(open_image(sources[i % len(sources)]).resize(SIZE, Image.Resampling.BICUBIC))
        grain = draw.standard_normal((SIZE[1], SIZE[0], 1), dtype=np.float32) * GRAIN
        exif = Image.Exif()
        exif[0x0110], exif[0x0132] = "Enlarger", "2024:05:06 07:08:09"
        with atomic_file(path) as aside:
            Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(aside, "JPEG", quality=90, exif=exif)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(len(sources))))
    return time.perf_counter() - start


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


def moved(bundle: Bundle, paths: list[Path]) -> dict[str, dict[str, float]]:
    """Cosines between features of the fast path, at some margins, and of the exact one."""
    found = {}
    exact = bundle.encode_images(paths, batch_size=BATCH)
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


def as_they_are(sources: list[Path]) -> dict[str, Any]:
    """The commands of a user, with the model that ships with diptych, each as a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        photos, index = Path(name) / "photos", str(Path(name) / "index")
        photos.mkdir()
        for i, source in enumerate(sources):
            shutil.copyfile(source, photos / f"{i:05}{source.suffix}")
        seconds = []
        for words in (["index", "update"], ["search", "two dogs on a beach"], ["search", "a red car"]):
            command = [sys.executable, "-m", "diptych", *words, str(photos), "--index", index]
            took, _, _ = timed(lambda command=command: subprocess.run(command, check=True, capture_output=True))
            seconds.append(round(took, 2))
    return {
        "photographs": len(sources),
        "model": "the default model",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds of diptych index update": seconds[0],
        "seconds of diptych search after it": seconds[2],
    }


def beside_the_plain_loop(folders: list[Path], root: Path, exact: int) -> dict[str, Any]:
    """Round by round, what each took and how near their features are."""
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
    ratios, cpu_ratios, ours, theirs, cosines = [], [], [], [], []
    fast_dtype(default_device())  # its probe is made once a process
    margin = images_module.FAST_MARGIN
    for round_, folder in enumerate(folders):
        count = sum(len(path.read_bytes()) > 0 for path in folder.iterdir())
        library = Library.open(folder, bundle, index=root / f"index{round_}")
        ways = {
            "plain": lambda folder=folder: plain_loop(folder, model, processor),
            "fast": lambda library=library: library.update(batch_size=BATCH),
        }
        took = {way: timed(ways[way]) for way in sorted(ways, reverse=round_ % 2 == 0)}
        (plain, plain_cpu, reference), (fast, fast_cpu, _) = took["plain"], took["fast"]
        cosines.append((rows_of(library) * reference.numpy()).sum(axis=1))
        ratios.append(plain / fast)
        cpu_ratios.append(plain_cpu / fast_cpu)
        ours.append(count / fast)
        theirs.append(count / plain)
        print(f"round {round_}: {plain:.1f} s and {fast:.1f} s; processor {plain_cpu:.1f} s and {fast_cpu:.1f} s")
    paths = find_images(folders)[:exact]
    small = "diptych-pictogram-small"
    names = {"ViT-B-32, random weights": bundle, small: diptych.load(small)}
    all_cosines = np.concatenate(cosines)
    return {
        "n": len(all_cosines),
        "rounds": len(folders),
        "dtype": str(fast_dtype(default_device())),
        "margin": margin,
        "times as fast": round(statistics.median(ratios), 2),
        "times as fast, slowest round": round(min(ratios), 2),
        "times less processor time": round(statistics.median(cpu_ratios), 2),
        "photographs a second": round(statistics.median(ours), 2),
        "photographs a second, plain loop": round(statistics.median(theirs), 2),
        "cosine with the plain loop": {
            "mean": round(float(all_cosines.mean()), 5),
            "worst": round(float(all_cosines.min()), 5),
        },
        "cosine of fast and exact path": {"n": len(paths), **{name: moved(of, paths) for name, of in names.items()}},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--cache", type=Path, help="where the photographs are kept; by default they are not")
    parser.add_argument("--exact", type=int, default=50, help="photographs that go through the exact path, too")
    parser.add_argument(
        "--as-they-are", type=int, default=0, help="pictures that the command indexes, and nothing else"
    )
    arguments = parser.parse_args()
    wanted = arguments.as_they_are or arguments.photos
    sources = find_images([arguments.pictures])
    sources = (sources * (wanted // len(sources) + 1))[:wanted]
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    row = result.get("as they are")
    if arguments.as_they_are:
        measured = {"as they are": as_they_are(sources)}
        result |= measured
    else:
        with tempfile.TemporaryDirectory() as name:
            photos = arguments.cache or Path(name) / "photos"
            made = write_photos(sources, photos)
            print(f"{wanted:,} photographs are there; making them took {made:.0f} s")
            folders = [photos / f"{i:03}" for i in range(-(-wanted // EACH))]
            measured = {
                "what": f"photographs of {SIZE[0]} x {SIZE[1]} pixels, ViT-B/32, batches of {BATCH}; medians of rounds",
                "seed": SEED,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "hardware": hardware(),
                "MB a photograph": round(statistics.mean(p.stat().st_size for p in find_images(folders)) / 1e6, 2),
                **beside_the_plain_loop(folders, Path(name), arguments.exact),
            }
            result = measured | ({"as they are": row} if row else {})
    history.write(RESULT, result, measured=measured)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
