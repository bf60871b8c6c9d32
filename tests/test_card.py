"""curate/card.py: the card is the truth about the shards, and what was removed is nowhere in it."""

import dataclasses
import json
import shutil
import tomllib

import pytest

from curating import Here, write_small_recipe
from diptych.config import from_dict
from diptych.curate.card import read_card, write_card_again
from diptych.curate.card_markdown import escaped
from diptych.curate.curation import curate
from diptych.curate.recipe import CurateRecipe, read_curate_recipe
from diptych.curate.remove import Removal, remove_samples
from diptych.errors import DataError
from diptych.files import sha256
from diptych.pairs.sources import Source, open_pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A curation of 24 pictures: 23 have a text, 18 are left by balance; its folder must not be changed."""
    folder = tmp_path_factory.mktemp("made")
    curate(read_curate_recipe(write_small_recipe(folder)), folder / "out", Here())
    return folder / "out"


@pytest.fixture
def out(made, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def pairs_in(out):
    pairs = open_pairs(Source(path=str(out / "shards")))
    return {pairs[i].key: pairs[i] for i in range(len(pairs))}


def test_the_card_says_what_the_shards_and_the_ledger_hold(made):
    card, pairs = read_card(made), pairs_in(made)
    assert card.pairs == len(pairs) == 18
    assert card.manifest_sha256 == sha256(made / "shards/manifest.json")
    assert (card.shards, card.bytes) == (4, sum(file.stat().st_size for file in made.glob("shards/*.tar")))
    assert card.adds_up
    assert [(stage.name, stage.read, stage.kept) for stage in card.stages[:5]] == [
        ("read", 24, 24),
        ("duplicates-pair", 24, 24),
        ("text", 24, 23),
        ("match", 23, 23),
        ("balance", 23, 18),
    ]
    [names] = card.stages[2].causes
    assert (names.cause, names.count, names.examples) == ("file-names", 1, ("IMG_0001.jpg",))
    assert names.limit
    assert [(one.name, one.count) for one in card.kept.sources] == [("pictures", 18)]
    assert [(one.name, one.count) for one in card.kept.licences.top] == [("CC0-1.0", 18)]
    assert (card.kept.hosts.top, card.kept.hosts.unknown) == ((), 18)
    assert [(one.name, one.count) for one in card.kept.formats.top] == [("png", 18)]
    assert [one.name for one in card.kept.sizes] == ["width", "height", "file", "caption"]
    assert card.fetch is None  # nothing came from the network


def test_balance_is_told_by_its_largest_queries_and_what_they_have_left(made):
    balance, texts = read_card(made).balance, [pair.parts["txt"].decode() for pair in pairs_in(made).values()]
    assert balance
    assert [(one.query, one.before) for one in balance.largest] == [("dog", 15), ("cat", 8)]
    assert [one.after for one in balance.largest] == [
        sum(f" {word} " in text for text in texts) for word in ("dog", "cat")
    ]
    assert (balance.t, balance.curve.queries, balance.curve.matched, balance.curve.head) == (8, 4, 2, 1)
    assert balance.curve.head_share == pytest.approx(15 / 23)


def test_samples_are_those_of_the_smallest_keys_and_lie_where_the_card_says(made):
    samples, pairs = read_card(made).kept.samples, pairs_in(made)
    assert [sample.key for sample in samples] == sorted(pairs)[:12]
    for sample in samples:
        assert sample.text == pairs[sample.key].parts["txt"].decode()
        shard = open_pairs(Source(path=str(made / "shards" / sample.shard)))
        assert sample.key in [shard.key(i) for i in range(len(shard))]


def test_the_recipe_on_the_card_is_whole_and_names_no_folder_of_the_machine(made):
    card = read_card(made)
    recipe = from_dict(CurateRecipe, tomllib.loads(card.recipe))
    assert [source.path for source in recipe.sources] == ["pictures"]
    assert recipe.match
    assert recipe.match.queries == "queries.txt"
    assert recipe.balance
    assert recipe.balance.t == 8
    for file in ("card.md", "card.json"):
        assert str(made.parent) not in (made / file).read_text(encoding="utf-8")


def test_names_and_keys_within_addresses_stay_off_the_card(made, tmp_path):
    from diptych.curate.card import _without_folders

    plain = {"path": "https://me:secret@x.example/a.parquet?sig=1", "rules": [{"file": "/home/me/words.txt"}]}
    assert _without_folders(plain) == {"path": "https://x.example/a.parquet", "rules": [{"file": "words.txt"}]}
    assert _without_folders({"a": "C:\\Users\\me\\x.csv", "b": "~/x/*.csv", "c": "embedded:emoji", "d": 3}) == {
        "a": "x.csv",
        "b": "*.csv",
        "c": "embedded:emoji",
        "d": 3,
    }


def test_the_card_is_written_again_to_the_byte(out):
    before = [(out / name).read_bytes() for name in ("card.md", "card.json")]
    assert write_card_again(out) == out / "card.md"
    assert [(out / name).read_bytes() for name in ("card.md", "card.json")] == before


@pytest.mark.parametrize("work", ["there", "gone", "another"])
def test_what_is_removed_is_nowhere_on_the_card(out, work):
    before, gone = read_card(out), sorted(pairs_in(out))[:5]
    texts = [pairs_in(out)[key].parts["txt"].decode() for key in gone]
    if work == "gone":
        shutil.rmtree(out / "work")
    elif work == "another":  # an option changed, and the run was stopped after the first of the stages that follow
        note = json.loads((out / "work/04-balance/stage.json").read_text())
        (out / "work/04-balance/stage.json").write_text(json.dumps(note | {"mark": "another"}))
    assert remove_samples(out, Removal(keys=tuple(gone), note="asked | by their <maker>")) == 5
    write_card_again(out)
    card, pairs = read_card(out), pairs_in(out)
    assert card.pairs == len(pairs) == 13
    assert card.removed_pairs == 5
    assert card.stages == before.stages
    assert card.manifest_sha256 == sha256(out / "shards/manifest.json") != before.manifest_sha256
    assert [sample.key for sample in card.kept.samples] == sorted(pairs)[:12]
    assert sum(one.count for one in card.kept.formats.top) == 13
    assert card.kept.sizes[0].count == 13
    [removed] = card.removed
    assert (removed.pairs, removed.note) == (5, "asked | by their <maker>")
    said = "".join((out / name).read_text(encoding="utf-8") for name in ("card.md", "card.json"))
    assert not [key for key in gone if key in said]
    assert not [text for text in texts if text in said or escaped(text) in said]
    assert "asked &#124; by their &#60;maker&#62;" in said


def test_the_card_from_the_shards_is_the_one_from_the_work(out):
    key = sorted(pairs_in(out))[3]
    remove_samples(out, Removal(keys=(key,)))
    write_card_again(out)
    of_work = read_card(out)
    shutil.rmtree(out / "work")
    write_card_again(out)
    assert dataclasses.replace(read_card(out), balance=None) == dataclasses.replace(of_work, balance=None)
    assert of_work.balance
    assert of_work.balance.curve.matches_after == 17


def test_without_a_card_and_without_work_none_is_left(out):
    shutil.rmtree(out / "work")
    (out / "card.json").unlink()
    assert write_card_again(out) is None
    assert not (out / "card.md").exists()


def test_a_card_that_is_not_there_or_damaged_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"card\.json must be the data card"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text('{"pairs": 3}')
    with pytest.raises(DataError, match="cannot be read"):
        read_card(tmp_path)


def test_what_nobody_looked_at_is_said_only_where_it_is_true(made, tmp_path):
    said = read_card(made).not_measured
    assert any("faces" in sentence for sentence in said)
    assert any("evaluation sets" in sentence for sentence in said)
    assert not any("mail addresses" in sentence for sentence in said)  # the default rules look for them
    from diptych.captions.text_rules import TextRules
    from diptych.crawl.fetch_options import Fetch
    from diptych.curate.card import _not_measured
    from diptych.curate.people import People

    recipe = read_curate_recipe(made / "recipe.toml")
    other = dataclasses.replace(
        recipe, people=People(detector="a:b"), text=TextRules(rules=()), fetch=Fetch(respect_robots=False)
    )
    said = list(_not_measured(other))
    assert not any("faces" in sentence for sentence in said)
    assert any("mail addresses" in sentence for sentence in said)
    assert any("robots.txt" in sentence for sentence in said)
