import pytest

from diptych.errors import ConfigError
from diptych.serve.limits import Limits


def test_what_makes_no_sense_is_refused_by_name():
    assert Limits(delay=0).delay == 0
    with pytest.raises(ConfigError, match=r"limits\.batch must be above 0\. Got 0"):
        Limits(batch=0)
    with pytest.raises(ConfigError, match=r"limits\.pictures must be at most limits\.pictures_waiting.*Got 32 and 16"):
        Limits(pictures_waiting=16)
