"""Which copies of pictures are found by hash, by features and by both, and what the stages cost.

    python benchmarks/curate_duplicates.py DATA [--parts kinds choice copies scaled clusters large] [--model NAME]

DATA holds the shared evaluation sets. Thresholds are chosen on pictures of CHOSEN_ON (parts "kinds", with every ninth
embedded drawing, and "choice", every fourth picture) and reported on 10,000 others, those of REPORTED_ON ("copies"): of
100 drawn pictures a copy by each change, saved as a JPEG of quality 90 unless the change is the quality. A copy is
found where it is near its original; a false alarm is a pair of a copy with another picture, or of two of the 10,000.
"scaled" holds hashes of JPEGs decoded at a part of their size against those of the whole; "clusters" counts what
SameMeaning misses because two pictures never meet; "large" times 100,000 pictures through description without a model,
the three stages of duplicates, and features drawn around those of "choice". Decoding is timed on a tenth of them.
Writes results/curate_duplicates.json.
"""

import argparse
import datetime
import hashlib
import io
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import history
from diptych.curate.describe import Describe, grey_of
from diptych.curate.duplicates import SameBytes, SameLook, SamePair
from diptych.curate.meaning import SameMeaning
from diptych.data.decoding import decode
from diptych.data.embedded import data_path
from diptych.data.tar import TarReader
from diptych.files import atomic_file
from diptych.measures.perceptual_hash import SIDE, hamming, near_pairs, perceptual_hash
from diptych.rows.columns import pairs_table
from diptych.rows.stage import Counting, Grouping, Judged, Whole
from diptych.runtime import hardware

CHOSEN_ON = (
    *(("caltech101", "train"), ("flickr8k", "val"), ("clothing10", "train"), ("flowers5", "train")),
    *(("pacs_photo", "train"), ("rsscn7", "train")),
)
REPORTED_ON = (
    *(("flickr8k", "train"), ("caltech101", "test"), ("pacs_photo", "test"), ("clothing10", "test")),
    *(("flowers5", "test"), ("rsscn7", "test")),
)
PICTURES, COPIED, LARGE, SEED = 10_000, 100, 100_000, 0
DISTANCES, COSINES = (2, 4, 6, 8, 10, 12), (0.9, 0.92, 0.94, 0.95, 0.96, 0.97)
RESULT = history.RESULTS / "curate_duplicates.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    names = ["kinds", "choice", "copies", "scaled", "clusters", "large"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--model", default="diptych-photo")
    parser.add_argument("--featured", type=int, default=PICTURES, help="how many of the pictures the model sees")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "curate_duplicates")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.data, args.model, args.featured, args.cache)
    measured = {part: getattr(bench, part)() for part in args.parts}
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    result = {
        **before,
        **measured,
        "model": args.model,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
    }
    history.write(args.out, result, keys=("change", "hash"), measured=measured)


