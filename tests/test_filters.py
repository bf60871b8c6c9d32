import datetime
import subprocess
import sys

import pytest

from diptych.errors import ConfigError
from diptych.search.filters import Filters, parse_day, parse_place


def test_filters_refuse_what_makes_no_sense():
    assert Filters(after=datetime.date(2023, 1, 1), near=parse_place("-48.86, 2.35")).near == (-48.86, 2.35, 10)
    for text in ("48", "a,b", "1,2,3,4"):
        with pytest.raises(ConfigError, match=r"a place must be latitude, longitude and kilometres"):
            parse_place(text)
    with pytest.raises(ConfigError, match="a place must be"):
        Filters(near=(91, 0, 1))
    with pytest.raises(ConfigError, match="sides must be 0 or more"):
        Filters(min_side=-1)


def test_days_are_read_whole_or_in_part():
    days = [parse_day(text) for text in ("2023-06-30", "2023-6", " 2023 ")]
    assert days == [datetime.date(2023, 6, 30), datetime.date(2023, 6, 1), datetime.date(2023, 1, 1)]
    for text in ("2023-13", "23", "yesterday", "2023-06-31"):
        with pytest.raises(ConfigError, match="a day must be like 2023-06-30, 2023-06 or 2023"):
            parse_day(text)


def test_they_are_read_without_a_model():
    script = "import sys, diptych.search.filters; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"
