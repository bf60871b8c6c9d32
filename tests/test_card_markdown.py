"""curate/card_markdown.py: the card as Markdown, with strangers' texts as nothing but text."""

import dataclasses
import re

import pytest
from huggingface_hub import DatasetCard

from curating import small_card
from diptych.curate.card_data import CauseOnCard, Counted, Counts, StageOnCard
from diptych.curate.card_markdown import escaped, markdown, size_category

NASTY = (
    "a|b <script>alert(1)</script> `x` **y** [z](http://evil.example) ![i](//e) www.evil.example $m$ &lt; ~~s~~ @who"
)


def test_the_head_is_what_the_hub_reads():
    data = DatasetCard(markdown(small_card())).data.to_dict()
    assert data["pretty_name"] == 'Cats & "dogs"'
    assert data["license"] == "cc-by-4.0"
    assert data["language"] == ["no", "en"]
    assert data["size_categories"] == ["n<1K"]
    other = dataclasses.replace(small_card(), licence="Ours: ask #1\n", name="")
    data = DatasetCard(markdown(other)).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "Ours: ask #1\n")
    assert DatasetCard(markdown(dataclasses.replace(other, licence=""))).data.to_dict()["license"] == "unknown"


@pytest.mark.parametrize(
    ("pairs", "words"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (4 * 10**8, "100M<n<1B"), (10**12, "n>1T")]
)
def test_the_size_is_said_as_the_hub_says_it(pairs, words):
    assert size_category(pairs) == words


def test_nothing_of_a_strangers_text_is_markup():
    text = escaped(NASTY)
    assert not re.search(r"[<>|`*\[\]~!$@]|https?:|www\.|&(?!#\d+;)", text)
    sample = dataclasses.replace(small_card().kept.samples[0], text=NASTY, address=NASTY, licence=NASTY)
    counts = Counts(kinds=1, top=(Counted(name=NASTY, count=1),))
    kept = dataclasses.replace(
        small_card().kept, samples=(sample,), languages=counts, licences=counts, hosts=counts, formats=counts
    )
    cause = CauseOnCard(cause=NASTY, count=1, limit=NASTY, examples=(NASTY,))
    stage = StageOnCard(name="read", read=3, kept=2, causes=(cause,))
    card = dataclasses.replace(small_card(), kept=kept, stages=(stage,), licence=NASTY, name=NASTY)
    body = markdown(card).split("---\n", 2)[2]
    assert "<script" not in body
    assert "](" not in body
    assert text in body
    for table in re.findall(r"(?:^\|.*\n)+", body, re.M):  # every row has the columns of its head
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_tables_say_what_the_card_says():
    text = markdown(small_card())
    assert "| text | 9 | 3 | 6 | 33.3% |" in text
    assert "| length | 6 | 66.7% | at least 2 words | one; two |" in text
    assert "It adds up, and was checked" in text
    assert "| dog | 5 | 2 |" in text
    assert "| http 404 | 2 | 50.0% | The picture is gone: leave it out. |" in text
    assert "| *say no licence* | 1 | 33.3% |" in text
    assert "Nothing so far." in text


def test_a_ledger_that_does_not_add_up_and_counts_that_are_not_exact_are_said():
    counts = Counts(kinds=11, is_exact=False, too_low=2, top=(Counted(name="a.example", count=2),))
    card = small_card()
    card = dataclasses.replace(card, stages=card.stages[1:] * 2, kept=dataclasses.replace(card.kept, hosts=counts))
    text = markdown(card)
    assert "does not add up" in text
    assert "There are 11 or more." in text
    assert "too low by 2 at most" in text


def test_a_recipe_with_fences_stays_within_its_own():
    text = markdown(dataclasses.replace(small_card(), recipe='name = "````\\n# out"\n'))
    assert "`````toml\n" in text
