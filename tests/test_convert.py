import dataclasses
import json
import resource
from pathlib import Path
from typing import Literal

import pytest
import safetensors
import torch

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.model.resnet_tower import ResNetTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as
from diptych.weights.folder import About
from standins import draw

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
ABOUT = About(source="here", licence="CC0-1.0", data="drawn")
VIT = CLIPConfig(  # heads of 64 channels and MLPs of four widths, as OpenAI's code has them
    embed_dim=24,
    image=ImageTowerConfig(image_size=32, patch_size=8, width=128, layers=2, heads=2),
    text=TextTowerConfig(context_length=16, vocab_size=600, width=64, layers=2, heads=1),
)
RESNET = dataclasses.replace(VIT, image=preset("tiny-resnet").image)
UNEVEN = dataclasses.replace(
    VIT,
    image=dataclasses.replace(VIT.image, heads=4, mlp_width=100, layer_norm_eps=1e-6),
    text=dataclasses.replace(VIT.text, heads=2, mlp_width=81),
)


def with_activation(config: CLIPConfig, activation: Activation) -> CLIPConfig:
    image = config.image
    if isinstance(image, ImageTowerConfig):
        image = dataclasses.replace(image, activation=activation)
    assert isinstance(config.text, TextTowerConfig)
    return dataclasses.replace(config, image=image, text=dataclasses.replace(config.text, activation=activation))


def bundle_of(config: CLIPConfig, tokenizer: Tokenizer) -> Bundle:
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size)
    model = CLIP(dataclasses.replace(config, text=text), generator(0))
    draw(model, seed=0)
    torch.nn.init.constant_(model.logit_scale, 3.7)
    preprocess = Preprocess(image_size=32, mean=(0.1, 0.4, 0.9), std=(0.2, 0.25, 0.3))
    return Bundle(model=model.eval(), preprocess=preprocess, tokenizer=tokenizer, about=ABOUT)


def assert_same(found: Bundle, expected: Bundle) -> None:
    ours, theirs = expected.model.state_dict(), found.model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert found.model.config == expected.model.config
    assert found.logit_scale == expected.logit_scale
    assert found.tokenizer.fingerprint() == expected.tokenizer.fingerprint()


# There and back


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("config", [VIT, UNEVEN])
def test_ours_to_transformers_and_back_is_the_same(tmp_path, tokenizer, config, activation):
    bundle = bundle_of(with_activation(config, activation), tokenizer)
    save_as(bundle, tmp_path / "x", format="huggingface")
    found = Bundle.load(tmp_path / "x")
    assert_same(found, bundle)
    assert (found.preprocess, found.about) == (bundle.preprocess, ABOUT)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["model_type"] == "clip"


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("config", [VIT, UNEVEN, RESNET])
def test_ours_to_open_clip_and_back_is_the_same(tmp_path, tokenizer, config, activation):
    bundle = bundle_of(with_activation(config, activation), tokenizer)
    save_as(bundle, tmp_path / "x", format="open_clip")
    found = Bundle.load(tmp_path / "x")
    assert_same(found, bundle)
    assert (found.preprocess, found.about) == (bundle.preprocess, ABOUT)
    assert {path.name for path in (tmp_path / "x").iterdir()} >= {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    assert not (tmp_path / "x" / "config.json").exists()


@pytest.mark.parametrize("config", [VIT, RESNET])
def test_ours_to_openai_and_back_is_the_same_with_nothing_said(tmp_path, tokenizer, config):
    bundle = bundle_of(config, tokenizer)
    save_as(bundle, tmp_path / "x.pt", format="openai")
    with pytest.raises(WeightsError, match="comes without a tokenizer"):
        Bundle.load(tmp_path / "x.pt")
    tokenizer.save(tmp_path)
    assert_same(Bundle.load(tmp_path / "x.pt"), bundle)
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    sizes = [32, 16, tokenizer.vocab_size]
    assert [state[name].item() for name in ("input_resolution", "context_length", "vocab_size")] == sizes


def test_an_end_token_survives_the_way_through_open_clip(tmp_path, tokenizer):
    config = dataclasses.replace(VIT, text=dataclasses.replace(VIT.text, end_token_id=tokenizer.end_token_id))
    bundle = bundle_of(config, tokenizer)
    save_as(bundle, tmp_path / "x", format="open_clip")
    assert_same(Bundle.load(tmp_path / "x"), bundle)


def test_a_chain_of_formats_ends_where_it_began(tmp_path, tokenizer):
    bundle = found = bundle_of(VIT, tokenizer)
    for number, format_ in enumerate(("open_clip", "huggingface", "open_clip")):
        save_as(found, tmp_path / str(number), format=format_)
        found = Bundle.load(tmp_path / str(number))
    assert_same(found, bundle)
    assert found.fingerprint() == bundle.fingerprint()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("format_", "name"), [("huggingface", "x"), ("open_clip", "x"), ("openai", "x.pt")])
