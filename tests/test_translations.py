import gzip
import json
import pickle
import unicodedata
from pathlib import Path

import pytest

import diptych
from diptych.data.class_names import imagenet_names
from diptych.data.tokenizer import Tokenizer
from diptych.data.translations import TRANSLATIONS, Translations, as_key
from diptych.errors import WeightsError
from diptych.weights.bundle import Bundle

ENGLISH = ("dog", "cat", "elephant", "beer mug", "panda", "orangutan", "coffee", "crow")
LIST = Translations(
    ENGLISH,
    (
        ("de", ("hund", "katze", "elefant", "bierkrug", "", "orang utan", "kaffee", "")),
        ("de", ("", "kater", "", "", "", "", "", "")),
        ("fr", ("chien", "", "éléphant", "chope de bière", "", "", "café", "")),
        ("zh", ("狗", "猫", "", "", "熊猫", "", "", "")),
        ("th", ("", "", "", "", "", "", "กาแฟ", "กา")),
        ("hi", ("कुत्ता", "", "हाथी", "", "", "", "", "")),
        ("xx", ("katze", "", "", "", "", "", "", "")),
    ),
)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Hund", "dog"),
        ("a photo of a KATZE.", "a photo of a cat."),  # the first language that says it
        ("ein Kater, ein Hund", "ein cat, ein dog"),
        ("Orang-Utan", "orangutan"),
        ("orang utan", "orangutan"),
        ("une chope de bière!", "une beer mug!"),
        ("la photo d’un éléphant", "la photo d’un elephant"),
        ("l'éléphant", "l'elephant"),
        (unicodedata.normalize("NFD", "éléphant"), "elephant"),
        ("猫", " cat "),
        ("一只熊猫和一只狗", "一只 panda 和一只 dog "),  # the longest first
        ("กาแฟ", " coffee "),
        ("एक कुत्ता", "एक dog"),
        ("क हाथी ख", "क elephant ख"),
    ],
)
def test_what_stands_in_the_list_becomes_english(text: str, english: str) -> None:
    assert LIST(text) == english


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "a DOG near the Elephant",
        "Hundehütte, hunde",  # other words that begin so
        "chope",  # half a phrase
        "chope de vin",
        "กาํ",  # a mark that belongs to the letter before changes the word
        "日本",
        "🐶 !?",
        "orangutan",
    ],
)
def test_all_else_stays_as_it_came(text: str) -> None:
    assert LIST(text) is text


def test_a_line_must_have_a_place_for_each_word() -> None:
    with pytest.raises(ValueError, match="1 texts of 'de' for 2"):
        Translations(("dog", "cat"), (("de", ("hund",)),))


def test_the_list_comes_back_from_its_file_and_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    LIST.save(tmp_path)
    first = (tmp_path / TRANSLATIONS).read_bytes()
    LIST.save(tmp_path)
    assert (tmp_path / TRANSLATIONS).read_bytes() == first
    again = Translations.load(tmp_path)
    assert again == LIST
    assert again.languages == ("de", "fr", "zh", "th", "hi", "xx")
    assert again.fingerprint() == LIST.fingerprint() != Translations(ENGLISH, LIST.others[:1]).fingerprint()
    assert pickle.loads(pickle.dumps(LIST))("Hund") == "dog"
    assert Translations.load(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_the_line_ends_of_an_editor_are_no_part_of_a_word(tmp_path: Path, end: bytes) -> None:
    lines = b"en\tdog\tcat\nde\thund\tkatze\nfr\tchien\t\n"
    (tmp_path / TRANSLATIONS).write_bytes(gzip.compress(lines.replace(b"\n", end)))
    assert Translations.load(tmp_path) == Translations(
        ("dog", "cat"), (("de", ("hund", "katze")), ("fr", ("chien", "")))
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"en\tdog\nde\thund\n",  # not packed
        gzip.compress(b"en\tdog\tcat\nde\thund\n"),
        gzip.compress(b"de\thund\n"),
        gzip.compress(b"en\t\xff\n"),
        gzip.compress(b"en\tdog\nde\thund\n")[:-9],
        gzip.compress(bytes(1 << 26)),
    ],
    ids=["empty", "plain", "short line", "no English", "no UTF-8", "cut off", "endless"],
)
def test_a_damaged_list_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRANSLATIONS).write_bytes(content)
    with pytest.raises(WeightsError, match=r"translations\.tsv\.gz must hold .* Copy or download it again\."):
        Translations.load(tmp_path)


def test_a_tokenizer_reads_what_its_list_says(tmp_path: Path) -> None:
    captions = [f"a photo of a {thing}" for thing in (*ENGLISH, "house", "tree")] * 3
    plain = Tokenizer.train(captions, vocab_size=560, context_length=60)
    plain.save(tmp_path)
    LIST.save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    texts, said = ["Hund", "a photo of a &eacute;l&eacute;phant", "tree"], ["dog", "a photo of a elephant", "tree"]
    assert (tokenizer.encode(texts) == plain.encode(said)).all()
    assert (plain.encode(texts) != plain.encode(said)).any()
    assert (tokenizer.with_context_length(30).encode(texts) == plain.with_context_length(30).encode(said)).all()
    assert tokenizer.fingerprint() != plain.fingerprint()
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").fingerprint() == tokenizer.fingerprint()
    (tmp_path / "again" / TRANSLATIONS).unlink()
    assert Tokenizer.load(tmp_path / "again").fingerprint() == plain.fingerprint()


def test_a_longer_english_word_may_make_a_text_too_long() -> None:
    tokenizer = Tokenizer.train(["aa bb"] * 3, vocab_size=520, context_length=5)
    tokenizer.translations = Translations(("abcdef",), (("de", ("x",)),))
    assert tokenizer.count_too_long(["x", "y"]) == 1


@pytest.fixture(scope="module")
def photo() -> Bundle:
    return diptych.load("diptych-photo", runtime="torch").in_torch()


def test_the_model_for_photographs_is_asked_in_other_languages(photo: Bundle) -> None:
    texts = ["Hund", "a photo of a кошка.", "大象", "Éléphant", "घोड़ा", "fahrrad"]
    said = ["dog", "a photo of a cat.", "elephant", "elephant", "horse", "bicycle"]
    assert (photo.encode_texts(texts) == photo.encode_texts(said)).all()
    assert not photo.unread(texts)
    assert [one.text for one in photo.unread(["猫", "抽象"])] == ["抽象"]
    assert photo.tokenizer.translations
    assert len(photo.tokenizer.translations.languages) == 81


def test_the_model_for_photographs_reads_english_as_it_stands(photo: Bundle) -> None:
    translations = photo.tokenizer.translations
    assert translations
    names = [name for some in imagenet_names().values() for name in some.split(", ")]
    changed = [name for name in names if translations(name) != name]
    assert len(names) >= 1000
    assert not changed
    assert not [text for _, line in translations.others for text in line if text and as_key(text) != text]
    assert not {text for _, line in translations.others for text in line} & set(translations.english)


def test_a_folder_that_lost_its_list_is_refused(photo: Bundle, tmp_path: Path) -> None:
    photo.save(tmp_path / "model")
    sealed = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["diptych"]["sha256"]
    assert TRANSLATIONS in sealed
    (tmp_path / "model" / TRANSLATIONS).unlink()
    with pytest.raises(WeightsError, match=r"translations\.tsv\.gz must be the file that was saved"):
        Bundle.load(tmp_path / "model")
