import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diptych.errors import WeightsError
from diptych.weights.not_weights import check_content, check_names, check_no_adapter, check_not_quantised
from diptych.weights.stored import open_stored_model
from test_stored import open_clip_folder, transformers_folder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 605247071\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>model.safetensors</title>"


def opened(path: Path) -> None:
    found = open_stored_model(path)
    found.build()
    found.read_tokenizer()


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_told_wherever_it_lies(tmp_path, name):
    transformers_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / name).write_bytes(POINTER)
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path / name} is a pointer of Git LFS")
    assert said.endswith("Run `git lfs pull` in its folder.")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "x.pt", "x.npz"])
def test_so_is_one_in_a_file_of_its_own(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    assert "is a pointer of Git LFS" in refused(tmp_path / name)


def test_a_part_that_is_a_pointer_is_named(tmp_path):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    (tmp_path / "part-1.safetensors").write_bytes(POINTER)
    assert refused(tmp_path).startswith(f"{tmp_path / 'part-1.safetensors'} is a pointer of Git LFS")


def test_a_web_page_in_the_place_of_weights_is_told(tmp_path):
    transformers_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(PAGE)
    assert "is a web page, not the file that it is called after" in refused(tmp_path)


def test_weights_themselves_are_not_taken_for_either(tmp_path):
    path = transformers_folder(tmp_path) / "model.safetensors"
    check_content(path)
    check_content(tmp_path / "missing")


LORA = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"


def test_a_folder_of_an_adapter_is_refused_whole_weights_beside_it_or_not(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    safetensors.torch.save_file({LORA: torch.zeros(2, 3)}, tmp_path / "adapter_model.safetensors")
    assert "is an adapter, as its adapter_config.json says. It needs the model" in refused(tmp_path)
    transformers_folder(tmp_path)
    assert "merge the two with peft" in refused(tmp_path)
    open_stored_model(tmp_path, weights="model.safetensors").build()  # by its name it is meant


@pytest.mark.parametrize(
    "name",
    [
        LORA,
        "visual.transformer.resblocks.0.attn.lora_B.default.weight",
        "text_model.encoder.layers.1.mlp.fc1.lora_magnitude_vector",
        "visual.transformer.resblocks.0.mlp.c_fc.hada_w1_a",
    ],
)
def test_tensors_of_an_adapter_are_refused_by_name(tmp_path, name):
    safetensors.torch.save_file({name: torch.zeros(2, 3)}, tmp_path / "x.safetensors")
    said = refused(tmp_path / "x.safetensors")
    assert said.startswith(f"{tmp_path / 'x.safetensors'} holds an adapter ({name}).")


@pytest.mark.parametrize(
    ("end", "dtype"),
    [
        ("qweight", torch.int32),
        ("qzeros", torch.int32),
        ("g_idx", torch.int32),
        ("SCB", torch.float32),
        ("weight.absmax", torch.uint8),
        ("weight.quant_state.bitsandbytes__nf4", torch.uint8),
        ("weight_scale", torch.float32),
    ],
)
def test_quantised_tensors_are_refused_by_name(tmp_path, end, dtype):
    transformers_folder(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    name = f"vision_model.encoder.layers.0.mlp.fc1.{end}"
    safetensors.torch.save_file(weights | {name: torch.zeros(2, dtype=dtype)}, tmp_path / "model.safetensors")
    assert f"holds quantised weights ({name}). diptych has 8 bits of its own" in refused(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "fp8"])
def test_a_config_that_says_quantised_is_believed(tmp_path, method):
    path = transformers_folder(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": method}}))
    assert refused(tmp_path).startswith(f"{tmp_path} is quantised (quantization_config: {method}).")


def test_what_is_none_of_these_passes(tmp_path):
    for folder in (transformers_folder(tmp_path / "a"), open_clip_folder(tmp_path / "b")):
        (weights,) = folder.glob("*.safetensors")
        check_names(safetensors.torch.load_file(weights), weights)
    check_no_adapter(["config.json", "adapter.txt"], "here")
    check_not_quantised({"model_type": "clip", "quantization_config": None}, "here")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_floats_of_any_size_are_read_as_float32(tmp_path, dtype):
    transformers_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(weights, path)
    found = open_stored_model(tmp_path)
    built = found.build().state_dict()
    expected = found.naming.to_ours(weights, built)
    assert all(tensor.dtype == torch.float32 for tensor in built.values())
    assert all(torch.equal(built[name], tensor.float()) for name, tensor in expected.items())


def test_complex_numbers_and_four_bits_are_refused(tmp_path):
    transformers_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    name = "vision_model.post_layernorm.bias"
    safetensors.torch.save_file(weights | {name: weights[name].to(torch.complex64)}, path)
    assert "must be torch.float32 or alike. Got torch.complex64" in refused(tmp_path)
    shutil.rmtree(tmp_path)
    transformers_folder(tmp_path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[name]["dtype"] = "F4"
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])
    assert "model.safetensors cannot be read" in refused(tmp_path)
