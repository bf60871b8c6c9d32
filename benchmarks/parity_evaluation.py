"""The same counts as clip-benchmark: top-1 of labelled sets and recall@k of captioned ones, picture by picture.

    make parity-evaluation DATA=FOLDER                 (lays clip-benchmark over .venv-parity first)
    python benchmarks/parity_evaluation.py FOLDER [--sets NAME ...] [--models NAME ...] [--out FILE]

Both evaluate the same folders of FOLDER (WebDataset evaluation layout) with the same weights: ours by
`diptych.eval`, theirs by clip-benchmark on what `diptych models convert` writes for open_clip. Each set is measured
twice: with our picture recipe handed to both, so that only the evaluation differs, and with each library's own. Where
the counts differ, the pictures are named. Writes results/parity_evaluation.json; docs/parity.md shows it.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from torch import Tensor, nn

import diptych
import history
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import score_pictures
from diptych.files import write_json
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.runtime import hardware
from diptych.sets.captioned import read_retrieval
from diptych.sets.open import read_labelled
from diptych.sets.webdataset import dataset_type
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as

SEED = 0
BATCH = 64
KS = (1, 5, 10)
MERGES = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
DISTRIBUTIONS = (
    "diptych",
    "torch",
    "torchvision",
    "open_clip_torch",
    "clip-benchmark",
    "webdataset",
    "numpy",
    "pillow",
)


Row = dict[str, Any]
Transform = Callable[..., Tensor]  # one picture to [3, S, S]


def shipped() -> Bundle:
    """The model that ships: a ResNet that knows something."""
    return diptych.load("diptych-pictogram-small")


def random_vit() -> Bundle:
    """A small vision transformer with random weights: it knows nothing, and its scores lie close together."""
    config = preset("ViT-B-32")
    image = dataclasses.replace(config.image, width=256, layers=4, heads=4, mlp_width=1024)
    text = dataclasses.replace(config.text, width=128, layers=4, heads=2, mlp_width=512)
    config = dataclasses.replace(config, image=image, text=text, embed_dim=256)
    return Bundle(
        model=CLIP(config, generator(SEED)).eval(),
        preprocess=Preprocess(image_size=config.image.image_size),
        tokenizer=Tokenizer.from_merges(MERGES),
    )


MODELS: dict[str, Callable[[], Bundle]] = {"diptych-pictogram-small": shipped, "ViT/32, random weights": random_vit}


class Peer:
    """A model as clip-benchmark has it: open_clip's, with its tokenizer and picture recipe."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model, _, self.transform = open_clip.create_model_and_transforms(name)
            self.tokenizer = open_clip.get_tokenizer(name)
        self.model.eval()

    def loader(self, folder: Path, split: str, transform: Transform) -> Any:
        """A loader as clip-benchmark's command makes it for a WebDataset folder."""
        kind = dataset_type(folder)
        dataset = build_dataset(
            dataset_name=f"wds/{folder.name}", root=str(folder), transform=transform, split=split, download=False,
            task="zeroshot_retrieval" if kind == "retrieval" else "zeroshot_classification",
        )  # fmt: skip
        return torch.utils.data.DataLoader(
            dataset.batched(BATCH, collation_fn=get_dataset_collate_fn(folder.name)), batch_size=None, num_workers=0
        )


class Remembering(nn.Module):
    """Keeps the features that go by, so that what differs can be told to the picture."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self.images: list[Tensor] = []

    def encode_image(self, images: Tensor) -> Tensor:
        features = self._model.encode_image(images)
        self.images.append(nn.functional.normalize(features, dim=-1))
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self._model.encode_text(tokens)


def classification(
    features: ModelFeatures, peer: Peer, folder: Path, transform: Callable[..., Tensor]
) -> dict[str, Any]:
    data = read_labelled(folder, split="test")
    pictures = features.pictures(data)
    templates = data.templates
    assert templates
    # The set's own names for both, whatever the table of tasks says.
    data = dataclasses.replace(data, name=f"{data.name}, as it is")
    weights = features.class_weights(data.classnames, templates)
    ours = score_pictures(features, data, pictures, templates=templates, seed=SEED)
    assert ours.rows.predictions is not None
    predictions = ours.rows.predictions
    loader = peer.loader(folder, "test", transform)
    classnames, theirs_templates = loader.dataset.classes, loader.dataset.templates
    model = Remembering(peer.model)
    theirs = zeroshot_classification.evaluate(
        model, _WithClasses(loader), peer.tokenizer, classnames, theirs_templates, "cpu", amp=False
    )
    classifier = zeroshot_classification.zero_shot_classifier(
        peer.model, peer.tokenizer, classnames, theirs_templates, "cpu", amp=False
    )
    logits = 100.0 * torch.cat(model.images) @ classifier
    differ = (logits.argmax(dim=1) != predictions).nonzero()[:, 0].tolist()
    n = len(data)
    return {
        "kind": "classification",
        "n": n,
        "top-1, ours": round(n * ours.numbers["top-1"]),
        "top-1, theirs": round(n * theirs["acc1"]),
        "top-5, ours": round(n * ours.numbers["top-5"]) if "top-5" in ours.numbers else None,
        "top-5, theirs": round(n * theirs["acc5"]) if len(classnames) > 5 else None,
        "mean per class, ours": ours.numbers["mean per class"],
        "mean per class, theirs": theirs["mean_per_class_recall"],
        "largest difference of an image feature": _largest(torch.cat(model.images), pictures.image_features),
        "largest difference of a class vector": _largest(classifier.T, weights),
        "pictures named otherwise": [
            _otherwise(data.keys[row], data.classnames, logits[row], int(predictions[row])) for row in differ
        ],
    }


class _WithClasses:
    """A loader whose `dataset` has classes, which batching takes away."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.dataset = loader.dataset

    def __iter__(self) -> Any:
        return iter(self._loader)


