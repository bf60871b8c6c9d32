"""The model's tensors are found in whatever training code wrapped them."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from diptych.errors import WeightsError
from diptych.weights.state_dict import find_state_dict
from diptych.weights.tensors import read_tensors

WHERE = Path("x.pt")
CLIP = {name: torch.full((2,), i) for i, name in enumerate(("visual.conv1.weight", "text_projection", "logit_scale"))}
TRANSFORMERS = {
    name: torch.full((2,), i)
    for i, name in enumerate(("vision_model.embeddings.patch_embedding.weight", "text_model.x", "logit_scale"))
}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1}]}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_is(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(found[name] is tensor for name, tensor in expected.items())


@pytest.mark.parametrize("model", [CLIP, TRANSFORMERS])
@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "_orig_mod.module.", "module.model.", "clip.", "module._orig_mod.", "net.clip_model.", "a.b.c.d."],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_prefix_is_found_from_the_names_themselves_in_any_kind_of_file(tmp_path, model, prefix, ending):
    assert_is(find_state_dict(under(prefix, model), WHERE), model)
    path = tmp_path / f"x.{ending}"
    write = torch.save if ending == "pt" else safetensors.torch.save_file
    write(under(prefix, model), path)
    assert read_tensors(path).tensors.keys() == model.keys()


def test_what_is_beside_the_model_is_left_out():
    assert_is(find_state_dict(under("model.", CLIP) | {"criterion.weight": torch.zeros(2)}, WHERE), CLIP)


def test_wrappers_within_a_model_are_taken_off():
    inner = {"visual._fsdp_wrapped_module.conv1.weight": 0, "module.text_projection": 1, "logit_scale": 2}
    state = {name: CLIP[plain] for name, plain in zip(inner, CLIP, strict=True)}
    assert_is(find_state_dict(state, WHERE), CLIP)
    blocks = {"visual.transformer.resblocks.0._checkpoint_wrapped_module.ln_1.weight": torch.ones(1)}
    assert "visual.transformer.resblocks.0.ln_1.weight" in find_state_dict(CLIP | blocks, WHERE)


@pytest.mark.parametrize("key", ["state_dict", "model", "ema", "model_ema", "network", "whatever"])
def test_a_dict_one_deeper_is_taken_where_one_is_a_model(key):
    data = {"epoch": 3, key: CLIP, "optimizer": OPTIMIZER, "scaler": {"scale": torch.ones(())}, "args": None}
    assert_is(find_state_dict(data, WHERE), CLIP)
    assert_is(find_state_dict({"checkpoint": data}, WHERE), CLIP)


AND_AVERAGE: dict[str, tuple[dict[str, Any], str, str]] = {
    "two dicts": ({"model": CLIP, "ema": TRANSFORMERS, "optimizer": OPTIMIZER}, "model", "ema"),
    "timm's": ({"state_dict": CLIP, "state_dict_ema": TRANSFORMERS}, "state_dict", "state_dict_ema"),
    "two prefixes": (under("model.", CLIP) | under("ema.module.", TRANSFORMERS), "model", "ema"),
    "one within": (CLIP | under("ema_model.", TRANSFORMERS), ".", "ema_model"),
    "deeper": ({"model": under("module.", CLIP), "ema": {"module": TRANSFORMERS, "decay": 0.9}}, "model", "ema"),
}


@pytest.mark.parametrize("name", AND_AVERAGE)
def test_of_a_model_and_its_average_one_is_asked_for(name):
    data, model, average = AND_AVERAGE[name]
    with pytest.raises(WeightsError, match=r"holds 2 models: .*Say which is meant, e\.g\. state_dict=") as refused:
        find_state_dict(data, WHERE)
    assert model in str(refused.value)
    assert average in str(refused.value)
    assert_is(find_state_dict(data, WHERE, chosen=model), CLIP)
    assert_is(find_state_dict(data, WHERE, chosen=average), TRANSFORMERS)
    with pytest.raises(WeightsError, match=r"Got state_dict='no': choose one"):
        find_state_dict(data, WHERE, chosen="no")


def test_tensors_of_another_kind_of_model_stay_as_they_are():
    other = {"model.a": torch.ones(1), "model.b": torch.ones(1)}
    assert_is(find_state_dict(other, WHERE), other)
    assert_is(find_state_dict({"state_dict": other, "optimizer": OPTIMIZER}, WHERE), other)


def test_values_that_a_file_does_not_hold_are_not_made_up(tmp_path):
    torch.save({"visual.conv1.weight": torch.ones(1).expand(1_000_000_000)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"must hold all values of visual\.conv1\.weight, and repeats a few"):
        read_tensors(tmp_path / "x.pt")
