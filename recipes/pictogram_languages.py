"""Give diptych-pictogram a text side for the languages of CLDR, on the picture side that it has.

    diptych train recipes/pictogram-styles.toml      # its head says what that needs
    python recipes/pictogram_languages.py runs/pictogram-styles/bundle pictograms-all diptych-pictogram

Needs `npm` on the PATH: names and keywords of emoji come from Unicode CLDR, by the packages below.

No picture is trained on. Each emoji gets a place among the features of its drawings: their mean and what the text tower
of the training made of the English name, then some steps of telling drawings apart. A new text tower learns from words
alone to put the emoji's name in any language there, a keyword to the mean of the emoji that have it, and the name of an
icon where that tower had it. Nothing of the held-out style is read.
"""

import argparse
import io
import itertools
import json
import math
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from build_pictograms import EMOJI, HELD_OUT, LICENCES, PACKAGES, EmojiWords, fetch, icon_captions, plain_hex
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diptych.data.tokenizer import Tokenizer
from diptych.export.one_file import write_graphs
from diptych.files import write_text
from diptych.model.clip import CLIP
from diptych.model.sentence_tower import PostBlock, SentenceTower, SentenceTowerConfig
from diptych.pairs.shards import ShardSet, captions_of
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle

CLDR = {"cldr-annotations-full": "48.2.0", "cldr-annotations-derived-full": "48.2.0"}
LANGUAGES = {  # locale of CLDR: share of the texts of a step
    "en": 0.17,
    **dict.fromkeys(("de", "fr", "es", "it", "pl", "pt", "ru", "tr", "zh", "ja", "ar", "hi"), 0.037),
    **dict.fromkeys(
        (
            "nl", "sv", "da", "no", "fi", "et", "lv", "lt", "uk", "be", "bg", "cs", "sk", "sl", "hr", "sr", "sr-Latn",
            "bs", "mk", "sq", "el", "hu", "ro", "ca", "gl", "eu", "ga", "cy", "is", "he", "fa", "ur", "az", "hy", "ka",
            "kk", "uz", "ky", "mn", "ps", "bn", "mr", "gu", "pa", "ta", "te", "kn", "ml", "si", "ne", "ko", "zh-Hant",
            "yue", "vi", "th", "id", "ms", "jv", "fil", "km", "lo", "my", "sw", "af", "am", "so", "zu", "ha", "yo",
        ),
        0.0047,
    ),
}  # fmt: skip
SENTENCES = {
    "en": (
        "a {}", "an {}", "the {}", "a picture of a {}", "a photo of a {}.", "a drawing of a {}", "an icon of a {}",
        "an emoji of a {}", "{} icon", "{} emoji", "icon of {}", "picture of {}", "the {} sign", "a {} symbol", "my {}",
        "this is a {}.",
    ),
    "de": ("ein {}", "eine {}", "der {}", "die {}", "das {}", "ein Bild von {}", "ein Foto von {}.", "Symbol: {}"),
    "fr": ("un {}", "une {}", "le {}", "la {}", "une image de {}", "une photo de {}.", "un dessin de {}", "icône {}"),
    "es": (
        "un {}", "una {}", "el {}", "la {}", "una imagen de {}", "una foto de {}.", "un dibujo de {}", "icono de {}",
    ),
    "it": ("un {}", "una {}", "il {}", "la {}", "un'immagine di {}", "una foto di {}.", "un disegno di {}", "icona {}"),
    "pl": ("to jest {}", "obraz: {}", "zdjęcie: {}", "rysunek: {}", "ikona {}", "symbol {}"),
    "pt": ("um {}", "uma {}", "o {}", "a {}", "uma imagem de {}", "uma foto de {}.", "um desenho de {}", "ícone de {}"),
    "ru": ("это {}", "изображение: {}", "фото: {}", "рисунок: {}", "иконка {}", "эмодзи {}"),
    "tr": ("bir {}", "{} resmi", "bir {} fotoğrafı", "{} simgesi", "{} çizimi", "bu bir {}"),
    "zh": ("一个{}", "一张{}的图片", "一张{}的照片", "{}图标", "{}的画", "这是{}"),
    "ja": ("{}の絵", "{}の写真", "{}のアイコン", "{}の絵文字", "これは{}です", "{}マーク"),
    "ar": ("صورة {}", "رسم {}", "أيقونة {}", "رمز {}", "هذا {}", "هذه {}"),
    "hi": ("एक {}", "{} की तस्वीर", "{} का चित्र", "{} की फ़ोटो", "यह {} है", "{} आइकन"),
}  # fmt: skip
ANYWHERE = ("{} emoji", "emoji {}", "emoji: {}")
PLAIN = 0.6  # share of the names that stand by themselves
SHARES = {"names": 0.6, "tones": 0.1, "keywords": 0.3}  # of a language's texts
ICONS = 0.5  # beside these, in English

