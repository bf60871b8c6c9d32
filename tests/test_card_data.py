"""curate/card_data.py: what a card says goes to JSON and back; texts of strangers are made harmless."""

import dataclasses
import json

import pytest

from curating import small_card
from diptych.config import from_dict, to_dict
from diptych.curate.card_data import CauseOnCard, DataCard, StageOnCard, shown


def test_a_card_goes_to_json_and_back():
    card = small_card()
    assert card.balance
    assert card.fetch
    assert from_dict(DataCard, json.loads(json.dumps(to_dict(card)))) == card


def test_a_ledger_that_does_not_add_up_is_known():
    first = StageOnCard(name="read", read=9, kept=7, causes=(CauseOnCard(cause="a", count=2),))
    second = StageOnCard(name="text", read=7, kept=7)
    whole = dataclasses.replace(small_card(), stages=(first, second))
    assert whole.adds_up
    assert (whole.read, first.dropped) == (9, 2)
    assert not dataclasses.replace(whole, stages=(first, dataclasses.replace(second, read=6, kept=6))).adds_up
    assert not dataclasses.replace(whole, stages=(dataclasses.replace(first, kept=6), second)).adds_up


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (None, ""),
        ("a dog\non a sofa\r\nat home", "a dog / on a sofa / at home"),
        ("a\u202edog\u2066\u200f", "adog"),  # would turn the direction of what follows
        ("a\x1b[31m dog\x00\x85\u2028b", "a [31m dog b"),
        ("\u200cمی\u200cروم 👩\u200d🔬", "\u200cمی\u200cروم 👩\u200d🔬"),  # joiners belong to words
        ("\ue000\U000e0001x", "\ufffdx"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "…"),
        ("x" * 10_000_000, "x" * 300 + "…"),
        (" " * 1_000 + "x", "…"),
    ],
)
def test_a_text_of_strangers_is_one_line_that_steers_nothing(text, plain):
    assert shown(text) == plain