def test_parameters_are_stored_as_asked_and_the_scale_stays_whole(tmp_path, tokenizer, dtype, format_, name):
    bundle = bundle_of(VIT, tokenizer)
    tokenizer.save(tmp_path)
    save_as(bundle, tmp_path / name, format=format_, dtype=dtype)
    found = Bundle.load(tmp_path / name)
    assert found.logit_scale == bundle.logit_scale
    for name_, tensor in bundle.model.state_dict().items():
        stored = tensor if tensor.ndim == 0 else tensor.to(dtype).float()
        assert torch.equal(found.model.state_dict()[name_], stored), name_
    if format_ == "openai":
        assert torch.load(tmp_path / "x.pt", weights_only=True)["visual.proj"].dtype == dtype


def test_a_model_that_was_mapped_is_written_alone(tmp_path, tokenizer):
    """torch.save writes the whole storage of a tensor, which for a mapped one is its whole file."""
    save_as(bundle_of(VIT, tokenizer), tmp_path / "a", format="open_clip")
    save_as(Bundle.load(tmp_path / "a"), tmp_path / "b.pt", format="openai")
    whole = (tmp_path / "a" / "open_clip_model.safetensors").stat().st_size
    assert whole < (tmp_path / "b.pt").stat().st_size < 1.1 * whole


# What is checked on load


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    save_as(bundle_of(VIT, tokenizer), tmp_path / "x", format="open_clip")
    return tmp_path / "x"


def edit_config(folder: Path, edit) -> None:
    path = folder / "open_clip_config.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_another_activation_in_open_clips_config_is_found(folder):
    edit_config(folder, lambda data: data["model_cfg"].pop("quick_gelu"))
    message = r"_features are [\d.]+ off.* open_clip_config\.json was changed since\. Restore it"
    with pytest.raises(WeightsError, match=message):
        Bundle.load(folder)
    Bundle.load(folder, verify=False)


def test_swapped_colour_channels_in_open_clips_config_are_found(folder):
    edit_config(folder, lambda data: data["preprocess_cfg"]["mean"].reverse())
    with pytest.raises(
        WeightsError, match=r"and image_features are [\d.]+ off\. open_clip_config\.json was changed since"
    ):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "open_clip_model.safetensors"])
def test_a_changed_tokenizer_or_weights_of_an_open_clip_folder_are_found(folder, name):
    data = bytearray((folder / name).read_bytes())
    if name == "tokenizer.json":
        data = data.replace(b'"q</w>"', b'"\x00"').replace(b'"z</w>"', b'"q</w>"').replace(b'"\x00"', b'"z</w>"')
    else:
        data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{name} must be the file that was saved with the bundle, and its SHA-256"):
        Bundle.load(folder)


def test_the_block_of_an_open_clip_folder_is_beside_what_open_clip_reads(folder):
    data = json.loads((folder / "open_clip_config.json").read_text())
    assert data.keys() == {"model_cfg", "preprocess_cfg", "diptych"}
    assert data["diptych"]["about"]["licence"] == "CC0-1.0"
    assert data["diptych"]["sha256"].keys() == {
        "open_clip_model.safetensors", "tokenizer.json", "preprocessor_config.json", "open_clip_config.json",
        "vocab.json", "merges.txt", "tokenizer_config.json",
    }  # fmt: skip


def test_tensors_of_an_open_clip_folder_have_their_names(folder):
    with safetensors.safe_open(folder / "open_clip_model.safetensors", "pt") as file:
        assert {"visual.proj", "transformer.resblocks.1.attn.in_proj_weight", "logit_scale"} <= set(file.keys())
        assert file.metadata() == {"format": "pt"}


# What cannot be written


SIGLIP_IMAGE = SigLIPImageTowerConfig(image_size=32, patch_size=8, width=24, layers=1, heads=2)
SIGLIP_TEXT = SigLIPTextTowerConfig(context_length=16, vocab_size=600, width=64, layers=1, heads=2)
SIGLIP = CLIPConfig(embed_dim=24, head="sigmoid", image=SIGLIP_IMAGE, text=SIGLIP_TEXT)
THREE_STAGES = dataclasses.replace(RESNET, image=ResNetTowerConfig(image_size=32, width=8, layers=(1, 1, 1), heads=2))