OF_TEXT = 0.5  # what the text of the training counts in the place of an emoji, beside the mean of the drawings
PLACE_STEPS, PLACE_BATCH, PLACE_RATE, PLACE_SCALE = 400, 1024, 1e-3, 15.0

VOCABULARY, CONTEXT_LENGTH, WIDTH = 22_000, 32, 192
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"
# Words with the mark of a beginning; each Chinese character by itself; single digits; runs of signs.
WORDS = r"▁?(?:(?!\p{Han})[\p{L}\p{M}\u200c\u200d])+|\p{Han}|▁?\p{N}|▁?[^▁\p{L}\p{M}\p{N}]+"
RARE = 2  # words that a letter must occur in, unless it is in a name

BATCH_SIZE, WARMUP = 1024, 100
DOUBT = 2.0  # texts of no place that each token begins with
LITTLE = 0.5  # beside the length of a token that tells as much as most
SHARPNESS = 15.0  # of the memory, at the start
AWAY = 4.0  # what the distance counts beside telling names apart
LOGIT_SCALE = 23.0  # on cosines; the least loss on Emoji One 4, whole numbers asked: as sure as it is right there
AT_ONCE = 8  # batches that are drawn together and cut by length


@dataclass(frozen=True, kw_only=True)
class Course:
    """One descent, from a rate of its own down to 0."""

    steps: int
    learning_rate: float
    as_bag: float  # share of the steps without the block, which are cheap
    english: float  # what the texts of a language count, times its share
    others: float  # likewise, beyond the first 13


