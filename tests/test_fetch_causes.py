"""crawl/fetch_causes.py: each cause has its cure, and those that may heal are among them."""

import ast
from pathlib import Path

import pytest

import diptych.crawl.fetch_causes as causes
from diptych.crawl.fetch_causes import CURES, FAULTS_OF_HOST, MAY_HEAL, TRIED_AGAIN, FetchError, cure_of

FILES = ("crawler.py", "fetch.py", "http_client.py", "web_address.py")


def test_every_cause_that_the_code_names_has_a_cure():
    folder = Path(causes.__file__).parent
    named = {
        node.args[0].value
        for name in FILES
        for node in ast.walk(ast.parse((folder / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "FetchError"
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(named) > 10
    assert named - CURES.keys() == set()


def test_what_is_tried_again_may_heal_and_all_have_cures():
    assert TRIED_AGAIN <= MAY_HEAL
    for cause in MAY_HEAL | TRIED_AGAIN | FAULTS_OF_HOST | CURES.keys():
        assert cure_of(cause).endswith("."), cause


@pytest.mark.parametrize(
    ("cause", "may"),
    [
        *(("dns", True), ("timeout", True), ("http 429", True), ("http 503", True), ("host gave up", True)),
        *(("http 404", False), ("robots", False), ("opt-out", False), ("other bytes", False), ("tls", False)),
    ],
)
def test_what_may_heal(cause, may):
    assert (cause in MAY_HEAL) == may


def test_a_cause_of_another_stage_has_no_cure_here():
    assert cure_of("short") == ""


def test_an_error_says_its_cause():
    assert str(FetchError("dns", "no answer")) == "dns: no answer"
    assert str(FetchError("dns")) == "dns"


def test_a_bare_error_says_the_same_and_holds_no_frame():
    try:
        raise FetchError("http 503", "a\udcff", "b", 5.0)
    except FetchError as error:
        bare = error.bare()
    assert (bare.cause, bare.value, bare.limit, bare.wait) == ("http 503", "a?", "b", 5.0)
    assert bare.__traceback__ is bare.__context__ is None