def _otherwise(key: str, names: tuple[str, ...], logits: Tensor, ours: int) -> Row:
    theirs = int(logits.argmax())
    return {
        "picture": key,
        "ours": names[ours],
        "theirs": names[theirs],
        "their cosines lie apart by": (logits[theirs] - logits[ours]).item() / 100,
    }


def retrieval(features: ModelFeatures, peer: Peer, folder: Path, transform: Transform) -> Row:
    split = next(name for name in ("test", "val") if (folder / name).is_dir())
    data = read_retrieval(folder, split=split)
    pictures = features.pictures(data)
    ours = score_pictures(features, data, pictures, templates=["{}"], seed=SEED)
    assert ours.retrieval
    ways = {"text": ours.retrieval.image_to_text, "image": ours.retrieval.text_to_image}
    model = Remembering(peer.model)
    theirs = zeroshot_retrieval.evaluate(
        model, peer.loader(folder, split, transform), peer.tokenizer, "cpu", amp=False, recall_k_list=list(KS)
    )
    found: Row = {"kind": "retrieval", "n": len(ways["text"].ranks), "captions": len(ways["image"].ranks)}
    for name, way in ways.items():
        queries = len(way.ranks)
        for k in KS:
            found[f"{name} retrieval, found at {k}, ours"] = round(queries * way.recall[k])
            found[f"{name} retrieval, found at {k}, theirs"] = round(queries * theirs[f"{name}_retrieval_recall@{k}"])
    found["largest difference of an image feature"] = _largest(torch.cat(model.images), pictures.image_features)
    return found


def _largest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def differing(row: Row) -> list[str]:
    """Names of the counts that differ."""
    names = [name.removesuffix(", ours") for name in row if name.endswith(", ours") and "mean" not in name]
    return [name for name in names if row[f"{name}, ours"] != row[f"{name}, theirs"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--out", type=Path, default=history.RESULTS / "parity_evaluation.json")
    args = parser.parse_args()
    folders = sorted(
        path for path in args.data.iterdir() if path.is_dir() and (not args.sets or path.name in args.sets)
    )
    rows: list[Row] = []
    result = {
        "what": "counts of diptych and clip-benchmark on the same folders with the same weights",
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "rows": rows,
    }
    for name in args.models:
        bundle = MODELS[name]()
        features = ModelFeatures(bundle, batch_size=BATCH)
        with tempfile.TemporaryDirectory() as scratch:
            save_as(bundle, Path(scratch) / "model", format="open_clip")
            peer = Peer(Path(scratch) / "model")
            for folder in folders:
                measure = retrieval if dataset_type(folder) == "retrieval" else classification
                for recipe, transform in (("ours for both", bundle.preprocess), ("each its own", peer.transform)):
                    row: Row = {"model": name, "data": folder.name, "pictures made by": recipe}
                    row |= measure(features, peer, folder, transform)
                    row["counts that differ"] = differing(row)
                    rows.append(row)
                    write_json(args.out, result)  # so that a run that is stopped has what it counted
                    print(name, folder.name, recipe, row["counts that differ"] or "equal", flush=True)
    history.write(args.out, result, keys=("model", "data", "pictures made by"))
    different = [row for row in rows if row["pictures made by"] == "ours for both" and row["counts that differ"]]
    print(
        json.dumps([{k: v for k, v in row.items() if k != "pictures named otherwise"} for row in different], indent=2)
    )
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
