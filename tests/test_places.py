from pathlib import Path

import pytest

from diptych.errors import ConfigError
from diptych.weights.packaged import DEFAULT_MODEL
from diptych.weights.places import find_model


def test_a_model_is_found_by_name_by_path_and_by_default(tmp_path, monkeypatch):
    assert find_model(None) == find_model(DEFAULT_MODEL)
    assert find_model(None).path.name == DEFAULT_MODEL
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_MODEL).mkdir()
    assert find_model(DEFAULT_MODEL).path != Path(DEFAULT_MODEL)  # a name goes before a folder
    assert find_model(f"./{DEFAULT_MODEL}").path == Path(DEFAULT_MODEL)
    assert find_model(Path(DEFAULT_MODEL)).name == DEFAULT_MODEL


def test_what_is_nowhere_and_a_revision_of_no_hub_are_told(tmp_path):
    with pytest.raises(ConfigError, match=f"Did you mean {DEFAULT_MODEL}"):
        find_model(f"{DEFAULT_MODEL}o")
    with pytest.raises(ConfigError, match="a revision is of a hub name"):
        find_model(tmp_path, revision="main")
