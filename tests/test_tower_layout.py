import pytest

from diptych.errors import ConfigError
from diptych.weights.tower_layout import check_says


def test_what_is_said_otherwise_is_told_with_what_it_is():
    check_says("vision_cfg", {"pool": "tok"}, {"pool": "tok", "x": None}, {})
    with pytest.raises(ConfigError, match=r"vision_cfg\.pool must be 'tok' or absent\. Got 'avg': a pool of others\."):
        check_says("vision_cfg", {"pool": "avg"}, {"pool": "tok"}, {"pool": "a pool of others"})
    with pytest.raises(ConfigError, match=r"text_cfg\.x must be None or absent\. Got 0: a tower that diptych does not"):
        check_says("text_cfg", {"x": 0}, {"x": None}, {})