@pytest.mark.parametrize(
    ("config", "format_", "message"),
    [
        (RESNET, "huggingface", r"transformers has no class for CLIP's ResNets.* Use the format open_clip or openai"),
        (dataclasses.replace(VIT, head="sigmoid"), "huggingface", "transformers has no class for"),
        (dataclasses.replace(VIT, image=SIGLIP_IMAGE), "huggingface", "transformers has no class for"),
        (SIGLIP, "open_clip", "save a SigLIP model as huggingface"),
        (SIGLIP, "openai", r"CLIP's towers and a softmax head, and no other\. Got siglip and siglip"),
        (THREE_STAGES, "open_clip", "has 4 stages. Got 3: keep it as a bundle"),
        (THREE_STAGES, "openai", r"no other\. Got resnet of 3 stages"),
        (dataclasses.replace(VIT, head="sigmoid"), "openai", "a softmax head, and no other"),
        (dataclasses.replace(VIT, image=SIGLIP_IMAGE), "openai", "CLIP's towers and a softmax head, and no other"),
        (with_activation(VIT, "gelu"), "openai", r"Got activation=gelu, activation=gelu: use the format open_clip"),
        (with_activation(RESNET, "gelu"), "openai", r"Got activation=gelu: use the format open_clip"),
        (UNEVEN, "openai", r"Got heads=4, mlp_width=100, layer_norm_eps=1e-06, heads=2, mlp_width=81: use"),
        (
            dataclasses.replace(RESNET, image=dataclasses.replace(preset("tiny-resnet").image, heads=4)),
            "openai",
            "Got heads=4: use the format open_clip",
        ),
        (
            dataclasses.replace(VIT, text=dataclasses.replace(VIT.text, end_token_id=599)),
            "openai",
            "Got end_token_id=599 instead of the highest id",
        ),
    ],
)
def test_a_model_that_a_library_does_not_have_is_refused(tmp_path, tokenizer, config, format_, message):
    text = config.text
    if isinstance(text, TextTowerConfig) and text.end_token_id is not None:
        text = dataclasses.replace(text, end_token_id=tokenizer.end_token_id)
        config, message = dataclasses.replace(config, text=text), message.replace("599", str(tokenizer.end_token_id))
    with pytest.raises(ConfigError, match=message):
        save_as(bundle_of(config, tokenizer), tmp_path / "x.pt", format=format_)
    assert list(tmp_path.iterdir()) == []


def test_two_activations_are_refused_by_open_clip(tmp_path, tokenizer):
    config = dataclasses.replace(VIT, text=dataclasses.replace(VIT.text, activation="gelu"))
    with pytest.raises(ConfigError, match="open_clip has one activation for both towers"):
        save_as(bundle_of(config, tokenizer), tmp_path / "x", format="open_clip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["huggingface", "open_clip", "openai"])
def test_another_type_than_we_store_is_refused(tmp_path, tokenizer, format_):
    with pytest.raises(ConfigError, match=r"Got torch\.float64"):
        save_as(bundle_of(VIT, tokenizer), tmp_path / "x.pt", format=format_, dtype=torch.float64)
    assert list(tmp_path.iterdir()) == []


def test_another_format_and_another_ending_are_refused(tmp_path, tokenizer):
    bundle = bundle_of(VIT, tokenizer)
    with pytest.raises(
        ConfigError, match=r"open-clip is not a format\. Did you mean open_clip\? Options: bundle, huggingface, "
    ):
        save_as(bundle, tmp_path / "x", format="open-clip")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"one file that ends in \.pt\. Got .*x\.bin"):
        save_as(bundle, tmp_path / "x.bin", format="openai")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format_", "name"), [("huggingface", "x"), ("open_clip", "x"), ("openai", "x.pt")])
def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path, tokenizer, format_, name):
    bundle = bundle_of(VIT, tokenizer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match="could not be written: File too large"):
            save_as(bundle, tmp_path / name, format=format_)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["huggingface", "open_clip"])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, tokenizer, format_):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.jpg").write_bytes(b"a cat")
    with pytest.raises(DataError, match=r"pictures must be a model's folder, be empty or absent"):
        save_as(bundle_of(VIT, tokenizer), pictures, format=format_)
    assert [path.name for path in tmp_path.rglob("*")] == ["pictures", "cat.jpg"]
