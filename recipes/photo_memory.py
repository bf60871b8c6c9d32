"""The words of diptych-photo, each with a place among photographs, by rule; `build_photo.py` puts them into the model.

A word's place is found in one of these ways, and nobody looks at a word to decide:

- Of a word that ImageNet has, or kinds of it ("dog"): the mean of its classes, and half of the next.
- Of any other: kernel ridge regression from what WordNet says of the 1,000 classes to their places. Two things are
  alike by their names, by their glosses (both as sentence vectors), by the wider words above them, and by the words
  that stand in their glosses, in those of the wider words, and among the names of their parts.
- Kinds of person are seen in their clothes: the mean of all classes that are clothing joins them.
- Where there are drawings of a word, the mean of these less that of all drawings joins it: little where classes tell
  what it looks like, more where the text itself is of a drawing, "a drawing of a dog" being a word of its own.

Which words: those with a class first, those with a drawing, those that the texts tagged by WordNet's makers use, then
single words, animals, things, food and plants before others, each in WordNet's order.
"""

import hashlib
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.pairs.shards import ShardSet, captions_of

WORDNET = Path("/usr/share/wordnet")
PICTOGRAMS = Path(__file__).parent.parent / "src" / "diptych_pictograms" / "pictograms"

MOST_WORDS = 12_600  # that fit into 36 MB
TOO_WIDE = 450  # classes below a word that says nothing any more: "entity", "object"
# WordNet's lexicographer files whose meanings can be seen, and how late their words come, unless a text uses them.
SEEN = {"05": 0, "06": 0, "13": 0, "15": 1, "17": 1, "18": 1, "20": 0, "27": 1, "03": 2, "08": 2, "14": 2, "19": 2}
ONLY_IF_USED = ("03", "14", "15", "18", "19", "27")  # of places, persons, groups, substances: those that texts use
WIDTH = 0.45  # of the kernel of sentence vectors, on cosines
KINDS = {"tree": 0.4, "gloss": 0.5, "entry": 0.5, "names": 0.5, "words": 0.4}  # how much each likeness counts
RIDGE = 0.03
DEPTH, FADING = 3, 0.6  # how far up glosses are read, and what each step takes off; of parts 0.7
CLOTHES = 2.0  # how much clothing counts in the place of a person, beside what else is known
DRAWN, DRAWN_WITH_CLASS = 0.8, 0.3  # how much drawings count, and beside classes, unless the text says "drawing"
DRAWING = "a drawing of a {}"
DRAWINGS = 6  # of a word that are looked at
GUESSED = -1.5  # e to this is how much a word counts whose place is guessed
FREQUENCY = 1.0  # power of the share of a word's uses that a meaning has, to which it counts
SENTENCES = 6_000
COLOURS = (
    "red", "blue", "green", "yellow", "white", "black", "brown", "pink", "orange", "grey", "small", "large", "young",
    "old", "wooden",
)  # fmt: skip
DOING = (
    "holding", "carrying", "watching", "standing on", "sitting by", "running past", "playing with", "looking at",
    "lying on", "walking through", "jumping over", "pulling", "and", "with", "on", "near", "in front of", "next to",
    "in", "behind", "beside",
)  # fmt: skip
ALONE = ("{}", "a photo of {}", "{} is running", "{} in a field", "{} outdoors")
FILLERS = frozenset((
    "a", "an", "the", "of", "or", "and", "in", "with", "for", "to", "that", "is", "by", "on", "as", "from", "at",
    "having", "used", "its", "are", "which", "it", "who", "whose", "usually", "often", "especially", "one", "two",
    "when", "into", "not", "be", "can",
))  # fmt: skip

Encode = Callable[[Sequence[str]], Tensor]  # texts to sentence vectors [N, W], unit length


class Synset(NamedTuple):
    """One meaning of WordNet's nouns."""

    words: list[str]
    parents: list[str]
    parts: list[str]
    file: str
    gloss: str
    is_name: bool  # of one thing: a person, a city


