import re
import tomllib
from pathlib import Path

import diptych
from diptych.version import __version__

ROOT = Path(__file__).parent.parent


def test_the_version_stands_in_one_place():
    assert diptych.__version__ == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "diptych.version.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__), "as Python packages write it"
