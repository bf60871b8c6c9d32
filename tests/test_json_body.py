import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.serve.json_body import MOST_DEPTH, MOST_NUMBERS, MOST_VALUES, read_json
from diptych.serve.refusals import RefusedError

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth, parts), default=0)


@given(VALUES, st.booleans(), st.sampled_from((None, 2, "\t")))
@settings(max_examples=100, deadline=None)
def test_what_it_reads_is_what_the_standard_library_reads(value: Any, is_ascii: bool, indent: Any):
    try:
        body = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()
    except UnicodeEncodeError:
        return
    if depth(value) <= MOST_DEPTH:
        assert read_json(body) == json.loads(body)


@given(st.text(st.sampled_from('[]{},:" \\u12ae0-+.Etrufalsn\n\x00é'), max_size=12))
@settings(max_examples=500, deadline=None)
def test_what_it_refuses_the_standard_library_refuses_or_lets_pass_against_the_standard(text: str):
    try:
        plain = json.loads(text)
    except ValueError:
        with pytest.raises(RefusedError, match="the body must be JSON"):
            read_json(text.encode())
        return
    try:
        found = read_json(text.encode())
    except RefusedError as refused:
        reason = str(refused)
    else:
        assert found == plain
        return
    assert any(rule in reason for rule in ("must stand once", "must be finite", "half a surrogate", "must nest"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "a value is missing, at byte 0"),
        (b"nul", "what stands there is no value, at byte 0"),
        (b"[1,]", "a value is missing, at byte 4"),
        (b"[1 2]", "a comma is missing"),
        (b'{"a" 1}', "a colon is missing"),
        (b"{1: 2}", "an object's key must be text"),
        (b'{"a":1,}', "an object's key must be text"),
        (b"1 2", "something follows its end"),
        (b"01", "something follows its end"),
        (b"NaN", "what stands there is no value"),
        (b"-Infinity", "what stands there is no value"),
        (b"1e999", "a number must be finite"),
        (b"1" * 5000, "a number must have at most 32 characters"),
        (b'"\xff"', "text must be UTF-8"),
        (b'"\xed\xa0\x80"', "text must be UTF-8"),  # half a pair, as UTF-8 would have it
        (b'"\\ud800"', "half a surrogate pair"),
        (b'"\\x41"', "the escapes of JSON alone"),
        (b'"\n"', "what stands there is no value"),
        (b"\xef\xbb\xbf{}", "what stands there is no value"),
        (b'{"a": 1, "b": 2, "\\u0061": 3}', "'a' must stand once in an object, and stands twice"),
        (b"\x00{}", "what stands there is no value"),
    ],
)
def test_what_is_no_json_is_one_sentence_with_its_place(body: bytes, message: str):
    with pytest.raises(RefusedError, match=r"^the body must be JSON: ") as refused:
        read_json(body)
    assert message in str(refused.value)
    assert refused.value.status == 400


def test_values_numbers_and_depth_have_limits():
    assert len(read_json(json.dumps(["a"] * (MOST_VALUES - 1)).encode())) == MOST_VALUES - 1
    with pytest.raises(RefusedError, match=r"at most 8,192 values\. It holds more: send them in several"):
        read_json(json.dumps(["a"] * MOST_VALUES).encode())
    assert len(read_json(json.dumps([1] * MOST_NUMBERS).encode())) == MOST_NUMBERS
    with pytest.raises(RefusedError, match="at most 64 numbers"):
        read_json(json.dumps([1] * (MOST_NUMBERS + 1)).encode())
    assert depth(read_json(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)) == MOST_DEPTH
    for opening in (b"[", b'{"a":'):
        with pytest.raises(RefusedError, match="must nest at most 8 deep"):
            read_json(opening * 1_000_000)


def test_long_text_is_base64_and_takes_twice_its_bytes_at_most():
    size = 4 * 2**20
    body = b'"' + b"A" * size + b'"'
    tracemalloc.start()
    assert len(read_json(body)) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.1 * size
    # As System.Text.Json and PHP write base64.
    assert read_json(b'"' + b"A" * size + b'\\u002B\\/"') == "A" * size + "+/"
    for other in ("é".encode(), b"\\u00e9", b"\\ud83d\\ude00"):
        with pytest.raises(RefusedError, match="text of more than 262,144 bytes must be ASCII"):
            read_json(b'"' + b"A" * size + other + b'"')


def test_numbers_keep_their_kind():
    found = read_json(b"[1, 1.0, 1e2, -0, 12345678901234567890]")
    assert found == [1, 1.0, 100.0, 0, 12345678901234567890]
    assert [type(one) for one in found] == [int, float, float, int, int]
    assert math.copysign(1, read_json(b"-0.0")) == -1