class Bench:
    """The parts; what one has described the others take from the cache."""

    def __init__(self, data: Path, model: str, featured: int, cache: Path) -> None:
        self.data, self.model, self.featured, self.cache = data, model, featured, cache

    def kinds(self) -> dict[str, Any]:
        """Kinds of hash on photographs and on drawings."""
        photos = [opened(data) for data in self.pictures(CHOSEN_ON)]
        drawings = [opened(data) for data in self.drawings()]
        rows = []
        for what, pictures in (("photographs", photos), ("drawings", drawings)):
            greys = np.stack([grey_of(picture) for picture in pictures])
            drawn = np.random.default_rng(SEED).permutation(len(pictures))[:COPIED]
            copies = {
                change: np.stack([grey_of(opened(make(pictures[i]))) for i in drawn])
                for change, make in CHANGES.items()
            }
            for name, hash_ in HASHES.items():
                looks = hash_(greys)
                found = {change: hamming(hash_(grey), looks[drawn]) <= 6 for change, grey in copies.items()}
                rows.append(
                    {
                        "hash": f"{name} of {what}",
                        "pairs among different": sum(len(i) for i, _ in near_pairs(looks, distance=6)),
                        "recall at 6 bits": {change: share(is_near) for change, is_near in found.items()},
                    }
                )
        return {"photographs": len(photos), "drawings": len(drawings), "copied": COPIED, "hashes": rows}

    def choice(self) -> dict[str, Any]:
        """Every fourth of the pictures chosen on."""
        return {"copied": COPIED, **self.recalls("chosen")}

    def copies(self) -> dict[str, Any]:
        return {"copied": COPIED, **self.recalls("reported"), "stages": self.chains()}

    def recalls(self, which: str) -> dict[str, Any]:
        """For each change the share of copies that are near their original, and what is near besides."""
        base, changed, drawn = self.described(which)
        looks, features = columns(base)
        among = {
            "hash": {d: len(pairs_of(looks, d)) for d in DISTANCES},
            "features": {c: int((pairs_at(features, c)).sum()) for c in COSINES},
        }
        rows = []
        for change, table in changed.items():
            own, own_features = columns(table)
            to_own = np.minimum(hamming(own[0], looks[0][drawn]), hamming(own[1], looks[0][drawn]))
            cosine = (own_features * features[drawn]).sum(axis=1)
            all_cosines = own_features @ features.T
            all_cosines[np.arange(len(drawn)), drawn] = -1
            rows.append(
                {
                    "change": change,
                    "hash": {d: share(to_own <= d) for d in DISTANCES},
                    "features": {c: share(cosine >= c) for c in COSINES},
                    "both": {f"{d}, {c}": share((to_own <= d) | (cosine >= c)) for d, c in BOTH},
                    "false by hash": {d: strangers(two_ways(own, looks, d), drawn) for d in DISTANCES},
                    "false by features": {c: int((all_cosines >= c).sum()) for c in COSINES},
                }
            )
        with_features = int((features != 0).any(axis=1).sum())
        return {"pictures": len(base), "with features": with_features, "near among different": among, "changes": rows}

    def chains(self) -> dict[str, Any]:
        """What the stages drop of all pictures with all copies, and how far a dropped one is from what is kept."""
        base, changed, _ = self.described("reported")
        rows = pa.concat_tables([base, *changed.values()])
        result: dict[str, Any] = {"rows": len(rows)}
        for stage in (SameLook(), SameMeaning()):
            judged = run(stage, rows)
            better = dict(zip(judged.dropped["key"].to_pylist(), judged.dropped["value"].to_pylist(), strict=True))
            number = {key: i for i, key in enumerate(rows["key"].to_pylist())}
            steps, ends = [], []
            for key in better:
                path = [key]
                while path[-1] in better:
                    path.append(better[path[-1]])
                steps.append(len(path) - 1)
                ends.append((number[key], number[path[-1]]))
            i, j = np.array(ends).T
            looks, features = columns(rows)
            apart = np.minimum(hamming(looks[0][i], looks[0][j]), hamming(looks[1][i], looks[0][j]))
            cosine = (features[i] * features[j]).sum(axis=1)
            family = np.array([key.split("-")[0] for key in rows["key"].to_pylist()])
            result[stage.name] = {
                "options": str(stage),
                "dropped": len(better),
                "steps to what is kept": {str(n): steps.count(n) for n in sorted(set(steps))},
                **(
                    {"most bits from what is kept": int(apart.max())}
                    if isinstance(stage, SameLook)
                    else {"least cosine with what is kept": round(float(cosine.min()), 4)}
                ),
                "of another picture than what is kept": int((family[i] != family[j]).sum()),
            }
        return result

    def scaled(self) -> dict[str, Any]:
        """Bits in which hashes of JPEGs decoded at a part of their size differ from those of the whole."""
        draw = np.random.default_rng(SEED)
        bits = []
        for data in itertools.islice(self.pictures(CHOSEN_ON), 0, None, 39):
            large = np.asarray(opened(data).resize((1600, 1200), Image.Resampling.BICUBIC), np.float32)
            grain = draw.standard_normal((1200, 1600, 1), dtype=np.float32) * 7
            file = io.BytesIO()
            Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            whole, part, model = (
                grey_of(decode(io.BytesIO(file.getvalue()), "it", 10**8, at_least=side)) for side in (None, 64, 336)
            )
            looks, _, _ = perceptual_hash(np.stack([whole, part, model]))
            bits.append(hamming(looks[:1], looks[1:]))
        return {
            name: {
                "pictures": len(bits),
                "same": share(column == 0),
                "mean bits": float(column.mean()),
                "most": int(column.max()),
            }
            for name, column in zip(("64 px", "336 px"), np.array(bits).T, strict=True)
        }

    def clusters(self) -> dict[str, Any]:
        """How many of the rows that are dropped with one cluster are dropped with several."""
        base, changed, _ = self.described("reported")
        rows = pa.concat_tables([base, *changed.values()])
        result: dict[str, Any] = {"rows": len(rows)}
        every = dropped_by(SameMeaning(clusters=1), rows)
        for count, margin in itertools.product((4, 16, 64), (0.0, 0.05, 0.1)):
            stage = SameMeaning(clusters=count, margin=margin)
            counts = stage.count(rows)
            featured, facts = counts["rows"][0].as_py(), stage.total([counts])
            sent = len(stage.scatter(rows, Whole(facts=facts), 1))
            found = dropped_by(stage, rows)
            result[f"{count} clusters, margin {margin}"] = {
                "of those": len(every),
                "found": round(len(found & every) / len(every), 4),
                "places of a row": round(sent / featured, 3),
            }
        return result

    def large(self) -> dict[str, Any]:
        """Processor seconds and memory of 100,000 pictures."""
        sources = [opened(data) for data in self.pictures(REPORTED_ON)]
        base, _, _ = self.described("chosen")
        result: dict[str, Any] = {"pictures": LARGE, "processor seconds": {}}
        clock = result["processor seconds"]
        described, decoded = [], 0
        for start in range(0, LARGE, 512):
            rows = with_pictures({f"{i:08d}": variant(sources, i) for i in range(start, min(LARGE, start + 512))})
            if start % 5120 == 0:  # a tenth of them
                decoded += len(rows)
                with timed(clock, "decode a tenth alone"):
                    for data in rows["picture"].to_pylist():
                        decode(io.BytesIO(data), "it", 10**8, at_least=2 * SIDE)
            with timed(clock, "describe, with decoding"):
                described.append(Describe().apply(rows, Whole()).kept)
        clock["decode alone"] = clock.pop("decode a tenth alone") * LARGE / decoded
        clock["describe, beyond decoding"] = clock["describe, with decoding"] - clock["decode alone"]
        rows = pa.concat_tables(described)
        rows = rows.append_column("features", drawn_features(columns(base)[1]))
        del sources, described
        result["memory before the stages, MB"] = memory()
        for stage in (SamePair(), SameBytes(), SameLook(), SameMeaning()):
            with timed(clock, stage.name):
                judged = run(stage, rows)
            result[f"dropped by {stage.name}"] = len(judged.dropped)
        result["memory at most, MB"] = memory()
        beyond = [seconds for name, seconds in clock.items() if name not in ("decode alone", "describe, with decoding")]
        clock["all beyond decoding"] = sum(beyond)
        result["processor seconds"] = {name: round(seconds, 2) for name, seconds in clock.items()}
        return result

    def described(self, which: str) -> tuple[pa.Table, dict[str, pa.Table], np.ndarray]:
        """The pictures, their copies by change, and which were copied; described once and kept in the cache."""
        pictures = list(self.pictures(REPORTED_ON)) if which == "reported" else list(self.pictures(CHOSEN_ON))[::4]
        drawn = np.random.default_rng(SEED).permutation(len(pictures))[:COPIED]
        featured = np.union1d(np.arange(min(self.featured, len(pictures))), drawn)
        base = self.part(f"{which}-hashes", pictures, model=None)
        some = [
            self.part(f"{which}-{len(featured)}-{rows[0]}", [pictures[i] for i in rows], model=self.model)
            for rows in np.array_split(featured, -(-len(featured) // 500))
        ]
        known = pa.concat_tables(some)["features"]
        features = np.zeros((len(pictures), known.type.list_size), np.float16)  # nobody is near to what is 0
        features[featured] = np.stack(known.to_numpy())
        base = base.append_column(
            "features", pa.FixedSizeListArray.from_arrays(features.reshape(-1), features.shape[1])
        )
        changed = {
            change: self.part(f"{which}-{change}", [make(opened(pictures[i])) for i in drawn], model=self.model)
            for change, make in CHANGES.items()
        }
        for change, table in changed.items():
            keys = pa.array([f"{i:06d}-{change}" for i in drawn])
            changed[change] = table.set_column(0, table.schema.field("key"), keys).select(base.column_names)
        return base, changed, drawn

    def part(self, name: str, pictures: list[bytes], *, model: str | None) -> pa.Table:
        path = self.cache / f"{name}.arrow"
        if not path.exists():
            files = {f"{i:06d}": data for i, data in enumerate(pictures)}
            table = Describe(model=model).apply(with_pictures(files), Whole()).kept
            with atomic_file(path) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
                writer.write_table(table)
        with pa.OSFile(str(path), "rb") as file:
            return pa.ipc.open_file(file).read_all()

    def pictures(self, sets: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
        """The files of the sets, at most PICTURES."""
        paths = [path for name, split in sets for path in sorted((self.data / name / split).glob("*.tar"))]
        files = (data for path in paths for data in pictures_of(path))
        return itertools.islice(files, PICTURES)

    def drawings(self) -> Iterator[bytes]:
        paths = [path for name in ("emoji", "icons") for path in sorted(data_path(f"embedded:{name}").glob("*.tar*"))]
        return itertools.islice((data for path in paths for data in pictures_of(path)), 0, None, 9)


BOTH = tuple(itertools.product((4, 6, 8), (0.94, 0.95, 0.96)))


def opened(data: bytes) -> Image.Image:
    return decode(io.BytesIO(data), "it", 10**8)


def saved(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def part_of(picture: Image.Image, share: float) -> Image.Image:
    width, height = (round(side * share) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def with_text(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    draw, height = ImageDraw.Draw(picture), picture.height // 12
    draw.text((height, picture.height - 2 * height), "(c) photo.example", fill="white", font_size=max(8, height))
    return picture


def hue_shifted(picture: Image.Image) -> Image.Image:
    hue, *rest = picture.convert("HSV").split()
    turned = hue.point(lambda value: (value + 21) % 256)  # 30 degrees
    return Image.merge("HSV", (turned, *rest)).convert("RGB")


def sized(picture: Image.Image, across: float, down: float) -> Image.Image:
    size = max(1, round(picture.width * across)), max(1, round(picture.height * down))
    return picture.resize(size, Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG quality 60": lambda picture: saved(picture, 60),
    "JPEG quality 30": lambda picture: saved(picture, 30),
    "half size": lambda picture: saved(sized(picture, 0.5, 0.5)),
    "brightness +20 %": lambda picture: saved(ImageEnhance.Brightness(picture).enhance(1.2)),
    "brightness -20 %": lambda picture: saved(ImageEnhance.Brightness(picture).enhance(0.8)),
    "grey": lambda picture: saved(picture.convert("L")),
    "aspect +10 %": lambda picture: saved(sized(picture, 1.1, 1)),
    "aspect -10 %": lambda picture: saved(sized(picture, 1, 1.1)),
    "mirrored": lambda picture: saved(ImageOps.mirror(picture)),
    "crop to 90 %": lambda picture: saved(part_of(picture, 0.9)),
    "crop to 75 %": lambda picture: saved(part_of(picture, 0.75)),
    "border of 5 %": lambda picture: saved(ImageOps.expand(picture, round(0.05 * max(picture.size)), "white")),
    "small text": lambda picture: saved(with_text(picture)),
    "hue +30 degrees": lambda picture: saved(hue_shifted(picture)),
}


def median_hash(grey: np.ndarray) -> np.ndarray:
    """The usual one: 8 x 8 waves against their median."""
    waves = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(SIDE) + 1) / (2 * SIDE))
    found = (waves @ grey.astype(np.float64) @ waves.T).reshape(len(grey), 64)
    return packed(found > np.median(found, axis=1, keepdims=True))


def difference_hash(grey: np.ndarray) -> np.ndarray:
    """Is a pixel of 9 x 8 brighter than the one to its left."""
    small = np.stack([np.asarray(Image.fromarray(one).resize((9, 8), Image.Resampling.BOX)) for one in grey])
    return packed((small[:, :, 1:] > small[:, :, :-1]).reshape(len(grey), 64))


def block_hash(grey: np.ndarray) -> np.ndarray:
    """Is a block of 4 x 4 pixels brighter than the median block."""
    means = grey.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(grey), 64)
    return packed(means > np.median(means, axis=1, keepdims=True))


def packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


HASHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "signs of 64 waves": lambda grey: perceptual_hash(grey)[0],
    "8 x 8 waves against the median": median_hash,
    "differences": difference_hash,
    "block means": block_hash,
}


def share(is_so: np.ndarray) -> float:
    return round(float(np.mean(is_so)), 4)


def pictures_of(path: Path) -> Iterator[bytes]:
    reader = TarReader(path)
    for sample in reader.index().samples:
        yield from (reader.read(*span) for ending, span in sample.parts.items() if ending in ("jpg", "png", "webp"))


def with_pictures(files: dict[str, bytes]) -> pa.Table:
    rows = pairs_table([{"key": key, "text": "a picture", "source": 0} for key in files])
    digests = [hashlib.sha256(data).hexdigest() for data in files.values()]
    return rows.append_column("sha256", pa.array(digests)).append_column(
        "picture", pa.array(files.values(), pa.binary())
    )


def columns(rows: pa.Table) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    features = (
        np.stack(rows["features"].to_numpy()).astype(np.float32) if "features" in rows.column_names else np.empty(0)
    )
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = np.divide(features, lengths, out=features, where=lengths > 0)
    return (rows["look"].to_numpy(), rows["look_mirrored"].to_numpy()), features


def two_ways(own: Any, looks: Any, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Near pairs, each once, also those of which one is mirrored: rows of `own`, rows of `looks`."""
    found = [pair for way in own for pair in near_pairs(way, looks[0], distance=distance)]
    pairs = {(i, j) for some in found for i, j in zip(*(side.tolist() for side in some), strict=True)}
    i, j = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return i, j


def pairs_of(looks: Any, distance: int) -> np.ndarray:
    """The pairs of `two_ways` among one set, [K, 2] with i < j."""
    i, j = two_ways(looks, looks, distance)
    return np.unique(np.sort(np.stack([i[i != j], j[i != j]], axis=1), axis=1), axis=0)


def strangers(pairs: tuple[np.ndarray, np.ndarray], drawn: np.ndarray) -> int:
    """How many copies' pairs are with another picture than their own."""
    i, j = pairs
    return int((j != drawn[i]).sum())


def pairs_at(features: np.ndarray, cosine: float) -> np.ndarray:
    """[N] how many rows before each reach the cosine."""
    blocks = (features[start : start + 1000] @ features.T for start in range(0, len(features), 1000))
    counts = [(np.tril(block, start * 1000 - 1) >= cosine).sum(axis=1) for start, block in enumerate(blocks)]
    return np.concatenate(counts)


def run(stage: Grouping, rows: pa.Table) -> Judged:
    """A stage on rows that are one part."""
    facts = stage.total([stage.count(rows)]) if isinstance(stage, Counting) else None
    buckets = stage.buckets(len(rows))
    members = stage.scatter(rows, Whole(facts=facts), buckets)
    members = members.append_column("part", pa.array(np.zeros(len(members), np.int32)))
    bucket = members["bucket"].to_numpy()
    some = [stage.resolve(members.filter(pa.array(bucket == b)), Whole(facts=facts)) for b in range(buckets)]
    return stage.apply(rows, Whole(facts=facts, verdicts=pa.concat_tables(some)))


def dropped_by(stage: Grouping, rows: pa.Table) -> set[str]:
    return set(run(stage, rows).dropped["key"].to_pylist())


def variant(sources: list[Image.Image], number: int) -> bytes:
    """Picture number i, cut and brightened by chance; of a tenth only compressed anew."""
    draw = np.random.default_rng((SEED, number))
    picture = sources[number % len(sources)]
    if number % 10:
        width, height = (int(side * draw.uniform(0.5, 0.9)) for side in picture.size)
        left, top = int(draw.integers(picture.width - width + 1)), int(draw.integers(picture.height - height + 1))
        picture = picture.crop((left, top, left + width, top + height))
        picture = ImageEnhance.Brightness(picture).enhance(draw.uniform(0.7, 1.3))
    return saved(picture, int(draw.integers(50, 95)))


def drawn_features(features: np.ndarray) -> pa.Array:
    """Features around the given ones, as those of variants are."""
    draw = np.random.default_rng(SEED)
    spread = draw.uniform(0.2, 1, LARGE).astype(np.float32)[:, None]
    noise = draw.standard_normal((LARGE, features.shape[1]), dtype=np.float32) / features.shape[1] ** 0.5
    rows = features[np.arange(LARGE) % len(features)] + spread * noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).reshape(-1)), rows.shape[1])


class timed:  # noqa: N801  # reads as a word of a `with`
    """Processor time of a block, added to a row of a table."""

    def __init__(self, clock: dict[str, float], name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.clock[self.name] = self.clock.get(self.name, 0) + time.process_time() - self.start


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
