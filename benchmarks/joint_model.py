"""What the default, two models behind one name, reaches beside each of the two; how often it takes a picture for the
other kind; search in a folder that holds both; and its time a picture.

    python benchmarks/joint_model.py DATA [--sets cifar10 pacs_sketch ...] [--cache FOLDER] [--no-speed]

DATA holds WebDataset evaluation folders. Features are kept in the cache by the model's fingerprint, so a run after one
part has changed encodes with that alone. Each set has the prompt templates that it brings along. Results:
results/joint_model.json; rows of sets that are not asked for stay as they are, each with the model that it is of.

`gate`: of the pictures of a set, how many are seen by the model for drawings at all, how many are answered more by it,
and how many by it alone. `search`: names of the photographs' classes, asked of photographs and drawings in one index; a
hit is right where its name is the one asked for, so a drawing of a poodle is wrong for "dog".
"""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import diptych
import history
from diptych.classify import class_weights
from diptych.data.embedded import HELD_OUT, data_path
from diptych.measures.binomial import clopper_pearson
from diptych.measures.compare import compare_correct
from diptych.measures.metrics import average_precision
from diptych.pairs.shards import ShardSet
from diptych.runtime import hardware, instruction_sets
from diptych.sets.labelled import LabelledImages
from diptych.sets.open import read_labelled
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.joint import JointEncoder

RESULT = history.RESULTS / "joint_model.json"
SEED, ROUNDS, PICTURES = 0, 5, 48
CHECKED = 8  # pictures of a set that are encoded again
SETS = ("cifar10", "caltech101", "pacs_photo", "flowers5", "clothing10", "rsscn7", "pacs_sketch", HELD_OUT)
MIXED = ("pacs_photo", "caltech101")  # each searched together with the held-out drawings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", default=(*SETS, "flickr8k"), choices=(*SETS, "flickr8k"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/diptych-joint"))
    parser.add_argument("--no-speed", action="store_true")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    joint = diptych.load(engine="onnx")
    assert isinstance(joint, JointEncoder)
    models = {"photographs": joint.photographs, "drawings": joint.drawings, "joint": joint}
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"sets": {}, "search": {}}
    rows: dict[str, Any] = {}
    everything: dict[str, dict[str, np.ndarray]] = {}
    for name in (name for name in SETS if name in arguments.sets):
        data = read_labelled(data_path(name) if name == HELD_OUT else arguments.data / name)
        pictures = [data.image_bytes(row) for row in range(len(data))]
        features = {role: kept(model, name, pictures, arguments.cache) for role, model in models.items()}
        rows[name] = measured(models, joint, data, features)
        everything[name] = features
        print(name, rows[name], flush=True)
    if "flickr8k" in arguments.sets:
        photos = flickr8k(joint, arguments.data / "flickr8k" / "val", arguments.cache)
        rows["flickr8k"] = {"gate": gate_of(joint, photos)}
        print("flickr8k", rows["flickr8k"], flush=True)
    mixed = {
        name: search(models, arguments.data / name, everything[name], everything[HELD_OUT])
        for name in MIXED
        if {name, HELD_OUT} <= everything.keys()
    }
    of = {"of": joint.fingerprint()}
    result: dict[str, Any] = {
        "model": joint.name,
        "fingerprint": joint.fingerprint(),
        "parts": {role: model.fingerprint() for role, model in models.items() if model is not joint},
        "sets": before["sets"] | {name: row | of for name, row in rows.items()},
        "changed": changed(joint, arguments.data),
        "search": before["search"] | {name: found | of for name, found in mixed.items()},
    }
    if not arguments.no_speed:
        result["speed"] = speed(models, arguments.data)
    result |= {
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": list(instruction_sets()),
    }
    print({key: result[key] for key in ("search", "changed", "speed") if key in result})
    history.write(RESULT, result, measured=result | {"sets": rows, "search": mixed})


