"""pages/curation.py: the card as a page, with pictures out of the shards."""

import dataclasses
import html
import re

import pytest
from PIL import Image

from curating import Here, small_card, write_small_recipe
from diptych.curate.card import read_card
from diptych.curate.curation import curate
from diptych.curate.recipe import read_curate_recipe
from diptych.errors import DataError
from diptych.pages.curation import curation_page, sample_pictures, write_curation_page
from diptych.pages.html import render_report


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    curate(read_curate_recipe(write_small_recipe(folder)), folder / "out", Here())
    return folder / "out"


def test_the_page_shows_the_pictures_that_the_card_draws(out):
    samples = read_card(out).kept.samples
    pictures = sample_pictures(samples, out / "shards")
    assert set(pictures) == {sample.key for sample in samples}
    number = int(re.findall(r"number (\d+)", samples[0].text)[0])
    assert pictures[samples[0].key].size == (240 + number, 220)
    assert write_curation_page(out) == ""
    page = (out / "card.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12 + 12  # among the pairs, and in the opening
    assert html.escape(samples[0].text) in page
    assert "<b>on</b>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_a_shard_or_picture_that_is_gone_leaves_its_place_empty(out, tmp_path):
    samples = read_card(out).kept.samples
    assert sample_pictures(samples, tmp_path) == {}
    page = render_report(curation_page(read_card(out), {}))
    assert "<img" not in page
    assert html.escape(samples[0].text) in page


def test_every_part_of_the_card_is_on_the_page():
    card = small_card()
    page = render_report(curation_page(card, {"0" * 32: Image.new("RGB", (9, 9))}))
    for heading in ("From what to what", "What was dropped, and why", "Balance", "Fetching", "What was not looked at"):
        assert f">{heading}</h2>" in page
    for text in ("text: length", "at least 2 words", "one; two", "a.example", "2 http 404", card.manifest_sha256):
        assert text in page
    assert "http 404: The picture is gone: leave it out." in page
    assert page.count("<svg") > 1  # the curve of balance beside the emblem
    assert "33.3%" in page  # left after the stage "text"


def test_what_a_card_lacks_is_left_out():
    card = dataclasses.replace(small_card(), stages=(), balance=None, fetch=None)
    page = render_report(curation_page(card, {}))
    for heading in ("From what to what", "What was dropped, and why", "Balance", "Fetching", "Removed"):
        assert f">{heading}</h2>" not in page


def test_without_a_card_there_is_no_page(tmp_path):
    with pytest.raises(DataError, match="data card"):
        write_curation_page(tmp_path)