class WordNet(NamedTuple):
    """The nouns."""

    synsets: dict[str, Synset]
    senses: dict[tuple[str, str], int]  # which sense of a word a meaning is, from 0
    counts: dict[str, int]  # senses of a word that were tagged in texts
    shares: dict[tuple[str, str], float]  # of a word's uses that a meaning has


class Words(NamedTuple):
    """N words with their places."""

    words: list[str]
    ids: list[str]  # the meaning of each
    places: Tensor  # [N, D], unit length
    bonus: Tensor  # [N], added to what the memory compares


def read_wordnet() -> WordNet:
    """Read WordNet's files."""
    synsets, senses, counts = {}, {}, {}
    for line in _lines(WORDNET / "data.noun"):
        head, _, gloss = line.partition("|")
        fields = head.split()
        count = int(fields[3], 16)
        words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        start = 5 + 2 * count
        pointers = [fields[start + 4 * n : start + 4 * n + 3] for n in range(int(fields[start - 1]))]
        parents = [target for symbol, target, kind in pointers if symbol in ("@", "@i") and kind == "n"]
        parts = [target for symbol, target, kind in pointers if symbol in ("%p", "%s") and kind == "n"]
        is_name = any(symbol == "@i" for symbol, _, _ in pointers)
        said = "; ".join(part.strip() for part in gloss.split(";") if '"' not in part)  # without its examples
        synsets[fields[0]] = Synset(words, parents, parts, fields[1], said, is_name)
    for line in _lines(WORDNET / "index.noun"):
        fields = line.split()
        word, pointers = fields[0].replace("_", " "), int(fields[3])
        counts[word] = int(fields[5 + pointers])
        senses |= {(word, id_): number for number, id_ in enumerate(fields[6 + pointers :])}
    return WordNet(synsets, senses, counts, _share_of_uses(senses))


def _share_of_uses(senses: dict[tuple[str, str], int]) -> dict[tuple[str, str], float]:
    """How large a share of a word's uses each of its meanings has, by the texts that WordNet's makers tagged.

    One use is added to each, or a meaning that they did not come across would have none.
    """
    tagged = {}
    for line in _lines(WORDNET / "cntlist.rev"):
        key, sense, count = line.split()
        word, _, place = key.partition("%")
        if place.startswith("1:"):  # a noun
            tagged[word.replace("_", " "), int(sense) - 1] = int(count)
    uses = {(word, id_): tagged.get((word, sense), 0) + 1 for (word, id_), sense in senses.items()}
    total: dict[str, int] = defaultdict(int)
    for (word, _), count in uses.items():
        total[word] += count
    return {(word, id_): count / total[word] for (word, id_), count in uses.items()}


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="latin-1").splitlines()
    return [line for line in lines if not line.startswith("  ")]  # their licence comes first, indented


def wordnet_licence() -> str:
    """The licence that WordNet's files begin with."""
    lines = (WORDNET / "data.noun").read_text(encoding="latin-1").splitlines()
    return "".join(f"{line.strip().partition(' ')[2].strip()}\n" for line in lines if line.startswith("  "))


def ancestors(synsets: dict[str, Synset], id_: str) -> list[str]:
    """A meaning, and all it is a kind of, the nearest first."""
    found = {id_: None}
    waiting = [id_]
    while waiting:
        for parent in synsets[waiting.pop(0)].parents:
            if parent not in found:
                found[parent] = None
                waiting.append(parent)
    return list(found)


