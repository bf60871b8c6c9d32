"""Tokenizers as their files say, whatever their tokens are called: token by token those of `transformers`."""

import gzip
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from diptych.data.tokenizer import Tokenizer
from diptych.data.tokenizer_file import Cleaning
from diptych.errors import WeightsError
from foreign_tokenizers import FOREIGN, LLAMA, TEXTS, trained, unigram, write_tokenizer
from siglip_standins import write_siglip_tokenizer


def ids_of(theirs: Any, texts: list[str]) -> list[list[int]]:
    return theirs(texts, padding="max_length", truncation=True, max_length=24)["input_ids"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("cleaning", ["file", "siglip"])
def test_a_tokenizer_is_what_its_file_says_whatever_its_tokens_are_called(tmp_path, name, cleaning: Cleaning):
    backend, config, around = FOREIGN[name]
    folder = write_tokenizer(tmp_path / "theirs", backend(), config)
    ours = Tokenizer.load(folder, cleaning=cleaning)
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id) == around
    expected = ids_of(transformers.AutoTokenizer.from_pretrained(folder), TEXTS)
    assert ours.encode(TEXTS, truncate=True).tolist() == expected
    ours.save(tmp_path / "again")
    assert ids_of(transformers.AutoTokenizer.from_pretrained(tmp_path / "again"), TEXTS) == expected
    again = Tokenizer.load(tmp_path / "again")
    assert again.encode(TEXTS, truncate=True).tolist() == expected
    assert again.fingerprint() == ours.fingerprint()


def test_a_tokenizer_that_ends_no_text_is_refused_in_a_sentence(tmp_path):
    folder = write_tokenizer(
        tmp_path, trained(LLAMA, "<s>", "", byte_level=False), {"bos_token": "<s>", "eos_token": "</s>"}
    )
    with pytest.raises(WeightsError, match=r"must put one end token after a text.*puts <s> before and nothing after"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_a_tokenizer_that_works_from_the_left_is_refused(tmp_path, side):
    backend, config, _ = FOREIGN["XLM-R"]
    with pytest.raises(WeightsError, match=f"{side} of the tokenizer must be right. Got left"):
        Tokenizer.load(write_tokenizer(tmp_path, backend(), config | {side: "left"}))


def test_padding_may_stand_in_a_file_of_its_own(tmp_path):
    backend, config, _ = FOREIGN["XLM-R"]
    folder = write_tokenizer(tmp_path, backend(), {key: value for key, value in config.items() if key != "pad_token"})
    (folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "<pad>"}}')
    assert Tokenizer.load(folder).pad_token_id == 1


PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
PLAIN: dict[Cleaning, Callable[[str], str]] = {  # as open_clip's documentation has it, without ftfy
    "whitespace": lambda text: " ".join(text.split()),
    "lower": lambda text: " ".join(text.split()).lower(),
    "canonicalize": lambda text: " ".join(
        text.replace("_", " ").translate(str.maketrans("", "", PUNCTUATION)).lower().split()
    ),
}


@pytest.mark.parametrize("cleaning", PLAIN)
def test_open_clips_cleaning_equals_its_plain_twin_and_is_saved(tmp_path, cleaning: Cleaning):
    backend, config, _ = FOREIGN["XLM-R"]
    folder = write_tokenizer(tmp_path / "theirs", backend(), config)
    plain, ours = Tokenizer.load(folder), Tokenizer.load(folder, cleaning=cleaning)
    texts = [*TEXTS, "a\x1cphoto\x85of &amp;amp; cat_", "&lt;cat&gt;"]
    cleaned = [PLAIN[cleaning](html.unescape(html.unescape(text))) for text in texts]
    expected = plain.encode(cleaned, truncate=True).tolist()
    assert ours.encode(texts, truncate=True).tolist() == expected
    assert ours.with_context_length(24).encode(texts, truncate=True).tolist() == expected
    ours.save(tmp_path / "again")
    for again in (Tokenizer.load(tmp_path / "again"), Tokenizer.load(tmp_path / "again", cleaning=cleaning)):
        assert again.encode(texts, truncate=True).tolist() == expected
        assert again.fingerprint() == ours.fingerprint()


def test_siglips_cleaning_is_done_for_siglips_alone(tmp_path):
    write_siglip_tokenizer(tmp_path)
    assert Tokenizer.load(tmp_path, cleaning="siglip").encode(["A, cat!"]).tolist()[0][-1] == 1
    with pytest.raises(WeightsError, match="nothing before and nothing after"):
        Tokenizer.load(tmp_path)


def test_padding_may_stand_in_the_place_of_an_end_token_as_in_clipa(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "kite", ",", "##s"]
    backend = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(words[:4])
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer.load(tmp_path, context_length=6, cleaning="whitespace", ends_with_padding=True)
    expected = [[2, 4, 6, 8, 0, 0], [2, 0, 0, 0, 0, 0], [2, 5, 6, 7, 4, 0]]  # as open_clip's with strip_sep_token
    texts = ["A kites", "", "red kite, a kite, a kite"]
    assert found.encode(texts, truncate=True).tolist() == expected
    assert (found.start_token_id, found.end_token_id, found.pad_token_id) == (2, 0, 0)
    (tmp_path / "saved").mkdir()
    found.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode(texts, truncate=True).tolist() == expected


