import json
from pathlib import Path

import pytest

from diptych.config import to_dict
from diptych.errors import ConfigError, WeightsError
from diptych.weights.joint_file import Gate, JointFile, both, check_one, read_joint
from diptych.weights.packaged import DEFAULT_MODEL

FACTS = JointFile(
    photographs="diptych-photo",
    drawings="diptych-pictogram",
    level=2.5,
    gate=Gate(weights=(1.0, -2.0), offset=0.5),
    golden=(0.25,),
    about="here",
)


def write(folder: Path, **changes: object) -> None:
    (folder / "joint.json").write_text(json.dumps(to_dict(FACTS) | changes))


def test_what_was_written_is_read_and_a_folder_of_one_model_has_none(tmp_path):
    assert read_joint(tmp_path) is None
    check_one("one", tmp_path)
    write(tmp_path)
    assert read_joint(tmp_path) == FACTS


def test_what_is_two_models_is_refused_where_one_is_wanted_and_both_are_named(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"x is two models .* Name diptych-photo, .* or diptych-pictogram, for draw"):
        check_one("x", tmp_path)


def test_a_file_of_a_later_format_or_with_a_wrong_value_is_named(tmp_path):
    write(tmp_path, version=2)
    with pytest.raises(WeightsError, match=r"joint\.json has format 2; this diptych reads up to 1\. Update diptych\."):
        read_joint(tmp_path)
    write(tmp_path, level="high")
    with pytest.raises(WeightsError, match=r"joint\.json: level must be"):
        read_joint(tmp_path)


@pytest.mark.parametrize("part", ["hf:org/name", "/etc", DEFAULT_MODEL])
def test_a_part_that_is_no_model_of_the_package_or_two_itself_is_refused(tmp_path, part):
    for role in ("photographs", "drawings"):
        write(tmp_path, **{role: part})
        with pytest.raises(WeightsError, match=f"must name two models of this package .* Got '{part}'"):
            read_joint(tmp_path)


def test_what_both_say_is_said_once():
    assert (both("MIT", "MIT"), both("MIT", "CC0"), both("", "CC0")) == ("MIT", "MIT / CC0", "CC0")
