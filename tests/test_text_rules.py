"""captions/text_rules.py: the stage that applies rules to the captions of rows."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diptych.captions import text_rules
from diptych.captions.captions import Captions, Verdict
from diptych.captions.language import Languages
from diptych.captions.text_counts import Length, Letters
from diptych.captions.text_lists import Boilerplate, DenyWords
from diptych.captions.text_patterns import PersonalData
from diptych.captions.text_rules import DEFAULT_RULES, TextRules
from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError
from diptych.rows.columns import pairs_table
from diptych.rows.stage import DROPPED, CurateStage, Whole
from pair_tables import pairs_of

FLICKR = Path(__file__).parents[2] / "shared" / "data" / "flickr8k"
GOOD = [
    "a dog runs in the snow",
    "ein roter Drachen am Himmel",
    "красная машина на снегу",
    "小狗在雪地里奔跑",
    "雪の中を走る犬",
]


def test_the_first_rule_that_drops_a_row_names_the_cause():
    rows = pairs_of("a dog in snow", "logo", "$ 12.99", "click here 12 34 56 78 90")
    judged = TextRules(rules=(Length(), Letters(), Boilerplate())).apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == ["a dog in snow"]
    assert judged.dropped.schema == DROPPED
    keys = rows["key"].to_pylist()
    assert judged.dropped.to_pylist() == [
        {"key": keys[1], "cause": "length", "value": "words: 1, characters: 4", "limit": Length().limit},
        {"key": keys[2], "cause": "length", "value": "words: 1, characters: 6", "limit": Length().limit},
        {"key": keys[3], "cause": "boilerplate", "value": "click here", "limit": Boilerplate().limit},
    ]


def test_of_several_captions_those_that_pass_are_kept_and_the_others_counted():
    rows = pairs_of("a dog in snow\nlogo\na red kite", "logo\nclick here now", "a boat at sea")
    judged = TextRules(rules=(Length(), Boilerplate())).apply(rows, Whole())
    assert judged.kept["text"].to_pylist() == ["a dog in snow\na red kite", "a boat at sea"]
    assert judged.kept["captions_dropped"].to_pylist() == [1, 0]
    assert judged.kept["key"].to_pylist() == [rows["key"][0].as_py(), rows["key"][2].as_py()]
    # the row is dropped by the rule that takes its last caption
    assert judged.dropped["cause"].to_pylist() == ["boilerplate"]
    assert judged.dropped["value"].to_pylist() == ["click here"]


def plain(rules, rows):
    """Row by row, caption by caption, rule by rule."""
    kept, causes = [], []
    for text, url in zip(rows["text"].to_pylist(), rows["url"].to_pylist(), strict=True):
        captions, cause = text.split("\n"), None
        for rule in rules:
            passed = []
            for caption in captions:
                one = Captions(pa.array([caption]), pa.array([url], pa.string()), pa.nulls(1, pa.string()))
                verdict = rule.judge(one)
                if verdict.keep[0]:
                    passed.append((verdict.captions or one).texts[0].as_py())
            captions = passed
            if not captions:
                cause = rule.name
                break
        if cause:
            causes.append(cause)
        else:
            kept.append("\n".join(captions))
    return kept, causes


@pytest.mark.parametrize("slice_bytes", [1, 40, 1 << 20])
def test_columns_are_judged_as_each_caption_by_itself(monkeypatch, slice_bytes):
    monkeypatch.setattr(text_rules, "_SLICE_BYTES", slice_bytes)
    texts = [
        *GOOD,
        "IMG_1234.jpg\nclick here\na cat on a sofa",
        "mail me at a@b.example please\nlogo",
        "",
        "\n\n",
        "shoes shoes shoes red shoes shoes",
        "\x00 \u202e",
        "a picture by alamy\n12 34",
        "x" * 5000,
        "call +49 30 1234567 for a red kite",
    ] * 3
    rules = (*DEFAULT_RULES[:-1], PersonalData(action="mask"))
    rows = pairs_of(*texts)
    judged = TextRules(rules=rules).apply(rows, Whole())
    kept, causes = plain(rules, rows)
    assert (judged.kept["text"].to_pylist(), judged.dropped["cause"].to_pylist()) == (kept, causes)
    assert len(judged.kept) + len(judged.dropped) == len(rows)
    order = rows["key"].to_pylist()
    for table in (judged.kept, judged.dropped):
        places = [order.index(key) for key in table["key"].to_pylist()]
        assert places == sorted(places)
    assert "call [phone] for a red kite" in kept


def test_rows_keep_their_columns_and_types():
    rows = pairs_of("a dog in snow", "logo", language=["en", None]).append_column("more", pa.array([1, 2]))
    judged = TextRules().apply(rows, Whole())
    assert judged.kept.drop_columns("captions_dropped").schema == rows.schema
    assert judged.kept["more"].to_pylist() == [1]
    assert judged.kept["language"].to_pylist() == ["en"]
    for none in (rows.slice(0, 0), pairs_table([])):
        judged = TextRules().apply(none, Whole())
        assert (len(judged.kept), len(judged.dropped)) == (0, 0)
        assert judged.kept.schema.field("captions_dropped").type == pa.int32()


def test_the_language_of_a_row_is_that_of_its_first_caption_that_is_kept(monkeypatch):
    class Named:
        name, limit = "named", "named"

        def judge(self, captions):
            names = pa.array([text[:2] for text in captions.texts.to_pylist()])
            keep = np.array([name != "xx" for name in names.to_pylist()])
            return Verdict(
                keep=keep, values=lambda at: ["x"] * len(at), captions=Captions(captions.texts, captions.urls, names)
            )

    rows = pairs_of("xx one\nde two\nen three", "xx only", "fr four")
    judged = TextRules(rules=(Named(),)).apply(rows, Whole())  # pyright: ignore[reportArgumentType]
    assert judged.kept["language"].to_pylist() == ["de", "fr"]


def test_rules_come_from_a_recipe_by_their_kind():
    plain = {"rules": [{"kind": "length", "min_words": 3}, {"kind": "deny-words", "file": "rude.txt"}]}
    stage = from_dict(TextRules, plain)
    assert stage == TextRules(rules=(Length(min_words=3), DenyWords(file=Path("rude.txt"))))
    assert from_dict(TextRules, to_dict(TextRules())) == TextRules()
    with pytest.raises(ConfigError, match=r"rules\[0\]\.kind must be one of 'length'"):
        from_dict(TextRules, {"rules": [{"kind": "lenght"}]})


def test_files_that_rules_name_are_told():
    rules = (
        Length(),
        DenyWords(file=Path("a.txt")),
        Boilerplate(phrases=Path("b.toml")),
        Languages(model=Path("c.ftz")),
    )
    assert TextRules(rules=rules).files() == ["a.txt", "b.toml", "c.ftz"]
    assert TextRules().files() == []


def test_every_default_rule_has_a_name_of_its_own_and_a_limit_in_words():
    assert len({rule.name for rule in DEFAULT_RULES}) == len(DEFAULT_RULES)
    assert all(" " in rule.limit for rule in DEFAULT_RULES)
    assert isinstance(TextRules(), CurateStage)


def test_captions_that_people_wrote_pass_in_any_script():
    judged = TextRules().apply(pairs_of(*GOOD), Whole())
    assert judged.kept["text"].to_pylist() == GOOD


@pytest.mark.skipif(not FLICKR.is_dir(), reason="Flickr8k of the evaluation data is not there")
def test_nearly_all_of_flickr8k_passes():
    texts = []
    for path in sorted(FLICKR.glob("val/*.tar")):
        with tarfile.open(path) as tar:
            texts += [
                io.TextIOWrapper(file, "utf-8").read()
                for member in tar
                if member.name.endswith(".txt") and (file := tar.extractfile(member))
            ]
    judged = TextRules().apply(pairs_of(*(text.strip() for text in texts)), Whole())
    captions = sum(text.strip().count("\n") + 1 for text in texts)
    lost = sum(judged.kept["captions_dropped"].to_pylist())
    assert (len(judged.dropped), captions > 4000, lost / captions < 0.001) == (0, True, True)
