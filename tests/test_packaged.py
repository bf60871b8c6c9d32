import subprocess
import sys

import pytest

from diptych.errors import ConfigError
from diptych.weights.packaged import DEFAULT_MODEL, check_model_name, packaged_models


def test_the_default_is_one_of_those_that_ship():
    assert DEFAULT_MODEL in packaged_models()
    assert all((folder / "config.json").is_file() for folder in packaged_models().values())


def test_a_wrong_name_is_told_with_the_nearest(tmp_path):
    for name in (None, DEFAULT_MODEL, "hf:org/name", tmp_path, str(tmp_path)):
        check_model_name(name)
    with pytest.raises(ConfigError, match=r"diptych-foto is not a model\. Did you mean diptych-photo"):
        check_model_name("diptych-foto")
    with pytest.raises(ConfigError, match="Or give the folder or file of one, or hf:org/name"):
        check_model_name(tmp_path / "none")


def test_it_is_told_without_torch():
    script = "import sys, diptych.weights.packaged; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"
