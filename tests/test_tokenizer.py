import gzip
import json
import os
import pickle
import re
import string
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.tokenizer import END, START, Tokenizer
from diptych.errors import ConfigError, DataError, TextError, WeightsError
from siglip_standins import CAPTIONS as SIGLIP_CAPTIONS
from siglip_standins import TEXTS as SIGLIP_TEXTS
from siglip_standins import write_siglip2_tokenizer, write_siglip_tokenizer

PUBLISHED = Path(__file__).parents[2] / "shared/reference/clip-bpe/bpe_simple_vocab_16e6.txt.gz"
needs_published = pytest.mark.skipif(not PUBLISHED.exists(), reason="CLIP's published merges are not on this machine")

CAPTIONS = [
    f"{photo} of {article} {size} {thing}."
    for photo in ("a photo", "a blurry photo", "A Drawing", "it's a sketch", "un café noir")
    for article in ("a", "the", "my")
    for size in ("small", "large", "weird", "2021")
    for thing in ("cat", "dog", "house", "boxer, a type of pet", "日本 flag", "panda 🐼")
]
TEXTS = [
    "",
    "  a\tphoto \n of  a　cat ",
    "A Photo Of The DOG!",
    "it's what they've said: I'd, we'll, you're, can't, i'm; 'tis",
    "don’t curl “quotes”",
    "in 2021 there were 1,234.5 cats ½ ² Ⅷ",
    "café naïve Ångström e\u0301 İstanbul ΣΊΣΥΦΟΣ straße",
    "日本語の文章 한국어 العربية हिन्दी ไทย",
    "👩‍👩‍👧‍👦 family 🐼🐼 🇨🇭 ☕️",
    "!!! ... --- <b>bold</b> </w> a_b snake_case #tag @you https://x.org/a?b=1",
    "zero\u200bwidth nbsp\u00a0soft\u00adhyphen \x00 \x07",
    f"{START} named {END} in the text",
    "<|STARTOFTEXT|> not quite",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocab_size=570, context_length=120)


@pytest.fixture(scope="module")
def published() -> Tokenizer:
    return Tokenizer.from_merges(PUBLISHED)


def unpadded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of one text, cut to the context, without padding."""
    (encoding,) = tokenizer._encodings([text])
    return [token for token, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]


def foreign(merges: list[tuple[str, str]]) -> transformers.CLIPTokenizer:
    """The CLIP tokenizer of `transformers` over CLIP's id layout, built here from the merges alone."""
    stand_ins = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(code) for code in [*stand_ins, *range(256, 256 + 256 - len(stand_ins))]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), START, END]
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges)  # pyright: ignore[reportArgumentType]