def kept(model: DualEncoder, name: str, pictures: Sequence[bytes], cache: Path) -> np.ndarray:
    """[N, D] of a set, from the cache or put there; of the joint one from those of its parts, and a few are checked."""
    if isinstance(model, JointEncoder):
        small = cache / f"{model.drawings.fingerprint()[:16]}-seen-{named(name)}.npy"  # as the joint model shows them
        if not small.exists():
            seen, resized = model.preprocess.pixels, model.drawings.preprocess.resized
            np.save(small, model.drawings.encode_images([resized(Image.fromarray(seen(one))) for one in pictures]))
        joined = model.joined(kept(model.photographs, name, pictures, cache), np.load(small))
        some = range(0, len(pictures), len(pictures) // CHECKED)
        np.testing.assert_allclose(model.encode_images([pictures[row] for row in some]), joined[some], atol=1e-3)
        return joined
    path = cache / f"{model.fingerprint()[:16]}-{named(name)}.npy"
    if not path.exists():
        np.save(path, model.encode_images(pictures, batch_size=32))
    return np.load(path)


def named(name: str) -> str:
    return name.replace(":", "-")


def flickr8k(joint: JointEncoder, folder: Path, cache: Path) -> np.ndarray:
    """Features of its photographs in the model for photographs."""
    shards = ShardSet(folder)
    return kept(joint.photographs, "flickr8k", [shards[row].picture or b"" for row in range(len(shards))], cache)


def measured(
    models: dict[str, DualEncoder], joint: JointEncoder, data: LabelledImages, features: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Top-1 of the three, the joint one's difference to the better of the others, and the gate."""
    targets = np.array(data.targets)
    templates = data.templates or ("{}",)
    right = {
        role: (features[role] @ class_weights(model, data.classnames, templates).T).argmax(axis=1) == targets
        for role, model in models.items()
    }
    better = max(("photographs", "drawings"), key=lambda role: right[role].mean())
    paired = compare_correct(torch.from_numpy(right[better]), torch.from_numpy(right["joint"]), seed=SEED)
    return {
        "n": len(targets),
        "top1": {role: share(int(some.sum()), len(some)) for role, some in right.items()},
        "better": better,
        "difference": paired.to_dict(),
        "gate": gate_of(joint, features["photographs"]),
    }


def gate_of(joint: JointEncoder, features: np.ndarray) -> dict[str, Any]:
    """How far pictures are taken for drawings."""
    drawn = joint.drawn(features)
    counts = {"seen": drawn > 0, "more": drawn > 0.5, "alone": drawn == 1}
    return {name: share(int(some.sum()), len(drawn)) for name, some in counts.items()} | {"n": len(drawn)}


def share(successes: int, n: int) -> dict[str, Any]:
    """With its exact 95 % interval."""
    interval = clopper_pearson(successes, n)
    return {"value": round(successes / n, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def changed(joint: JointEncoder, data: Path) -> dict[str, Any]:
    """The gate where every 20th photograph of Flickr8k's test part is shown otherwise, and every 40th drawing."""
    shards = ShardSet(data / "flickr8k" / "val")
    drawings = read_labelled(data_path(HELD_OUT))
    recipe = joint.preprocess
    shown = {
        "photographs": [Image.fromarray(recipe.pixels(shards[r].picture or b"")) for r in range(0, len(shards), 20)],
        "drawings": [Image.fromarray(recipe.pixels(drawings.image_bytes(r))) for r in range(0, len(drawings), 40)],
    }
    found: dict[str, Any] = {}
    for kind, pictures in shown.items():
        for how in (in_grey, shrunk_to_32, on_a_white_page):
            features = joint.photographs.encode_images([how(picture) for picture in pictures])
            found[f"{kind}, {how.__name__.replace('_', ' ')}"] = gate_of(joint, features)
    return found


def in_grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L")


def shrunk_to_32(picture: Image.Image) -> Image.Image:
    return picture.resize((32, 32), Image.Resampling.BICUBIC)


def on_a_white_page(picture: Image.Image) -> Image.Image:
    page = Image.new("RGB", (2 * picture.width, 2 * picture.height), "white")
    page.paste(picture, (picture.width // 2, picture.height // 2))
    return page


def search(
    models: dict[str, DualEncoder], folder: Path, of_photos: dict[str, np.ndarray], of_drawings: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Mean average precision over names, of photographs and drawings together and of the photographs among them."""
    photos, drawings = read_labelled(folder), read_labelled(data_path(HELD_OUT))
    names = list(photos.classnames)
    drawn = [drawings.classnames[target] for target in drawings.targets]
    targets = np.array([*photos.targets, *(names.index(name) if name in names else -1 for name in drawn)])
    is_photo = np.arange(len(targets)) < len(photos.targets)
    found: dict[str, Any] = {"photographs": int(is_photo.sum()), "drawings": int((~is_photo).sum())}
    for role, model in models.items():
        scores = np.concatenate([of_photos[role], of_drawings[role]]) @ model.encode_texts(names).T
        first = np.argsort(-scores, axis=0, kind="stable")[:10]  # [10, Q]
        found[role] = {
            "map": mean_precision(scores, targets),
            "map_of_photographs": mean_precision(scores[is_photo], targets[is_photo]),
            "drawings_among_ten": round(float((~is_photo)[first].mean()), 3),
        }
    return found


def mean_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Of scores [N, Q]; a row's target is a query's number, or -1."""
    wanted = targets[:, None] == np.arange(scores.shape[1])
    return round(average_precision(torch.from_numpy(scores), torch.from_numpy(wanted)), 4)


def speed(models: dict[str, DualEncoder], data: Path) -> dict[str, Any]:
    """Pictures a second of processor time, decoding included: they take turns; medians; times beside the first."""
    photos, drawings = read_labelled(data / "caltech101"), read_labelled(data_path(HELD_OUT))
    found: dict[str, Any] = {}
    for kind, some in (("photographs", photos), ("drawings", drawings)):
        spread = range(0, len(some), len(some) // PICTURES)[:PICTURES]
        pictures = [some.image_bytes(row) for row in spread]
        seconds: dict[str, list[float]] = {role: [] for role in models}
        for number in range(ROUNDS + 1):
            for role, model in models.items():
                start = time.process_time()
                model.encode_images(pictures, batch_size=16)
                if number:  # the first one opens the graphs
                    seconds[role].append(time.process_time() - start)
        ratios = [b / a for a, b in zip(seconds["photographs"], seconds["joint"], strict=True)]
        found[kind] = {role: round(PICTURES / statistics.median(some), 1) for role, some in seconds.items()}
        found[kind] |= {"times": round(statistics.median(ratios), 3), "of": [round(one, 3) for one in sorted(ratios)]}
    return found


if __name__ == "__main__":
    main()
