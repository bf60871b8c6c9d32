"""What a release says of itself: its version, its citation, the lowest versions of what it needs."""

import re
import tomllib
from pathlib import Path

import yaml

import diptych
from diptych.version import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place():
    assert diptych.__version__ == __version__
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "diptych.version.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__), "as Python packages write it"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} < citation.keys()  # what the format asks for
    assert (citation["version"], citation["license"]) == (__version__, PROJECT["project"]["license"])
    assert citation["keywords"] == PROJECT["project"]["keywords"]
    assert all("family-names" in author or "name" in author for author in citation["authors"])


def test_what_is_tried_as_the_lowest_versions_is_what_is_promised():
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["torch"]]
    promised = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in asked)
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))
    assert tried.keys() == {"torch", "numpy", "pillow"}
    assert {name: version.removesuffix(".0") for name, version in tried.items()} == {n: promised[n] for n in tried}