def merges_of(folder: Path, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    tokenizer.save(folder)
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    return [(first, second) for first, second in map(str.split, lines)]


def plain_twin(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding as CLIP describes it, on whole strings: slow and short. For text without rare letters."""
    stand_ins = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in stand_ins]
    letter = {byte: chr(byte) for byte in stand_ins} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    tokens = []
    text = unicodedata.normalize("NFC", text).lower()
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", text):
        symbols = [letter[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        for first, second in merges:  # rank by rank, each wherever it fits, from the left
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == (first, second):
                    symbols[i : i + 2] = [first + second]
                i += 1
        tokens += symbols
    return tokens


@needs_published
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a cat", "49406 320 1125 539 320 2368 49407"),
        ("a dog", "49406 320 1929 49407"),
        (
            "a photo of a 2021 boxer, a type of pet.",
            "49406 320 1125 539 320 273 271 273 272 15363 267 320 3877 539 3703 269 49407",
        ),
    ],
)
def test_published_merges_give_the_published_ids(published, text, expected):
    tokens = published.encode([text])[0].tolist()
    wanted = [int(token) for token in expected.split()]
    assert tokens == wanted + [0] * (77 - len(wanted))


@needs_published
def test_published_merges_tokenise_as_transformers_does(published):
    with gzip.open(PUBLISHED, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1:48_895]
    other = foreign([(first, second) for first, second in map(str.split, lines)])
    assert published.vocab_size == len(other) == 49_408
    assert (published.start_token_id, published.end_token_id) == (49_406, 49_407)
    for text in [*TEXTS, *CAPTIONS[:20]]:
        assert unpadded(published, text) == other(text, truncation=True, max_length=77)["input_ids"], text


def test_html_is_unescaped_twice_and_space_does_not_matter(trained):
    wanted = trained.encode(["cat & dog <b>"])
    assert np.array_equal(trained.encode(["  Cat &amp;amp; \n\n DOG &lt;b&gt; "]), wanted)


def test_letters_and_accents_are_one_in_either_form(trained):
    assert np.array_equal(trained.encode(["cafe\u0301"]), trained.encode(["café"]))


def test_tokens_equal_the_plain_twin(trained, tmp_path):
    merges = merges_of(tmp_path, trained)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    for text in [*CAPTIONS[::9], "it's 1,234 naïve CATS!?", "日本 🐼 under_score 'tis we'll"]:
        tokens = [START, *plain_twin(text, merges), END]
        assert unpadded(trained, text) == [vocab[token] for token in tokens], text


def test_trained_folder_opens_in_transformers_with_the_same_ids(trained, tmp_path):
    trained.save(tmp_path)
    for kind in ("CLIPTokenizer", "CLIPTokenizerFast", "AutoTokenizer"):
        other = getattr(transformers, kind).from_pretrained(tmp_path)
        assert other.model_max_length == 120
        assert len(other) == trained.vocab_size
        for text in TEXTS:
            expected = other(text, truncation=True, max_length=120)["input_ids"]
            assert unpadded(trained, text) == expected, text
        padded = other(["a cat"], padding="max_length")["input_ids"][0]
        assert len(padded) == 120
        assert other.decode(other("a photo of the cat")["input_ids"], skip_special_tokens=True) == "a photo of the cat"


@pytest.fixture(scope="module")
def both(trained, tmp_path_factory):
    return trained, foreign(merges_of(tmp_path_factory.mktemp("both"), trained))


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(max_size=20).filter(lambda text: "&" not in text and "<|" not in text)
)  # nor a special token's name
def test_any_text_gets_the_ids_of_transformers_and_no_unknown_token(both, text):
    ours, other = both
    tokens = unpadded(ours, text)
    assert tokens == other(text, truncation=True, max_length=120)["input_ids"]
    assert tokens.count(ours.end_token_id) == 1  # an unknown symbol would show as the end token


def test_every_byte_has_a_token_and_the_end_token_the_highest_id(trained):
    vocab = trained._backend.get_vocab()
    assert sorted(vocab.values()) == list(range(570))
    assert trained.vocab_size == 570
    assert (trained.start_token_id, trained.end_token_id) == (568, 569)
    letters = {token for token in vocab if len(token) == 1}
    assert len(letters) == 256
    assert all(letter + "</w>" in vocab for letter in letters)


def test_training_is_the_same_in_any_process_and_any_order(trained, tmp_path):
    script = (
        "import json, sys; from pathlib import Path; from diptych.data.tokenizer import Tokenizer\n"
        "texts = json.loads(sys.stdin.read())\n"
        "Tokenizer.train(texts, vocab_size=570, context_length=120).save(Path(sys.argv[1]))\n"
    )
    for seed, texts in (("1", CAPTIONS), ("2", CAPTIONS[::-1])):
        arguments = [sys.executable, "-c", script, str(tmp_path / seed)]
        env = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        subprocess.run(arguments, input=json.dumps(texts), text=True, check=True, env=env, timeout=300)
    trained.save(tmp_path / "here")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        assert len({(tmp_path / folder / name).read_bytes() for folder in ("1", "2", "here")}) == 1, name


def test_training_stops_early_when_no_pair_occurs_twice():
    # "ab" occurs twice, in "ab" and "ab": one merge, a + b</w>. "xy" occurs once.
    tokenizer = Tokenizer.train(["ab ab xy"], vocab_size=2_000, context_length=8)
    assert tokenizer.vocab_size == 512 + 1 + 2
    a, b_end = ord("a") - ord("!"), 256 + ord("x") - ord("!")
    assert tokenizer.encode(["ab ax"])[0].tolist() == [513, 512, a, b_end, 514, 0, 0, 0]


def test_truncation_keeps_the_end_token_in_the_last_place(trained):
    text = "1 2 3 4 5 6 7 8 9 0"
    short = Tokenizer(trained._backend.from_str(trained._backend.to_str()), context_length=6)
    full = unpadded(trained, text)
    tokens = short.encode(["7", text], truncate=True)
    assert tokens.dtype == np.int64
    assert tokens[1].tolist() == [*full[:5], trained.end_token_id]
    assert tokens[0].tolist() == [full[0], full[7], full[-1], 0, 0, 0]
    assert short.count_too_long([text, "7", "1 2 3 4", "1 2 3 4 5"]) == 2
    assert trained.count_too_long([text]) == 0


def test_the_same_vocabulary_for_another_length_leaves_the_first_as_it_was(trained):
    text = CAPTIONS[0] * 20
    long = trained.encode([text], truncate=True)
    short = trained.with_context_length(5)
    (row,) = short.encode([text], truncate=True)
    assert row.tolist() == [*long[0, :4].tolist(), trained.end_token_id]
    assert short.encode(["a"]).shape == (1, 5)
    assert np.array_equal(trained.encode([text], truncate=True), long)
    assert trained.with_context_length(trained.context_length).fingerprint() == trained.fingerprint()
    with pytest.raises(ConfigError, match="context_length must be at least 3"):
        trained.with_context_length(2)


def test_a_text_that_is_too_long_is_named_with_its_length(trained):
    with pytest.raises(TextError, match=r"fit 120 tokens.* Got 202 tokens: '1 1 1 .* \.\.\.\. Shorten it"):
        trained.encode(["fine", "1 " * 200])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a cat", "Got one string, 'a cat': put it in a list"),
        (["a cat", None], "must be a string. Got None, NoneType"),
        (["\ud83d"], "half a surrogate pair"),
    ],
)
def test_what_is_not_a_list_of_texts_is_refused(trained, texts, message):
    for use in (
        trained.encode,
        trained.count_too_long,
        lambda texts: Tokenizer.train(texts, vocab_size=570, context_length=8),
    ):
        with pytest.raises(TextError, match=message):
            use(texts)


def test_no_texts_are_an_empty_batch(trained):
    assert trained.encode([]).shape == (0, 120)


def test_decoding_ends_at_the_first_end_token(trained):
    assert trained.decode(trained.encode(["A  Photo of the café 日本!"])[0]) == "a photo of the café 日本 !"
    assert trained.decode(trained.encode([""])[0]) == ""


def test_a_saved_tokenizer_loads_as_it_was(trained, tmp_path):
    trained.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint() == trained.fingerprint()
    assert loaded.context_length == 120
    (tmp_path / "tokenizer.json").unlink()
    from_parts = Tokenizer.load(tmp_path, context_length=30)
    from_merges = Tokenizer.from_merges(tmp_path / "merges.txt", context_length=30)
    assert from_parts.context_length == 30
    for text in TEXTS:
        assert unpadded(loaded, text) == unpadded(trained, text)
        assert unpadded(from_parts, text) == unpadded(from_merges, text)
    copy = pickle.loads(pickle.dumps(trained))
    assert np.array_equal(copy.encode(CAPTIONS), trained.encode(CAPTIONS))


def test_fingerprint_tells_context_padding_and_merges_apart(trained, tmp_path):
    trained.save(tmp_path)
    others = [
        Tokenizer.load(tmp_path, context_length=121),
        Tokenizer.train(CAPTIONS, vocab_size=569, context_length=120),
        Tokenizer(Tokenizer.load(tmp_path)._backend, context_length=120, pad_token_id=569),
    ]
    assert len({tokenizer.fingerprint() for tokenizer in [trained, *others]}) == 4


def test_a_folder_of_transformers_pads_with_its_own_token(trained, tmp_path):
    other = foreign(merges_of(tmp_path / "ours", trained))
    other.model_max_length = 16
    other.save_pretrained(tmp_path / "theirs")
    loaded = Tokenizer.load(tmp_path / "theirs")
    expected = other(["a photo of a cat!"], padding="max_length")["input_ids"]
    assert loaded.encode(["a photo of a cat!"]).tolist() == expected
    assert loaded.pad_token_id == loaded.end_token_id


def test_missing_and_broken_files_are_named(trained, tmp_path):
    with pytest.raises(WeightsError, match=r"must hold tokenizer.json, or vocab.json and merges.txt"):
        Tokenizer.load(tmp_path)
    trained.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="Pass context_length"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer.json is not a tokenizer"):
        Tokenizer.load(tmp_path, context_length=120)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(WeightsError, match="merges and vocabulary do not fit"):
        Tokenizer.load(tmp_path, context_length=120)
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(WeightsError, match=r"must hold a JSON object. Got list"):
        Tokenizer.load(tmp_path, context_length=120)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer_config.json must be JSON"):
        Tokenizer.load(tmp_path)


def test_a_broken_list_of_merges_is_named(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\na b c\n")
    with pytest.raises(WeightsError, match=r"one merge. Got 'a b c'"):
        Tokenizer.from_merges(tmp_path / "merges.txt")
    (tmp_path / "merges.txt").write_text("ab c\n")
    with pytest.raises(WeightsError, match="do not fit"):
        Tokenizer.from_merges(tmp_path / "merges.txt")
    (tmp_path / "merges.gz").write_bytes(gzip.compress(b"a b\n" * 100)[:-12])
    with pytest.raises(WeightsError, match=r"merges.gz cannot be read"):
        Tokenizer.from_merges(tmp_path / "merges.gz")


def test_a_tokenizer_without_an_end_is_refused(trained):
    from tokenizers.processors import TemplateProcessing

    backend = trained._backend.from_str(trained._backend.to_str())
    backend.post_processor = TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 568)])
    with pytest.raises(WeightsError, match=r"puts <\|startoftext\|> before and nothing after: is it of another model"):
        Tokenizer(backend, context_length=12)
    backend.post_processor = TemplateProcessing(single=f"$A {END} {START}", special_tokens=[(START, 568), (END, 569)])
    with pytest.raises(WeightsError, match=r"nothing before and <\|endoftext\|> <\|startoftext\|> after"):
        Tokenizer(backend, context_length=12)


def test_sizes_that_cannot_be_are_refused(trained):
    with pytest.raises(ConfigError, match="at least 3"):
        Tokenizer(trained._backend.from_str(trained._backend.to_str()), context_length=2)
    with pytest.raises(ConfigError, match="vocab_size must be at least 515"):
        Tokenizer.train(CAPTIONS, vocab_size=514, context_length=8)
    with pytest.raises(DataError, match="needs texts to learn from"):
        Tokenizer.train(["a", "b"], vocab_size=570, context_length=8)
    with pytest.raises(WeightsError, match=r"one of 570 tokens\. Got 600"):
        Tokenizer(trained._backend.from_str(trained._backend.to_str()), context_length=8, pad_token_id=600)


# SigLIP


@pytest.fixture
def siglip(tmp_path) -> Tokenizer:
    write_siglip_tokenizer(tmp_path / "siglip")
    return Tokenizer.load(tmp_path / "siglip", cleaning="siglip")


@pytest.fixture
def siglip2(tmp_path) -> Tokenizer:
    write_siglip2_tokenizer(tmp_path / "siglip2")
    return Tokenizer.load(tmp_path / "siglip2", cleaning="siglip")


def assert_same_tokens(ours: Tokenizer, theirs: transformers.PreTrainedTokenizerBase) -> None:
    for text in SIGLIP_TEXTS:
        expected = theirs(text, padding="max_length", max_length=64, truncation=True)["input_ids"]
        assert ours.encode([text], truncate=True)[0].tolist() == expected, text


def test_siglip_tokens_are_of_the_cleaned_text_then_end_then_64_of_the_same(siglip):
    # In the stand-in: 3 a, 4 photo, 5 of, 7 cat, each with the space before it.
    expected = [3, 4, 5, 3, 7, *[1] * 59]
    assert siglip.encode(["a photo of a cat", "  A\nPhoto, (of) a_  'CAT'!"]).tolist() == [expected, expected]
    assert siglip.encode(["", "?!"]).tolist() == [[1] * 64] * 2
    assert (siglip.start_token_id, siglip.end_token_id, siglip.pad_token_id) == (None, 1, 1)


def test_siglip_cleaning_equals_its_plain_twin(siglip):
    def cleaned(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return " ".join(text.split())

    for text in SIGLIP_TEXTS:
        assert np.array_equal(siglip.encode([text], truncate=True), siglip.encode([cleaned(text)], truncate=True)), text


def test_siglip_html_stays_what_it_is(siglip, trained):
    assert np.array_equal(siglip.encode(["&amp;"]), siglip.encode(["amp"]))
    assert np.array_equal(trained.encode(["&amp;"]), trained.encode(["&"]))  # CLIP's does not


def test_siglip_truncation_keeps_the_end_token(siglip, siglip2):
    for tokenizer in (siglip, siglip2):
        tokens = tokenizer.encode(["a " * 100], truncate=True)
        assert tokens.shape == (1, 64)
        assert np.flatnonzero(tokens[0] == tokenizer.end_token_id).tolist() == [63]
    with pytest.raises(TextError, match=r"must fit 64 tokens, start and end included\. Got 101 tokens"):
        siglip.encode(["a " * 100])


def test_siglip2_tokens_are_those_of_its_class_in_transformers(siglip2, tmp_path):
    assert_same_tokens(siglip2, transformers.Siglip2Tokenizer.from_pretrained(tmp_path / "siglip2"))
    assert (siglip2.start_token_id, siglip2.end_token_id, siglip2.pad_token_id) == (None, 1, 0)
    as_published = transformers.GemmaTokenizer.from_pretrained(tmp_path / "siglip2")  # which forgets to lower letters
    assert as_published("A CAT")["input_ids"] != as_published("a cat")["input_ids"]
    assert np.array_equal(siglip2.encode(["A CAT!"]), siglip2.encode(["a cat!"]))
    assert not np.array_equal(siglip2.encode(["a cat!"]), siglip2.encode(["a cat"]))  # punctuation stays


def test_siglip_tokens_are_those_of_its_class_in_transformers(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="transformers reads spiece.model with sentencepiece")
    from sentencepiece import sentencepiece_model_pb2

    (tmp_path / "captions.txt").write_text("\n".join(SIGLIP_CAPTIONS).lower(), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "captions.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=100,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString((tmp_path / "spiece.model").read_bytes())
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    write_siglip_tokenizer(tmp_path, pieces, charsmap=model.normalizer_spec.precompiled_charsmap)
    ours = Tokenizer.load(tmp_path, cleaning="siglip")
    assert_same_tokens(ours, transformers.SiglipTokenizer(str(tmp_path / "spiece.model")))


def test_a_saved_siglip_tokenizer_opens_in_transformers_and_here_with_the_same_tokens(siglip, siglip2, tmp_path):
    for ours in (siglip, siglip2):
        ours.save(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
        for cleaning in ("file", "siglip"):  # nothing is cleaned twice
            assert Tokenizer.load(tmp_path, cleaning=cleaning).fingerprint() == ours.fingerprint()
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert_same_tokens(ours, theirs)
        padded = theirs(["a cat"], padding="max_length")
        assert padded["input_ids"] == ours.encode(["a cat"]).tolist()
        assert list(padded) == ["input_ids"]  # with a mask, their model would not see the padding


def test_a_siglip_tokenizer_that_does_not_lower_is_left_so(tmp_path):
    write_siglip_tokenizer(tmp_path, lowers=False)
    tokenizer = Tokenizer.load(tmp_path, cleaning="siglip")
    assert not np.array_equal(tokenizer.encode(["A"]), tokenizer.encode(["a"]))
    assert np.array_equal(tokenizer.encode(["a, b!"]), tokenizer.encode(["a b"]))


def test_a_folder_with_a_sentencepiece_file_alone_says_what_to_bring(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"spiece\.model alone, which is not read\. Download tokenizer\.json"):
        Tokenizer.load(tmp_path, context_length=64)


def test_siglip_text_is_decoded_up_to_its_end(siglip, siglip2):
    for tokenizer in (siglip, siglip2):
        assert tokenizer.decode(tokenizer.encode(["A  Photo of the cat"])[0]).split() == [
            "a",
            "photo",
            "of",
            "the",
            "cat",
        ]


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory) -> Path:
    """A folder as `transformers` saves BERT's tokenizer."""
    words = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?&;", "photo", "cat", "##s", "of", "the", "cafe", "##amp", "##p"]
    vocab = {word: id_ for id_, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    folder = tmp_path_factory.mktemp("bert")
    transformers.BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=12).save_pretrained(folder)
    return folder


def test_bert_tokens_equal_transformers(word_piece, tmp_path):
    ours = Tokenizer.load(word_piece)
    ours.save(tmp_path)
    for theirs in map(transformers.AutoTokenizer.from_pretrained, (word_piece, tmp_path)):  # as it was, and as we save
        rows = theirs(TEXTS, truncation=True, max_length=12, padding="max_length")["input_ids"]
        assert ours.encode(TEXTS, truncate=True).tolist() == rows
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id) == (2, 3, 0)
    assert not (tmp_path / "merges.txt").exists()
    assert Tokenizer.load(tmp_path).fingerprint() == ours.fingerprint()


def test_bert_lowers_case_drops_accents_and_leaves_html(word_piece):
    tokenizer = Tokenizer.load(word_piece)
    assert np.array_equal(tokenizer.encode(["A Photo of the CATS"]), tokenizer.encode(["a photo of the cats"]))
    assert np.array_equal(tokenizer.encode(["Café"]), tokenizer.encode(["cafe"]))
    assert not np.array_equal(tokenizer.encode(["&amp;"]), tokenizer.encode(["&"]))
    assert tokenizer.decode(tokenizer.encode(["the cats, a photo"])[0]) == "the cats, a photo"


def test_bert_truncation_keeps_the_end_token(word_piece):
    tokenizer = Tokenizer.load(word_piece, context_length=5)
    assert tokenizer.encode(["a photo of the cats"], truncate=True)[0, [0, -1]].tolist() == [2, 3]
    with pytest.raises(TextError, match=r"a text must fit 5 tokens, start and end included\. Got \d+ tokens"):
        tokenizer.encode(["a photo of the cats"])