COURSES = (
    Course(steps=2400, learning_rate=6e-3, as_bag=0.8, english=1.0, others=1.0),
    Course(steps=1000, learning_rate=3e-3, as_bag=0.0, english=1.0, others=0.35),
    Course(steps=900, learning_rate=1.5e-3, as_bag=0.0, english=8.0, others=1.0),
)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Texts of one language, and the row of the places that each belongs to."""

    names: list[tuple[str, int]]
    tones: list[tuple[str, int]]  # names that tell one
    keywords: list[tuple[str, tuple[int, ...]]]  # of no name; the rows of all emoji that have it

    def texts(self) -> list[str]:
        """All of them."""
        return [text for text, _ in (*self.names, *self.tones, *self.keywords)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what recipes/pictogram-styles.toml came to")
    parser.add_argument("corpus", type=Path, help="a folder that build_pictograms.py --full all wrote")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    before = Bundle.load(arguments.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in (PACKAGES | CLDR).items()}
        emoji = EmojiWords(folders["emojibase-data"])
        names = {code: entry["label"].lower() for code, entry in emoji.by_hex.items()}
        plain = len(names)
        names |= {code: label for code, (_, label) in emoji.toned.items() if code not in names}
        rows = {code: row for row, code in enumerate(names)}
        words = {language: read_words(folders, language, rows, plain) for language in LANGUAGES}
        words["en"] = with_english(words["en"], folders["emojibase-data"], names, rows, plain)
        licence = (folders["cldr-annotations-full"] / "LICENSE").read_text(encoding="utf-8")
        icons = sorted(set(read_icons(folders["@iconify/json"])) - set(words["en"].texts()))
    places = find_places(before, arguments.corpus, list(names.values()))
    print(f"{len(names):,} emoji, {sum(len(some.texts()) for some in words.values()):,} texts, {len(icons):,} icons")
    tokenizer = learn_tokenizer(words, icons)
    config = SentenceTowerConfig(
        context_length=CONTEXT_LENGTH, vocab_size=tokenizer.vocab_size, width=WIDTH, layers=1, heads=3, mlp_width=512,
        head_width=512, anchors=plain, activation="gelu", layer_norm_eps=1e-5, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = with_text_tower(before.model, config)
    bundle = replace(before, model=model, tokenizer=tokenizer)
    icon_places = torch.from_numpy(before.encode_texts(icons, truncate=True))
    pools, means = find_pools(words, icons, places, tokenizer)
    places = torch.cat([places, icon_places, means])
    assert isinstance(model.text, SentenceTower)
    begin(model.text, pools, places)
    for seed, course in enumerate(COURSES):
        teach(bundle, pools, places, course, seed)
    model.logit_scale.data.fill_(math.log(LOGIT_SCALE))  # that of the training is of the text tower that it had
    about = replace(
        before.about,
        source="diptych recipes diptych-pictogram, pictogram_words.py, pictogram-styles, pictogram_languages.py",
        data=f"{before.about.data}; names and keywords of emoji in {len(LANGUAGES)} languages, Unicode CLDR",
    )
    replace(bundle, about=about).save(arguments.out, dtype=torch.int8)
    drawings = (arguments.corpus / "CREDITS.md").read_text(encoding="utf-8")
    write_text(arguments.out / "CREDITS.md", drawings + credits(licence))
    write_graphs(arguments.out)


def credits(licence: str) -> str:
    """What is owed for the words."""
    packages = " and ".join(f"`{name}` {version}" for name, version in CLDR.items())
    return (
        "\n# Credits for the words\n\n"
        f"Names and keywords of emoji in {len(LANGUAGES)} languages are those of Unicode CLDR, by the npm packages\n"
        f"{packages}, under this licence:\n\n```text\n{licence.strip()}\n```\n"
    )


def read_words(folders: Mapping[str, Path], language: str, rows: Mapping[str, int], plain: int) -> Words:
    """What CLDR calls the emoji in one language, and its keywords of those without a skin tone."""
    names, tones, keywords = [], [], defaultdict(set)
    for package, key in (
        ("cldr-annotations-full", "annotations"),
        ("cldr-annotations-derived-full", "annotationsDerived"),
    ):
        path = folders[package] / key / language / "annotations.json"
        for sign, said in json.loads(path.read_text(encoding="utf-8"))[key].get("annotations", {}).items():
            row = rows.get("-".join(f"{ord(letter):04x}" for letter in sign if letter != "\ufe0f"))
            if row is None:
                continue
            (names if row < plain else tones).extend((text.lower(), row) for text in said.get("tts", ())[:1])
            if row < plain:
                for text in said.get("default", ()):
                    keywords[text.lower()].add(row)
    known = {text for text, _ in names}
    return Words(
        names=sorted(names),
        tones=sorted(tones),
        keywords=sorted((text, tuple(sorted(of))) for text, of in keywords.items() if text not in known),
    )


def with_english(words: Words, folder: Path, names: Mapping[str, str], rows: Mapping[str, int], plain: int) -> Words:
    """English also has the names of the training, tags, and what chat programs call the emoji."""
    keywords: dict[str, set[int]] = defaultdict(set, {text: set(of) for text, of in words.keywords})
    for entry in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        for tag in entry.get("tags", ()):
            keywords[tag.lower()].add(rows[plain_hex(entry["hexcode"])])
    for path in sorted((folder / "en" / "shortcodes").glob("*.json")):
        for code, said in json.loads(path.read_text(encoding="utf-8")).items():
            if (row := rows.get(plain_hex(code), plain)) < plain:
                for text in [said] if isinstance(said, str) else said:
                    keywords[text.replace("_", " ").replace("-", " ")].add(row)
    own = [(text, rows[code]) for code, text in names.items()]
    known = {text for text, _ in own}
    return Words(
        names=sorted({*words.names, *own[:plain]}),
        tones=sorted({*words.tones, *own[plain:]}),
        keywords=sorted((text, tuple(sorted(of))) for text, of in keywords.items() if text not in known),
    )


def read_icons(folder: Path) -> Iterable[str]:
    """What the names of icons say, those of sets that were trained on."""
    about = json.loads((folder / "collections.json").read_text(encoding="utf-8"))
    for prefix, said in about.items():
        if prefix != HELD_OUT and prefix not in EMOJI and said["license"].get("spdx") in LICENCES:
            data = json.loads((folder / "json" / f"{prefix}.json").read_text(encoding="utf-8"))
            for name in data["icons"]:
                yield from icon_captions(name)


def find_places(before: Bundle, corpus: Path, names: Sequence[str]) -> Tensor:
    """[C, D], where the pictures of each emoji lie."""
    before.model.to(memory_format=torch.channels_last)
    row_of = {name: row for row, name in enumerate(names)}
    features, rows = [], []
    for part in ("emoji", "skin-tones"):
        samples = ShardSet(corpus / part)
        found = [samples[number] for number in range(len(samples))]
        pixels = np.stack([before.preprocess.pixels(Image.open(io.BytesIO(one.picture or b""))) for one in found])
        features += [before.encode_fast(some) for some in np.split(pixels, range(128, len(pixels), 128))]
        rows += [[row_of[text] for text in captions_of(sample) if text in row_of] for sample in found]
    pictures = torch.from_numpy(np.concatenate(features))  # [N, D]
    places = torch.zeros(len(names), pictures.shape[1])
    for picture, of in zip(pictures, rows, strict=True):
        places[of] += picture
    said = torch.from_numpy(before.encode_texts(names, truncate=True))
    start = normalize((1 - OF_TEXT) * normalize(places, dim=1) + OF_TEXT * said, dim=1)
    targets = torch.tensor([of[0] for of in rows])
    return told_apart(start, pictures, targets)


def told_apart(start: Tensor, pictures: Tensor, targets: Tensor) -> Tensor:
    """Places moved so that each picture is nearest to its own: [C, D] from [C, D], [N, D] and [N]."""
    places = torch.nn.Parameter(start.clone())
    optimizer, seeded = torch.optim.AdamW([places], lr=PLACE_RATE, weight_decay=0.0), generator(0)
    for _ in range(PLACE_STEPS):
        some = torch.randint(len(pictures), (PLACE_BATCH,), generator=seeded)
        loss = F.cross_entropy(PLACE_SCALE * pictures[some] @ normalize(places, dim=1).T, targets[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return normalize(places.detach(), dim=1)


def learn_tokenizer(words: Mapping[str, Words], icons: Sequence[str]) -> Tokenizer:
    """Byte-pair merges over letters, of the words of all languages; letters that are rare have no token."""
    backend = rules({}, [])
    clean = backend.normalizer.normalize_str
    texts = [clean(text) for some in words.values() for text in some.texts()]
    named = {letter for some in words.values() for text, _ in some.names for letter in clean(text)}
    counts = Counter(letter for text in sorted(set(texts)) for letter in set(text))
    letters = sorted({letter for letter, count in counts.items() if count >= RARE or letter in named} - {" "})
    known = set(letters)
    texts += [clean(text) for text in icons]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=2, special_tokens=[PAD, END, UNKNOWN, *letters], show_progress=False
    )
    learner = rules({}, [])
    learner.normalizer = None
    learner.train_from_iterator((text for text in texts if known.issuperset(text)), trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [(first, second) for first, second in learnt["merges"]]
    return Tokenizer(rules(learnt["vocab"], merges), context_length=CONTEXT_LENGTH, pad_token_id=0)


def rules(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """A tokenizer around a vocabulary: lower case, a mark where a word begins, one token for what it does not know."""
    fresh = vocab or {PAD: 0, END: 1, UNKNOWN: 2}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=fresh, merges=merges, unk_token=UNKNOWN, fuse_unk=True))
    backend.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFKC(),
            tokenizers.normalizers.Lowercase(),
            tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            tokenizers.normalizers.Strip(),
            tokenizers.normalizers.Replace(" ", "▁"),
            tokenizers.normalizers.Prepend("▁"),
        ]
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True)
    backend.decoder = tokenizers.decoders.Metaspace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, fresh[END])]
    )
    backend.add_special_tokens([PAD, END, UNKNOWN])
    return backend


def with_text_tower(before: CLIP, config: SentenceTowerConfig) -> CLIP:
    """The model with another text tower, freshly drawn."""
    model = CLIP(replace(before.config, text=config), generator=generator(0))
    kept = {name: tensor for name, tensor in before.state_dict().items() if not name.startswith("text.")}
    model.load_state_dict(kept, strict=False)
    return model


@torch.no_grad()
def begin(text: SentenceTower, pools: Sequence["Pool"], places: Tensor) -> None:
    """Set the tower to what needs no descent: a token lies where the texts with it do, the memory compares places.

    Its width holds the main directions of the places, and one more entry that says how little a token tells.
    """
    memory, width = text.head.memory, text.token_embedding.embedding_dim
    assert memory is not None
    named = places[: len(memory.values)]
    middle = named.mean(dim=0)
    basis = torch.linalg.eigh((named - middle).T @ (named - middle)).eigenvectors[:, 1 - width :]  # [D, W - 1]
    basis = basis * basis.sum(dim=0).sign()  # an eigenvector's sign is nobody's choice
    sums = torch.zeros(text.token_embedding.num_embeddings, width - 1)
    counts = torch.full((len(sums), 1), DOUBT)
    for pool in pools:
        if pool.is_plain:
            tokens = torch.from_numpy(pool.tokens.astype(np.int64))  # [N, L]
            lies = (places[torch.from_numpy(pool.rows)] - middle) @ basis  # [N, W - 1]
            for column in tokens[:, : int((tokens != 0).sum(dim=1).max())].T:
                sums.index_add_(0, column, lies)
                counts.index_add_(0, column, torch.ones(len(column), 1))
    means = sums / counts  # [V, W - 1]
    means /= means.norm(dim=1).quantile(0.5)
    text.token_embedding.weight.copy_(torch.cat([means, torch.full((len(means), 1), LITTLE)], dim=1) / 2)
    text.position_embedding.zero_()
    memory.values.copy_(named)
    memory.query.weight.copy_(torch.eye(width))
    memory.keys.weight.zero_()
    memory.keys.weight[:, : width - 1] = SHARPNESS * normalize((named - middle) @ basis, dim=1)
    for block in text.blocks:  # which changes nothing at first
        assert isinstance(block, PostBlock)
        block.attention.out_projection.weight.zero_()
        block.mlp.down.weight.zero_()
    text.head.projection.weight.zero_()
    text.head.projection.weight[:, : width - 1] = 0.5 * basis / width**0.5


def teach(bundle: Bundle, pools: Sequence["Pool"], places: Tensor, course: Course, seed: int) -> None:
    """Fit the text tower to the places that texts should have, first without its block, as a bag of words."""
    text = bundle.model.train().text
    assert isinstance(text, SentenceTower)
    steps, rate = course.steps, course.learning_rate
    optimizer = torch.optim.AdamW(text.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=min(WARMUP, steps // 4) / steps, cycle_momentum=False
    )
    for step, (tokens, rows) in enumerate(itertools.islice(batches(pools, course, seed), steps), 1):
        wanted = places[rows]
        rows = rows.where(rows < len(text.head.memory.values), -1)  # the memory holds no tones, keywords and icons
        with torch.autocast("cpu", torch.bfloat16):
            features, known = placed(
                text, as_bag(text, tokens) if step <= course.as_bag * steps else text.trunk(tokens)
            )
            away = 1 - (normalize(features.float(), dim=1) * wanted).sum(dim=1)
            mixed = F.cross_entropy(known.float(), rows, ignore_index=-1)
        optimizer.zero_grad()
        (AWAY * away.mean() + mixed).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:,}/{steps:,}  1 - cosine {away.mean().item():.4f}  {mixed.item():.3f}", flush=True)
    bundle.model.eval()


def as_bag(text: SentenceTower, tokens: Tensor) -> Tensor:
    """The tower's trunk if its block changed nothing: [B, W] from [B, L]."""
    x = text.ln_embedding(text.token_embedding(tokens) + text.position_embedding[: tokens.shape[1]])
    for block in text.blocks:
        assert isinstance(block, PostBlock)
        x = block.ln_mlp(block.ln_attention(x))
    weights = (tokens != text.pad_token_id)[..., None].to(x)
    return (x * weights).sum(dim=1) / weights.sum(dim=1)