class Tree:
    """What lies above and below each meaning."""

    def __init__(self, wordnet: WordNet, class_ids: list[str]) -> None:
        self.wordnet, self.class_ids = wordnet, class_ids
        self.above = {id_: ancestors(wordnet.synsets, id_) for id_ in wordnet.synsets}
        self.below: dict[str, list[int]] = defaultdict(list)  # the classes that a meaning has among its kinds
        for number, id_ in enumerate(class_ids):
            for ancestor in self.above[id_]:
                self.below[ancestor].append(number)
        self.known = {id_: numbers for id_, numbers in self.below.items() if len(numbers) <= TOO_WIDE}

    def names(self, id_: str) -> list[str]:
        """The words of a meaning that may be asked for: first and second senses, and all of a class."""
        synset, senses = self.wordnet.synsets[id_], self.wordnet.senses
        if id_ in self.class_ids:
            return synset.words
        return [
            word
            for word in synset.words
            if word == word.lower() and word.count(" ") < 3 and senses.get((word, id_), 9) <= 1
        ][:4]

    def first(self, word: str, file: str) -> str:
        """The meaning that a word stands for in one of WordNet's files."""
        return next(id_ for id_, it in self.wordnet.synsets.items() if it.words[0] == word and it.file == file)


def choose_words(tree: Tree, drawn: set[str], *, most: int = MOST_WORDS) -> list[tuple[str, str]]:
    """(word, meaning), by the order that the head of this file gives."""
    synsets, senses, counts, _ = tree.wordnet
    ranked: list[tuple[int, int, str, str]] = []
    for id_, synset in synsets.items():
        is_wide = id_ in tree.below and id_ not in tree.known
        if synset.is_name or is_wide or not (id_ in tree.known or synset.file in SEEN):
            continue
        if synset.file not in ("14", "19") and not is_physical(tree, id_):  # groups and weather are none, yet seen
            continue
        names = tree.names(id_)
        is_used = any(counts.get(word.lower(), 0) for word in names)
        if id_ not in tree.known and synset.file in ONLY_IF_USED and not is_used:
            continue
        for number, word in enumerate(names):
            sense, used = senses.get((word.lower(), id_), 9), counts.get(word.lower(), 0) > 0
            if id_ in tree.known:
                rank = 0
            elif not used and (number or sense) and " " in word:
                continue
            elif word in drawn and sense == 0:
                rank = 1
            elif used:
                rank = 2
            else:
                rank = 3 + SEEN[synset.file] + 3 * (" " in word) + 2 * (number > 0) + (sense > 0)
            ranked.append((rank, len(ranked), word, id_))
    return [(word, id_) for _, _, word, id_ in sorted(sorted(ranked)[:most], key=lambda entry: entry[1])]


def is_physical(tree: Tree, id_: str) -> bool:
    """Whether a meaning is of a thing that takes up room."""
    return "00001930" in tree.above[id_]  # WordNet's "physical entity"


def find_places(
    tree: Tree,
    entries: list[tuple[str, str]],
    encode: Encode,
    encode_glosses: Encode,
    classes: Tensor,
    drawn: dict[str, Tensor],
) -> Words:
    """The places of the words; `classes`, [1000, D], are those of ImageNet's, and `drawn` those of drawings."""
    meanings = list(dict.fromkeys(id_ for _, id_ in entries))
    guessed = dict(zip(meanings, guess_places(tree, meanings, encode, encode_glosses, classes), strict=True))
    person, clothing = tree.first("person", "03"), tree.first("clothing", "06")
    clothes = normalize(classes[tree.known[clothing]].mean(dim=0), dim=0)
    senses = tree.wordnet.senses
    drawings = {
        id_: [drawn[word.lower()] for word in tree.wordnet.synsets[id_].words if is_drawn(senses, drawn, word, id_)]
        for id_ in meanings
    }
    words, ids, places, bonus = [], [], [], []
    for word, id_ in entries:
        place = guessed[id_]
        if id_ in tree.known:
            mean = normalize(classes[tree.known[id_]].mean(dim=0), dim=0)
            place = mean if id_ in tree.class_ids else normalize(mean + place, dim=0)
        if person in tree.above[id_]:
            place = normalize(place + CLOTHES * clothes, dim=0)
        variants = {word: place}
        if drawings[id_]:
            look = normalize(torch.stack(drawings[id_]).sum(dim=0), dim=0)
            variants[word] = normalize(place + (DRAWN_WITH_CLASS if id_ in tree.known else DRAWN) * look, dim=0)
            if is_drawn(senses, drawn, word, id_):
                variants[DRAWING.format(word)] = normalize(place + DRAWN * look, dim=0)
        share = tree.wordnet.shares.get((word.lower(), id_), 1)
        for text, variant in variants.items():
            words.append(text)
            ids.append(id_)
            places.append(variant)
            bonus.append(FREQUENCY * math.log(share) + (0 if id_ in tree.known else GUESSED))
    return Words(words, ids, torch.stack(places), torch.tensor(bonus))


