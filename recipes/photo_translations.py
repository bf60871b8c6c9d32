"""What the words of diptych-photo are called in other languages, as Unicode CLDR names the emoji of the same things.

`build_photo.py` puts the list into the model's folder, `translations.tsv.gz`, and the tokenizer puts what stands there
into English. A word is in it if an emoji bears its English name. Of twelve languages also keywords: "arbre" stands at
nearly the emoji that "tree" stands at, and no other word of either language does so as well; such an English word must
have been tagged as a noun by WordNet's makers, three times or more and mostly. Left out is what is English as well
("pies", "barn"), so that no English text is changed: what WordNet has, or says in its glosses, plural and all, what
CLDR calls an emoji in English, and Latin words of one or two letters.

Needs `npm` on the PATH, as CLDR comes from the packages below, and `apt-get install wordnet-base`.
"""

import itertools
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from build_pictograms import PACKAGES, fetch
from photo_memory import WORDNET

from diptych.data.translations import Translations, as_key
from pictogram_languages import CLDR, LANGUAGES

WORDS = {"emojibase-data": PACKAGES["emojibase-data"]}
PARTS = (("cldr-annotations-full", "annotations"), ("cldr-annotations-derived-full", "annotationsDerived"))
ENDINGS = ("s", "es")  # of English words, which WordNet leaves off
LEAST_LETTERS = 3  # of a Latin word
MOST_WORDS = 2  # longer ones are seldom typed as CLDR has them
LEAST_ALIKE = 0.65  # Dice's coefficient of the emoji of two keywords; 1: they are the same
LEAST_EMOJI = 2  # of a keyword
LEAST_TAGGED = 3  # times
WITH_KEYWORDS = ("de", "fr", "es", "it", "pl", "pt", "ru", "tr", "zh", "ja", "ar", "hi")  # CLDR gives these many
LATIN = re.compile("[a-z0-9\u00aa-\u024f\u1e00-\u1eff ]+")


def find_translations(words: Sequence[str]) -> tuple[Translations, str]:
    """The list for words of a memory, and the licence of CLDR."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in (WORDS | CLDR).items()}
        entries = json.loads((folders["emojibase-data"] / "en" / "data.json").read_text(encoding="utf-8"))
        named = {language: read_names(folders, language) for language in LANGUAGES}
        keywords = {language: read_keywords(folders, language) for language in ("en", *WITH_KEYWORDS)}
        licence = (folders["cldr-annotations-full"] / "LICENSE").read_text(encoding="utf-8").strip()
    known = {word.lower() for word in words}
    signs = [entry["emoji"].replace("\ufe0f", "") for entry in entries]
    emoji: dict[str, str] = {}  # by the English name, in the order of the emoji
    for sign in signs:
        name = next(iter(named["en"].get(sign, ())), "").lower()
        if name in known:
            emoji.setdefault(name, sign)
    pairs = {
        language: matched(emoji_of(keywords["en"], signs), emoji_of(keywords[language], signs))
        for language in WITH_KEYWORDS
    }
    nouns = known & tagged_nouns() - emoji.keys()
    more = sorted({word for some in pairs.values() for word in some if word in nouns})
    english = english_words() | {
        as_key(text) for said in (named["en"], keywords["en"]) for some in said.values() for text in some
    }
    lines, said = [], set[str]()
    for language in (language for language in LANGUAGES if language != "en"):
        found: list[list[str]] = []
        for names in (
            *(named[language].get(sign, []) for sign in emoji.values()),
            *([pairs.get(language, {}).get(word, "")] for word in more),
        ):
            found.append(list(forms(names, english, said)))
            said.update(found[-1])
        lines += [(language, line) for line in itertools.zip_longest(*found, fillvalue="")]
    return Translations((*emoji, *more), tuple(lines)), licence


def emoji_of(keywords: Mapping[str, Sequence[str]], signs: Sequence[str]) -> dict[str, set[int]]:
    """The emoji that each keyword stands at."""
    found: dict[str, set[int]] = defaultdict(set)
    for number, sign in enumerate(signs):
        for text in keywords.get(sign, ()):
            found[as_key(text)].add(number)
    return found


def matched(english: Mapping[str, set[int]], other: Mapping[str, set[int]]) -> dict[str, str]:
    """For each English keyword that of another language that stands at the most like emoji, if it is so both ways."""

    def nearest(of: set[int], among: Mapping[str, set[int]], at: Mapping[int, list[str]]) -> str:
        alike = Counter(
            {text: 2 * len(of & among[text]) / (len(of) + len(among[text])) for number in of for text in at[number]}
        )
        (first, most), (_, next_most) = (*alike.most_common(2), ("", 0.0), ("", 0.0))[:2]
        return first if most >= LEAST_ALIKE and most > next_most else ""

    at_english, at_other = by_emoji(english), by_emoji(other)
    there = {text: nearest(of, other, at_other) for text, of in english.items() if len(of) >= LEAST_EMOJI}
    return {
        text: match for text, match in there.items() if match and nearest(other[match], english, at_english) == text
    }


def by_emoji(keywords: Mapping[str, set[int]]) -> dict[int, list[str]]:
    """The keywords that stand at each emoji."""
    found: dict[int, list[str]] = defaultdict(list)
    for text, numbers in keywords.items():
        for number in numbers:
            found[number].append(text)
    return found


def read_names(folders: Mapping[str, Path], language: str) -> dict[str, list[str]]:
    """What CLDR calls each emoji in a language."""
    return read_said(folders, language, "tts")


def read_keywords(folders: Mapping[str, Path], language: str) -> dict[str, list[str]]:
    """CLDR's keywords of each emoji in a language."""
    return read_said(folders, language, "default")


def read_said(folders: Mapping[str, Path], language: str, kind: str) -> dict[str, list[str]]:
    """Texts of one kind of each emoji."""
    texts: dict[str, list[str]] = {}
    for package, key in PARTS:
        path = folders[package] / key / language / "annotations.json"
        if path.exists():
            table = json.loads(path.read_text(encoding="utf-8"))[key]["annotations"]
            for sign, said in table.items():
                texts.setdefault(sign.replace("\ufe0f", ""), []).extend(said.get(kind, ()))
    return texts


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
    """What WordNet has, of all kinds of word, each part by itself too, and what its glosses have more than once."""
    words, counts = set[str](), Counter[str]()
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"index.{kind}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):
                text = as_key(line.split()[0].replace("_", " "))
                words.update((text, *text.split()))
        for line in (WORDNET / f"data.{kind}").read_text(encoding="latin-1").splitlines():
            counts.update(as_key(line.partition("|")[2]).split())
    return words | {word for word, count in counts.items() if count > 1}


def tagged_nouns() -> set[str]:
    """Words that WordNet's makers met as nouns often enough, and at least as often as otherwise."""
    nouns, others = Counter[str](), Counter[str]()
    for line in (WORDNET / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        word, _, place = key.partition("%")
        (nouns if place.startswith("1:") else others)[word.replace("_", " ")] += int(count)
    return {word for word, count in nouns.items() if count >= max(LEAST_TAGGED, others[word])}