def placed(text: SentenceTower, trunk: Tensor) -> tuple[Tensor, Tensor]:
    """What the tower's head makes of its trunk, [B, D], and the likeness to each emoji of its memory, [B, N]."""
    head, direction = text.head, normalize(trunk, dim=1)
    assert head.up is not None
    assert head.down is not None
    assert head.memory is not None
    logits = head.memory.keys(normalize(head.memory.query(direction), dim=1))
    x = direction * trunk.shape[1] ** 0.5
    mixed = normalize(logits.softmax(dim=1) @ head.memory.values, dim=1)
    return head.projection(x) + head.down(F.gelu(head.up(x))) + mixed, logits


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Texts of one kind in one language, as tokens [N, L], with their rows among the places [N] and lengths [N]."""

    share: float  # of the texts of a step
    language: str
    tokens: np.ndarray
    rows: np.ndarray
    is_plain: bool  # not in sentences

    @classmethod
    def of(cls, texts: Sequence[tuple[str, int]], tokenizer: Tokenizer, **facts: Any) -> "Pool":
        """Of texts with their rows."""
        tokens = tokenizer.encode([text for text, _ in texts], truncate=True)
        rows = np.array([row for _, row in texts])
        return cls(tokens=tokens.astype(np.int16), rows=rows, **facts)


def batches(pools: Sequence[Pool], course: Course, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """[B, L] tokens and [B] rows without end; texts of a batch are about as long as one another."""
    draw = np.random.default_rng(seed)
    factors = {language: 1.0 if language in SENTENCES else course.others for language in LANGUAGES}
    factors["en"] = course.english
    shares = np.array([pool.share * factors[pool.language] for pool in pools])
    starts = np.cumsum([0, *(len(pool.rows) for pool in pools[:-1])])
    sizes = np.array([len(pool.rows) for pool in pools])
    tokens, rows = np.concatenate([pool.tokens for pool in pools]), np.concatenate([pool.rows for pool in pools])
    lengths = (tokens != 0).sum(axis=1)
    while True:
        of = draw.choice(len(pools), AT_ONCE * BATCH_SIZE, p=shares / shares.sum())
        some = starts[of] + (draw.random(len(of)) * sizes[of]).astype(int)
        some = some[lengths[some].argsort(kind="stable")].reshape(AT_ONCE, BATCH_SIZE)
        for batch in draw.permutation(some):
            longest = lengths[batch].max()
            yield torch.from_numpy(tokens[batch, :longest].astype(np.int64)), torch.from_numpy(rows[batch])


def find_pools(
    words: Mapping[str, Words], icons: Sequence[str], places: Tensor, tokenizer: Tokenizer
) -> tuple[list[Pool], Tensor]:
    """The texts of all languages, plain and in sentences, and [K, D], the places of keywords, behind the others."""
    pools, means, draw = [], [], random.Random(0)
    for language, share in LANGUAGES.items():
        some = words[language]
        keywords = []
        for text, of in some.keywords:
            keywords.append((text, of[0] if len(of) == 1 else len(places) + len(icons) + len(means)))
            if len(of) > 1:
                means.append(normalize(places[list(of)].mean(dim=0), dim=0))
        texts = {"names": some.names, "tones": some.tones, "keywords": keywords}
        if language == "en":
            texts["icons"] = [(text, len(places) + number) for number, text in enumerate(icons)]
        kinds = SHARES | ({"icons": ICONS} if language == "en" else {})
        for kind, part in kinds.items():
            sentences = SENTENCES.get(language, ANYWHERE)
            repeats = len(sentences) if kind == "names" and language in SENTENCES else 1
            framed = [
                (draw.choice(sentences).replace("{}", text), row) for text, row in texts[kind] for _ in range(repeats)
            ]
            for some_texts, within, is_plain in ((texts[kind], PLAIN, True), (framed, 1 - PLAIN, False)):
                of_step = share * part * within / sum(kinds.values())
                facts = {"share": of_step, "language": language, "is_plain": is_plain}
                pools.append(Pool.of(some_texts, tokenizer, **facts))
    return pools, torch.stack(means)


if __name__ == "__main__":
    main()