def is_drawn(senses: dict[tuple[str, str], int], drawn: dict[str, Tensor], word: str, id_: str) -> bool:
    """Whether drawings that bear this word show this meaning: it must be the first one."""
    return word.lower() in drawn and senses.get((word.lower(), id_)) == 0


def guess_places(tree: Tree, ids: list[str], encode: Encode, encode_glosses: Encode, classes: Tensor) -> Tensor:
    """[N, D]: kernel ridge regression on the classes."""
    theirs = likeness_to_classes(tree, ids, encode, encode_glosses)  # [N, 1000]
    own = likeness_to_classes(tree, tree.class_ids, encode, encode_glosses)
    weights = torch.linalg.solve(own + RIDGE * torch.eye(len(own)), classes)
    return normalize(theirs @ weights, dim=1)


def likeness_to_classes(tree: Tree, ids: list[str], encode: Encode, encode_glosses: Encode) -> Tensor:
    """[N, 1000], at most 1."""

    def of(some: list[str]) -> dict[str, Tensor]:
        names = {word: None for id_ in some for word in tree.names(id_)}
        vectors = dict(zip(names, encode(list(names)), strict=True))
        mean = [torch.stack([vectors[word] for word in tree.names(id_)]).mean(dim=0) for id_ in some]
        synsets = [tree.wordnet.synsets[id_] for id_ in some]
        return {
            "names": normalize(torch.stack(mean), dim=1),
            "gloss": encode([synset.gloss for synset in synsets]),
            "entry": encode_glosses([f"{', '.join(synset.words[:3])}: {synset.gloss}" for synset in synsets]),
        }

    theirs, own = of(ids), of(tree.class_ids)
    kernel = torch.zeros(len(ids), len(tree.class_ids))
    for kind, vectors in own.items():
        centre = vectors.mean(dim=0)
        cosines = normalize(theirs[kind] - centre, dim=1) @ normalize(vectors - centre, dim=1).T
        kernel += KINDS[kind] * ((cosines - 1) / WIDTH).exp()
    kernel += KINDS["tree"] * tree_vectors(tree, ids) @ tree_vectors(tree, tree.class_ids).T
    kernel += KINDS["words"] * word_vectors(tree, ids) @ word_vectors(tree, tree.class_ids).T
    return kernel / sum(KINDS.values())


def tree_vectors(tree: Tree, ids: list[str]) -> Tensor:
    """[N, M], unit length: the wider words above, the rarer among the classes the more."""
    columns = {id_: number for number, id_ in enumerate(i for i, classes in tree.below.items() if len(classes) > 1)}
    vectors = torch.zeros(len(ids), len(columns))
    for row, id_ in enumerate(ids):
        for ancestor in tree.above[id_]:
            if ancestor in columns:
                vectors[row, columns[ancestor]] = math.log(1001 / len(tree.below[ancestor])) ** 0.5
    return normalize(vectors, dim=1)


