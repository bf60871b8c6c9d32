import subprocess
import sys

import pytest

from diptych.errors import ConfigError
from diptych.weights.packaged import DEFAULT_MODEL, DEFAULT_TOWERS, JOINT, check_model_name, packaged_models


def test_the_default_is_one_of_those_that_ship():
    assert DEFAULT_MODEL in packaged_models()
    assert DEFAULT_TOWERS in packaged_models()
    assert all(
        (folder / "config.json").is_file() or (folder / JOINT).is_file() for folder in packaged_models().values()
    )


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


@pytest.mark.parametrize(
    "name",
    [
        "openai/clip-vit-base-patch32",
        "hf-hub:openai/clip-vit-base-patch32",
        "https://huggingface.co/openai/clip-vit-base-patch32",
        "ViT-B-32.openai",
        "ViT-B-32/openai",
    ],
)
def test_what_others_call_a_model_of_the_hub_is_told_as_we_call_it(name: str):
    with pytest.raises(ConfigError, match=r"nor a path\. Did you mean hf:openai/clip-vit-base-patch32\?$"):
        check_model_name(name)


def test_an_address_of_the_hub_that_is_not_listed_is_told_and_a_path_that_is_not_there_is_not_one():
    with pytest.raises(ConfigError, match=r"Did you mean hf:org/other\?$"):
        check_model_name("hf-hub:org/other")
    with pytest.raises(ConfigError, match=r"runs/b is not a model\."):
        check_model_name("runs/b")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", " "])
def test_a_name_that_no_file_can_have_is_refused_like_another(name: str):
    with pytest.raises(ConfigError, match="is not a model") as caught:
        check_model_name(name)
    assert len(str(caught.value)) < 500
