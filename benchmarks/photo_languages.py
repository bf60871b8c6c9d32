"""How often diptych-photo finds the English for a class name in another language, and what that is worth.

    python benchmarks/photo_languages.py DATA      # ../shared/data: training parts, so that no test part is looked at

Needs npm and `pip install 'diptych[pictograms]'`, as recipes/build_pictograms.py does. Of all sets together, the
classes are those whose English name is in the model's list; in each language they bear the name that Unicode CLDR gives
the emoji, and that name alone is the prompt. Each picture is asked so, likewise without the list, and in English. A
class that a language has no name for is left out there, pictures and all. Writes results/photo_languages.json.
"""

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import diptych
import history
from diptych.measures.binomial import clopper_pearson
from diptych.runtime import hardware, instruction_sets
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
from build_pictograms import fetch
from photo_translations import read_names

from pictogram_languages import CLDR, LANGUAGES

SETS = ("pacs_photo", "caltech101", "cifar10")
RESULT = history.RESULTS / "photo_languages.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    clip = diptych.load("diptych-photo", runtime="torch").in_torch()
    translations = clip.tokenizer.translations
    assert translations
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in CLDR.items()}
        named = {language: read_names(folders, language) for language in LANGUAGES}
    sign_of = {names[0].lower(): sign for sign, names in named["en"].items() if names}
    texts = {
        language: {
            word: next(iter(names.get(sign_of[word], ())), "") for word in translations.english if word in sign_of
        }
        for language, names in named.items()
    }
    pictures, words = read_pictures(clip, arguments.data, set(texts["en"]))
    rows = {language: asked(clip, pictures, words, of_word) for language, of_word in texts.items() if language != "en"}
    for language, row in rows.items():
        print(language, json.dumps(row), flush=True)
    result = {
        "what": f"top-1 over classes of {', '.join(SETS)}, training parts, names alone",
        "classes": len(set(words)),
        "pictures": len(words),
        "words": len(texts["en"]),
        "languages": rows,
        "fingerprint": clip.fingerprint(),
        "packages": CLDR,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "instruction_sets": instruction_sets(),
    }
    history.write(RESULT, result)


def read_pictures(clip: Bundle, folder: Path, english: set[str]) -> tuple[np.ndarray, list[str]]:
    """[N, D] features, and the English word of each picture."""
    images, words = [], []
    for name in SETS:
        data = read_labelled(folder / name, split="train")
        known = [word if (word := label.lower()) in english else "" for label in data.classnames]
        for number, target in enumerate(data.targets):
            if known[target]:
                images.append(data.image_bytes(number))
                words.append(known[target])
    return clip.encode_images(images), words


def asked(clip: Bundle, pictures: np.ndarray, words: list[str], of_word: dict[str, str]) -> dict[str, float]:
    """One language's row."""
    classes = [word for word in dict.fromkeys(words) if of_word[word]]
    rows = [row for row, word in enumerate(words) if word in classes]
    targets = np.array([classes.index(words[row]) for row in rows])
    names, translations = [of_word[word] for word in classes], clip.tokenizer.translations
    assert translations
    right = {
        "english": count(clip, pictures[rows], classes, targets),
        "top1": count(clip, pictures[rows], names, targets),
    }
    clip.tokenizer.translations = None
    right["without_list"] = count(clip, pictures[rows], names, targets)
    clip.tokenizer.translations = translations
    bounds = clopper_pearson(right["top1"], len(rows))
    return {name: some / len(rows) for name, some in right.items()} | {
        "low": bounds.low,
        "high": bounds.high,
        "n": len(rows),
        "classes": len(classes),
        "found": sum(translations(name).strip() == word for name, word in zip(names, classes, strict=True)),
        "listed": sum(translations(text).strip() == word for word, text in of_word.items() if text),
    }


def count(clip: Bundle, pictures: np.ndarray, names: list[str], targets: np.ndarray) -> int:
    return int(((pictures @ clip.encode_texts(names).T).argmax(axis=1) == targets).sum())


if __name__ == "__main__":
    main()
