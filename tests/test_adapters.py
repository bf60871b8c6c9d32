import dataclasses

import pytest
import torch

from diptych.config import from_dict
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.presets import preset
from diptych.model.siglip import SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.adapters import OWN, Naming, TensorRow, config_to_own


def test_our_own_names_stay_as_they_are():
    ours = CLIP(preset("tiny-resnet"), generator(0)).state_dict()
    assert OWN.from_ours(ours).keys() == OWN.to_ours(ours, ours).keys() == ours.keys()


def test_rows_rename_split_turn_and_box_and_take_it_back():
    naming = Naming(
        rows=(
            TensorRow(ours="blocks.{}.both.{}", theirs=("a.{}.first.{}", "a.{}.second.{}")),
            TensorRow(ours="turned", theirs=("t",), transposed=True),
            TensorRow(ours="scalar", theirs=("s",), boxed=1),
            TensorRow(ours="scale", theirs=("g",), trailing=2),
        )
    )
    ours = {
        "blocks.3.both.weight": torch.arange(4.0),
        "turned": torch.arange(6.0).reshape(2, 3),
        "scalar": torch.tensor(7.0),
        "scale": torch.tensor([8.0, 9.0]),
    }
    theirs = naming.from_ours(ours)
    assert {name: tensor.tolist() for name, tensor in theirs.items()} == {
        "a.3.first.weight": [0, 1],
        "a.3.second.weight": [2, 3],
        "t": [[0, 3], [1, 4], [2, 5]],
        "s": [7],
        "g": [[[8]], [[9]]],
    }
    back = naming.to_ours(theirs, ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_a_config_of_before_siglip_is_written_as_it_was():
    plain = config_to_own(preset("tiny-resnet"))
    assert "head" not in plain
    assert "kind" not in plain["text"]
    assert from_dict(CLIPConfig, plain) == preset("tiny-resnet")


@pytest.mark.parametrize(
    "changes",
    [{"head": "sigmoid"}, {"text": SigLIPTextTowerConfig(width=32, layers=1, heads=2)}],
)
def test_what_siglip_brought_is_written_where_it_is_used(changes):
    config = dataclasses.replace(preset("tiny-resnet"), **changes)
    assert from_dict(CLIPConfig, config_to_own(config)) == config


def test_a_temperature_is_the_inverse_of_our_scale_and_what_a_library_has_not_is_zero():
    naming = Naming(
        rows=(
            TensorRow(ours="logit_scale", theirs=("temperature",), as_inverse=True),
            TensorRow(ours="absent", theirs=()),
        )
    )
    ours = naming.to_ours({"temperature": torch.tensor(0.02)}, ["logit_scale", "absent"])
    assert ours["logit_scale"].exp().item() == pytest.approx(50)
    assert ours["absent"].item() == 0
    theirs = naming.from_ours(ours)
    assert list(theirs) == ["temperature"]
    assert theirs["temperature"].item() == pytest.approx(0.02, rel=1e-6)
