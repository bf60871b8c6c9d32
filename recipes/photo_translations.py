"""What the words of diptych-photo are called in other languages, as Unicode CLDR names the emoji of the same things.

`build_photo.py` puts the list into the model's folder, `translations.tsv.gz`, and the tokenizer puts what stands there
into English. A word is in it if an emoji bears its English name. Left out is what is English as well ("pies", "barn"),
so that no English text is changed: what WordNet has, or says in its glosses, plural and all, what CLDR calls an emoji
in English, and Latin words of one or two letters.

Needs `npm` on the PATH, as CLDR comes from the packages below, and `apt-get install wordnet-base`.
"""

import itertools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from build_pictograms import PACKAGES, fetch
from photo_memory import WORDNET

from diptych.data.translations import Translations, as_key
from pictogram_languages import CLDR, LANGUAGES

PARTS = (("cldr-annotations-full", "annotations"), ("cldr-annotations-derived-full", "annotationsDerived"))
ENDINGS = ("s", "es")  # of English words, which WordNet leaves off
LEAST_LETTERS = 3  # of a Latin word
MOST_WORDS = 2  # longer ones are seldom typed as CLDR has them
LATIN = re.compile("[a-z0-9\u00aa-\u024f\u1e00-\u1eff ]+")


def find_translations(words: Sequence[str]) -> tuple[Translations, str]:
    """The list for words of a memory, and the licence of CLDR."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in (PACKAGES | CLDR).items()}
        entries = json.loads((folders["emojibase-data"] / "en" / "data.json").read_text(encoding="utf-8"))
        named = {language: read_names(folders, language) for language in LANGUAGES}
        licence = (folders["cldr-annotations-full"] / "LICENSE").read_text(encoding="utf-8").strip()
    known = {word.lower() for word in words}
    emoji: dict[str, str] = {}  # by the English name, in the order of the emoji
    for entry in entries:
        sign = entry["emoji"].replace("\ufe0f", "")
        name = next(iter(named["en"].get(sign, ())), "").lower()
        if name in known:
            emoji.setdefault(name, sign)
    english = english_words() | {as_key(name) for names in named["en"].values() for name in names}
    lines, said = [], set[str]()
    for language in LANGUAGES:
        if language == "en":
            continue
        found: list[list[str]] = []
        for sign in emoji.values():
            found.append(list(forms(named[language].get(sign, ()), english, said)))
            said.update(found[-1])
        lines += [(language, line) for line in itertools.zip_longest(*found, fillvalue="")]
    return Translations(tuple(emoji), tuple(lines)), licence


def read_names(folders: Mapping[str, Path], language: str) -> dict[str, list[str]]:
    """What CLDR calls each emoji in a language."""
    names: dict[str, list[str]] = {}
    for package, key in PARTS:
        path = folders[package] / key / language / "annotations.json"
        if path.exists():
            table = json.loads(path.read_text(encoding="utf-8"))[key]["annotations"]
            for sign, said in table.items():
                names.setdefault(sign.replace("\ufe0f", ""), []).extend(said.get("tts", ()))
    return names


def forms(names: Sequence[str], english: set[str], said: set[str]) -> Iterator[str]:
    """The texts of a name that may stand in the list: "Koch/Köchin" is two, "Pilot(in)" is "Pilot" and "Pilotin"."""
    found = dict.fromkeys(
        as_key(text)
        for name in names
        for part in name.split("/")
        for text in (re.sub(r"\([^)]*\)", "", part), re.sub(r"[()]", "", part))
    )
    for text in found:
        is_short = LATIN.fullmatch(text) is not None and len(text) < LEAST_LETTERS
        is_long = text.count(" ") >= MOST_WORDS
        if text and not (text in said or is_short or is_long or is_english(text, english)):
            yield text


def is_english(text: str, english: set[str]) -> bool:
    """Whether a text is a word of English, or a form of one."""
    stems = [text[: -len(ending)] for ending in ENDINGS if text.endswith(ending)]
    return any(stem in english for stem in (text, *stems))


def english_words() -> set[str]:
    """What WordNet has, of all kinds of word, and what stands in its glosses more than once."""
    words, counts = set[str](), Counter[str]()
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"index.{kind}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):
                words.add(as_key(line.split()[0].replace("_", " ")))
        for line in (WORDNET / f"data.{kind}").read_text(encoding="latin-1").splitlines():
            counts.update(as_key(line.partition("|")[2]).split())
    return words | {word for word, count in counts.items() if count > 1}