def word_vectors(tree: Tree, ids: list[str]) -> Tensor:
    """[N, M], unit length: words of glosses, by how few of the classes they stand at."""
    frequency: dict[str, int] = defaultdict(int)
    for id_ in tree.class_ids:
        for word in said_of(tree, id_):
            frequency[word] += 1
    columns = {word: number for number, word in enumerate(w for w, count in frequency.items() if count > 1)}
    vectors = torch.zeros(len(ids), len(columns))
    for row, id_ in enumerate(ids):
        for word, weight in said_of(tree, id_).items():
            if word in columns:
                vectors[row, columns[word]] = weight * math.log(len(tree.class_ids) / frequency[word])
    return normalize(vectors, dim=1)


def said_of(tree: Tree, id_: str) -> dict[str, float]:
    """The words that WordNet says of a meaning, and how near each stands."""
    synsets, said, weight = tree.wordnet.synsets, dict[str, float](), 1.0
    for step in range(DEPTH):
        synset = synsets[id_]
        for text in (synset.gloss, *synset.words):
            for word in content_words(text):
                said[word] = max(said.get(word, 0), weight)
        for part in synset.parts if step == 0 else ():
            for word in content_words(synsets[part].words[0]):
                said[word] = max(said.get(word, 0), 0.7 * weight)
        if not synset.parents:
            break
        id_, weight = synset.parents[0], weight * FADING
    return said


def content_words(text: str) -> list[str]:
    """The words of a text that mean a thing, without the s of a plural."""
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if word not in FILLERS and len(word) > 1]
    return [word[:-1] if re.search(r"[^s]s$", word) and len(word) > 3 else word for word in words]


def drawings_of(nouns: set[str]) -> dict[str, list[bytes]]:
    """Some drawings of each word that names emoji, or else icons, of the package; a face stands for its owner."""
    found: dict[str, list[tuple[bool, str, bytes]]] = defaultdict(list)
    for kind in ("emoji", "icons"):
        drawings = ShardSet(PICTOGRAMS / kind)
        for sample in map(drawings.__getitem__, range(len(drawings))):
            caption = captions_of(sample)[0].lower()
            word = caption if caption in nouns else caption.removesuffix(" face")
            if word in nouns and sample.picture:
                order = hashlib.blake2b(sample.key.encode()).hexdigest()
                found[word].append((kind == "icons", order, sample.picture))
    return {word: [picture for *_, picture in sorted(some)[:DRAWINGS]] for word, some in sorted(found.items())}


def compose_sentences(tree: Tree, words: Words) -> tuple[list[str], list[list[int]]]:
    """Sentences of one to four things, and the numbers of these among the words; the seed is fixed."""
    draw = random.Random(0)
    first = {}
    for number, (word, id_) in enumerate(zip(words.words, words.ids, strict=True)):
        if tree.wordnet.senses.get((word.lower(), id_)) == 0:
            first.setdefault(word, number)
    choices = sorted(first)
    weights = [
        (0.15 + math.log(1 + tree.wordnet.counts.get(word.lower(), 0)))
        * (0.3 if " " in word else 1)
        * (1 if words.ids[first[word]] in tree.known else 0.7)
        for word in choices
    ]

    def article(noun: str) -> str:
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

    def phrase(word: str) -> str:
        kind = draw.random()
        if kind < 0.25:
            return article(f"{draw.choice(COLOURS)} {word}")
        if kind < 0.4:
            return f"{draw.choice(['two', 'three', 'several', 'some'])} {word.removesuffix('s')}s"
        return f"the {word}" if kind < 0.5 else article(word)

    texts, things = [], []
    for _ in range(SENTENCES):
        chosen = draw.choices(choices, weights, k=draw.choices([1, 2, 3, 4], [0.15, 0.4, 0.3, 0.15])[0])
        phrases = [phrase(word) for word in chosen]
        text = draw.choice(ALONE).format(phrases[0]) if len(phrases) == 1 else phrases[0]
        for other in phrases[1:]:
            text += f" {draw.choice(DOING)} {other}"
        texts.append(f"{text[0].upper()}{text[1:]}." if draw.random() < 0.5 else text)
        things.append([first[word] for word in chosen])
    return texts, things
