"""How well diptych-pictogram names drawings of the held-out style in each language that it learned.

    python benchmarks/pictogram_languages.py [MODEL] [--name NAME]

Needs npm and `pip install 'diptych[pictograms]'`, as recipes/build_pictograms.py does. The classes are what Unicode
CLDR calls the emoji of embedded:twemoji in the language; those that have no name there are left out, pictures and all.
The name by itself is the prompt. Writes results/pictogram_languages.json, a row a model and language.
"""

import argparse
import dataclasses
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import diptych
import history
from diptych.data.embedded import HELD_OUT, data_path
from diptych.measures.binomial import clopper_pearson
from diptych.measures.metrics import top_k_correct
from diptych.runtime import hardware, instruction_sets
from diptych.sets.open import read_labelled

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
from build_pictograms import PACKAGES, EmojiWords, fetch

from pictogram_languages import CLDR, LANGUAGES, read_words

WORDS = {"emojibase-data": PACKAGES["emojibase-data"]}
RESULT = history.RESULTS / "pictogram_languages.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="diptych-pictogram", help="a name or a folder")
    parser.add_argument("--name", help="of its row; else that of the model")
    arguments = parser.parse_args()
    data, clip = read_labelled(data_path(HELD_OUT)), diptych.load(arguments.model)
    images = clip.encode_images([data.image_bytes(number) for number in range(len(data))])
    rows = {}
    for language, names in names_of(data.classnames).items():
        kept = [number for number, name in enumerate(names) if name]  # classes, each with one picture
        texts = clip.encode_texts([names[number] for number in kept], truncate=True)
        of_class = {number: place for place, number in enumerate(kept)}
        pictures = [number for number, target in enumerate(data.targets) if target in of_class]
        targets = [of_class[data.targets[number]] for number in pictures]
        rows[language] = scored(images[pictures] @ texts.T, targets)
        print(language, json.dumps(rows[language]), flush=True)
    measured = {arguments.name or arguments.model: {"fingerprint": clip.fingerprint(), "languages": rows}}
    before = json.loads(RESULT.read_text(encoding="utf-8"))["models"] if RESULT.exists() else {}
    conditions = {
        "data": HELD_OUT,
        "packages": CLDR,
        "seed": 0,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instructions": instruction_sets(),
    }
    history.write(RESULT, {"models": before | measured, **conditions}, measured={"models": measured})


def names_of(classnames: Sequence[str]) -> dict[str, list[str]]:
    """What each language calls the classes; empty where it has no name. English has those of the set itself."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in (CLDR | WORDS).items()}
        labels = {entry["label"].lower(): code for code, entry in EmojiWords(folders["emojibase-data"]).by_hex.items()}
        rows = {labels[name]: number for number, name in enumerate(classnames)}
        found = {"en": list(classnames)}
        for language in LANGUAGES:
            names = dict.fromkeys(range(len(classnames)), "")
            for text, row in read_words(folders, language, rows, len(rows)).names:
                names[row] = text
            found[language if language != "en" else "en, names of CLDR"] = list(names.values())
    return found


def scored(scores: np.ndarray, targets: list[int]) -> dict[str, Any]:
    """Top-1 and top-5 with the exact interval of the first."""
    right = int(top_k_correct(scores, np.array(targets), 1).sum())
    return {
        "top1": right / len(targets),
        "interval": dataclasses.asdict(clopper_pearson(right, len(targets))),
        "top5": float(top_k_correct(scores, np.array(targets), 5).double().mean()),
        "n": len(targets),
    }


if __name__ == "__main__":
    main()