def test_rules_that_blow_a_text_up_are_refused_before_a_text_is_read(tmp_path):
    backend, config, _ = FOREIGN["XLM-R"]
    bomb = backend()
    bomb.normalizer = normalizers.Sequence([normalizers.Replace("a", "a" * 10) for _ in range(12)])
    with pytest.raises(WeightsError, match=r"replacements make 1,000,000,000,000 letters of one"):
        Tokenizer.load(write_tokenizer(tmp_path, bomb, config))
    tame = backend()
    tame.normalizer = normalizers.Sequence([normalizers.Replace(letter, "(c)") for letter in "©®™℠"])
    Tokenizer.load(write_tokenizer(tmp_path, tame, config))  # what one makes another does not see


def test_a_list_of_merges_that_unpacks_to_too_much_is_refused(tmp_path):
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(65):
            file.write(bytes(1_000_000))
    with pytest.raises(WeightsError, match="must unpack to 64,000,000 bytes at most"):
        Tokenizer.from_merges(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, '{"model_max_length": ' + "9" * 5000 + "}"])
def test_deep_and_endless_json_is_refused_in_a_sentence(tmp_path, text):
    backend, config, _ = FOREIGN["XLM-R"]
    write_tokenizer(tmp_path, backend(), config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(WeightsError, match=f"{name} (must be JSON|is not a tokenizer)"):
            Tokenizer.load(tmp_path)


UNREAD = {  # text: words, and those that are unknown
    "BERT": {"photo of 犬": (3, 1), "犬 車": (2, 2), "🐼": (1, 1), "\u200d": (0, 0), "a photo!": None, "  ": None},
    "XLM-R": {"a 犬": (2, 1), "犬車": (1, 1), "a photo": None},
    "RoBERTa": {"犬": None, "🐼 \x07": None},
    "Llama, with its end": {"犬": None, "🐼": None},
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_tokenizer_tells_which_words_of_a_text_it_does_not_know(tmp_path, name):
    backend, config, _ = FOREIGN[name]
    tokenizer = Tokenizer.load(write_tokenizer(tmp_path, backend(), config))
    found = {one.text: (one.words, one.unknown) for one in tokenizer.unread(list(UNREAD[name]))}
    assert found == {text: counts for text, counts in UNREAD[name].items() if counts}
    whole = [one.text for one in tokenizer.unread(list(UNREAD[name])) if one.is_whole]
    assert whole == [text for text, counts in found.items() if counts[0] == counts[1]]


def test_what_is_not_read_is_said_in_a_sentence(tmp_path):
    backend, config, _ = FOREIGN["BERT"]
    tokenizer = Tokenizer.load(write_tokenizer(tmp_path, backend(), config))
    some, whole = map(str, tokenizer.unread(["photo of 犬", "犬 車"]))
    assert some == "this model's tokenizer does not know 1 of 3 words of 'photo of 犬'."
    assert whole.startswith("'犬 車' is no text to this model: its tokenizer knows no word of it")
    assert np.array_equal(tokenizer.encode(["犬"]), tokenizer.encode(["車"]))  # which is why


def test_a_list_of_berts_words_alone_gives_the_tokens_of_its_library(tmp_path):
    vocab = tokenizers_of_bert(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path, context_length=16)
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id) == (2, 3, 0)
    texts = ["A Cat, naïve 日本!", "", "dog [SEP] 2", "CAFÉ"]
    expected = theirs(texts, padding="max_length", max_length=16, truncation=True)["input_ids"]
    assert ours.encode(texts).tolist() == expected
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in vocab if word != "[CLS]"))
    with pytest.raises(WeightsError, match=r"vocab\.txt must hold \[CLS\]"):
        Tokenizer.load(tmp_path, context_length=16)


def tokenizers_of_bert(folder: Path) -> list[str]:
    letters = [chr(code) for code in range(97, 123)]
    vocab = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cat",
        "日",
        *letters,
        *(f"##{x}" for x in letters),
        ",",
        "!",
    ]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    return vocab


def test_a_tokenizer_of_nllb_puts_the_language_first_whatever_its_file_says(tmp_path):
    special = ["<s>", "<pad>", "</s>", "<unk>", "eng_Latn", "deu_Latn"]
    backend = unigram(special, "", "</s>")
    ids = {name: special.index(name) for name in special}
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s> eng_Latn", special_tokens=[(name, ids[name]) for name in ("</s>", "eng_Latn")]
    )
    config = {"tokenizer_class": "NllbTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    for more, first in (({}, "eng_Latn"), ({"src_lang": "deu_Latn"}, "deu_Latn")):
        write_tokenizer(tmp_path, backend, config | more)
        tokens = Tokenizer.load(tmp_path, context_length=16).encode(["a cat"])[0].tolist()
        assert tokens[0] == ids[first]
        assert tokens[tokens.index(ids["</s>"]) + 1 :] == [1] * (15 - tokens.index(ids["</s>"]))
    write_tokenizer(tmp_path, backend, config | {"src_lang": "xxx_Latn"})
    with pytest.raises(WeightsError, match=r"src_lang must be a language.* Got 'xxx_Latn'"):
        Tokenizer.load(tmp_path, context_length=16)
    write_tokenizer(tmp_path, backend, config | {"legacy_behaviour": True})
    with pytest.raises(WeightsError, match=r"legacy_behaviour of the tokenizer must be false"):
        Tokenizer.load(tmp_path, context_length=16)
