"""captions/captions.py: captions under judgement."""

import numpy as np
import pyarrow as pa
import pytest

from diptych.captions.captions import check_share, shown
from diptych.errors import ConfigError
from pair_tables import captions_of


def test_captions_are_taken_with_all_that_belongs_to_them():
    captions = captions_of("a", "b", "c", url="https://a.example").take(np.array([2, 0]))
    assert (captions.texts.to_pylist(), len(captions)) == (["c", "a"], 2)
    assert captions.urls.to_pylist() == ["https://a.example"] * 2
    assert captions.languages.to_pylist() == [None, None]


def test_long_texts_are_shown_by_their_beginnings():
    assert shown(pa.array(["abc", "小" * 70, "x"]), np.array([1, 0])) == ["小" * 60, "abc"]


def test_a_share_is_between_none_and_all():
    check_share("max_word", 1.0)
    with pytest.raises(ConfigError, match=r"max_word must be a share from 0 to 1\. Got 1\.5"):
        check_share("max_word", 1.5)
