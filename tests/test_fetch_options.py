"""crawl/fetch_options.py."""

import pytest

from diptych.config import from_dict
from diptych.crawl.fetch_options import Fetch
from diptych.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"per_host": 0}, "fetch.per_host must be at least 1"),
        ({"seconds": 0}, "fetch.seconds must be above 0"),
        ({"seconds": float("nan")}, "fetch.seconds must be above 0"),
        ({"quality": 101}, "fetch.quality must be 1 to 100"),
        ({"reencode": "yes"}, "fetch.reencode must be"),
        ({"format": "gif"}, "fetch.format must be"),
        ({"agent": "my bot"}, "fetch.agent must be"),
        ({"contact": "a\r\nCookie: b"}, "fetch.contact must be"),
        ({"allow_hosts": ("http://a",)}, "fetch.allow_hosts takes a host"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Fetch(**options)


def test_the_options_are_those_of_a_recipe():
    options = from_dict(Fetch, {"per_host": 2, "allow_hosts": ["127.0.0.1:8000"]}, where="fetch")
    assert options == Fetch(per_host=2, allow_hosts=("127.0.0.1:8000",))


def test_a_site_can_tell_who_asks():
    said = Fetch(agent="pairs-of-lab", contact="crawl@lab.example").user_agent
    assert said.startswith("Mozilla/5.0 (compatible; pairs-of-lab/")
    assert said.endswith("; +crawl@lab.example)")
