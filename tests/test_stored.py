import contextlib
import dataclasses
import gzip
import json
import math
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import DiptychError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.presets import preset
from diptych.model.text_tower import TextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights import registry
from diptych.weights import stored as stored_module
from diptych.weights.adapters import OWN
from diptych.weights.folder import About, Golden, Seal, write_config
from diptych.weights.hf_clip import CLIP_NAMES
from diptych.weights.hugging_face import config_to_hf
from diptych.weights.open_clip import config_to_open_clip, naming_of
from diptych.weights.packaged import DEFAULT_TOWERS
from diptych.weights.registry import list_models
from diptych.weights.stored import StoredModel, open_stored_model

IMAGE = ImageTowerConfig(image_size=32, patch_size=8, width=64, layers=2, heads=1, mlp_width=96)
TEXT = TextTowerConfig(context_length=16, vocab_size=600, width=64, layers=1, heads=1, mlp_width=80)
VIT_CONFIG = CLIPConfig(embed_dim=24, image=IMAGE, text=TEXT)  # heads of 64 channels, as in OpenAI's
RESNET_CONFIG = dataclasses.replace(VIT_CONFIG, image=preset("tiny-resnet").image)
BOTH = [VIT_CONFIG, RESNET_CONFIG]
IDS = {"start_token_id": 598, "end_token_id": 599, "vocab_size": 600}
SEAL = Seal(about=About(source="here"), sha256={}, golden=Golden(tokens=(), image_features=(), text_features=()))


def weights_of(config: CLIPConfig, seed: int = 0) -> dict[str, Tensor]:
    return CLIP(config, generator(seed)).state_dict()


def write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data))


def transformers_folder(folder: Path, seed: int = 0, weights: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", config_to_hf(VIT_CONFIG, **IDS))
    write_json(folder / "preprocessor_config.json", Preprocess(image_size=32).to_hf())
    safetensors.torch.save_file(CLIP_NAMES.from_ours(weights_of(VIT_CONFIG, seed)), folder / weights)
    return folder


def open_clip_folder(
    folder: Path, config: CLIPConfig = VIT_CONFIG, seed: int = 0, weights: str = "open_clip_model.safetensors"
) -> Path:
    folder.mkdir(exist_ok=True)
    preprocess = Preprocess(image_size=32, mean=(0.5, 0.5, 0.5))
    write_json(folder / "open_clip_config.json", config_to_open_clip(config, preprocess))
    tensors = naming_of(config).from_ours(weights_of(config, seed))
    if weights.endswith(".bin"):
        torch.save(tensors, folder / weights)
    else:
        safetensors.torch.save_file(tensors, folder / weights)
    return folder


def archive(config: CLIPConfig, path: Path) -> Path:
    """A TorchScript archive as OpenAI's: halves, and sizes among the tensors."""
    root = nn.Module()
    sizes = {"input_resolution": 32, "context_length": 16, "vocab_size": 600}
    theirs = naming_of(config).from_ours(weights_of(config))
    theirs = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in theirs.items()}
    for name, tensor in (theirs | {name: torch.tensor(size) for name, size in sizes.items()}).items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(last, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(root), str(path))
    return path


def assert_built(found: StoredModel, config: CLIPConfig, weights: dict[str, Tensor]) -> None:
    model = found.build()
    assert model.config == config
    assert not model.training
    built = model.state_dict()
    assert built.keys() == weights.keys()
    assert all(torch.equal(built[name], tensor) for name, tensor in weights.items())


def edit(path: Path, change) -> None:
    weights = safetensors.torch.load_file(path)
    change(weights)
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in weights.items()}, path)


# Layouts


def test_a_transformers_folder_opens(tmp_path):
    found = open_stored_model(transformers_folder(tmp_path))
    assert (found.kind, found.naming, found.seal) == ("transformers folder", CLIP_NAMES, None)
    assert found.weights == tmp_path / "model.safetensors"
    assert_built(open_stored_model(tmp_path), VIT_CONFIG, weights_of(VIT_CONFIG))


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize(
    "weights",
    ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin"],
)
def test_an_open_clip_folder_opens_whatever_its_weights_are_called(tmp_path, config, weights):
    open_clip_folder(tmp_path, config, weights=weights)
    found = open_stored_model(tmp_path)
    assert (found.kind, found.weights, found.seal) == ("open_clip folder", tmp_path / weights, None)
    assert found.preprocess == Preprocess(image_size=32, mean=(0.5, 0.5, 0.5))
    assert_built(open_stored_model(tmp_path), config, weights_of(config))


def test_weights_in_parts_open(tmp_path):
    transformers_folder(tmp_path)
    theirs = safetensors.torch.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").rename(tmp_path / "all")
    places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(theirs)}
    for part in set(places.values()):
        safetensors.torch.save_file({name: theirs[name] for name in theirs if places[name] == part}, tmp_path / part)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": places})
    assert_built(open_stored_model(tmp_path), VIT_CONFIG, weights_of(VIT_CONFIG))


def test_of_two_layouts_in_a_folder_transformers_wins_where_it_has_weights(tmp_path):
    transformers_folder(tmp_path, seed=1)
    open_clip_folder(tmp_path, seed=2)
    assert_built(open_stored_model(tmp_path), VIT_CONFIG, weights_of(VIT_CONFIG, 1))
    assert_built(
        open_stored_model(tmp_path, weights="open_clip_model.safetensors"), VIT_CONFIG, weights_of(VIT_CONFIG, 2)
    )
    (tmp_path / "model.safetensors").unlink()
    assert_built(open_stored_model(tmp_path), VIT_CONFIG, weights_of(VIT_CONFIG, 2))


def test_weights_of_any_name_are_read_by_the_config_that_their_tensors_fit(tmp_path):
    for folder, make in (("a", transformers_folder), ("b", open_clip_folder)):
        transformers_folder(tmp_path / folder, seed=1)
        open_clip_folder(tmp_path / folder, seed=2)
        for path in (tmp_path / folder).glob("*.safetensors"):
            path.unlink()
        make(tmp_path / folder, seed=3, weights="best.safetensors")
        assert_built(open_stored_model(tmp_path / folder), VIT_CONFIG, weights_of(VIT_CONFIG, 3))
    kinds = [open_stored_model(tmp_path / folder).kind for folder in "ab"]
    assert kinds == ["transformers folder", "open_clip folder"]


def test_a_folder_of_several_models_names_them(tmp_path):
    for name in ("one", "two"):
        transformers_folder(tmp_path / name)
    with pytest.raises(WeightsError, match=r"must be a model's folder, and has 2 within: .*one, .*two\. Give one"):
        open_stored_model(tmp_path)


@pytest.mark.parametrize("data", [{"model_type": "timm_wrapper"}, {"architecture": "vit_base"}])
def test_a_config_of_another_library_beside_open_clips_is_left_alone(tmp_path, data):
    open_clip_folder(tmp_path, weights="model.safetensors")
    write_json(tmp_path / "config.json", data)
    assert open_stored_model(tmp_path).kind == "open_clip folder"
    assert_built(open_stored_model(tmp_path), VIT_CONFIG, weights_of(VIT_CONFIG))


def test_a_seal_of_ours_is_read_from_either_config(tmp_path):
    write_config(transformers_folder(tmp_path / "hf") / "config.json", config_to_hf(VIT_CONFIG, **IDS), SEAL)
    found = open_stored_model(tmp_path / "hf")
    assert (found.kind, found.seal) == ("diptych bundle", SEAL)
    path = open_clip_folder(tmp_path / "oc") / "open_clip_config.json"
    write_config(path, json.loads(path.read_text()), SEAL)
    assert open_stored_model(tmp_path / "oc").seal == SEAL


def test_the_first_resnet_bundles_which_had_our_own_names_open(tmp_path):
    plain = {"model_type": "diptych-clip", "model": dataclasses.asdict(RESNET_CONFIG)}
    del plain["model"]["text"]["end_token_id"]  # None, which plain data leaves out
    write_json(tmp_path / "config.json", plain)
    write_json(tmp_path / "preprocessor_config.json", Preprocess(image_size=32).to_hf())
    safetensors.torch.save_file(weights_of(RESNET_CONFIG), tmp_path / "model.safetensors")
    assert open_stored_model(tmp_path).naming == OWN
    assert_built(open_stored_model(tmp_path), RESNET_CONFIG, weights_of(RESNET_CONFIG))


def test_newer_resnet_bundles_have_the_names_of_open_clip(tmp_path):
    open_clip_folder(tmp_path, RESNET_CONFIG, weights="model.safetensors")
    plain = {"model_type": "diptych-clip", "model": dataclasses.asdict(RESNET_CONFIG)}
    del plain["model"]["text"]["end_token_id"]
    write_json(tmp_path / "config.json", plain)
    write_json(tmp_path / "preprocessor_config.json", Preprocess(image_size=32).to_hf())
    assert open_stored_model(tmp_path).naming == naming_of(RESNET_CONFIG)
    assert_built(open_stored_model(tmp_path), RESNET_CONFIG, weights_of(RESNET_CONFIG))


@pytest.mark.skipif(not list_models(), reason="no model ships with this installation")
def test_the_shipped_model_opens_and_lies_in_its_file():
    folder = Path(registry.__file__).with_name("models") / DEFAULT_TOWERS
    found = open_stored_model(folder)
    assert found.kind == "diptych bundle"
    assert found.build().state_dict().keys() == CLIP(found.config).state_dict().keys()


# Single files


@pytest.mark.parametrize("config", BOTH)
def test_a_bare_state_dict_opens_when_its_activation_is_said(tmp_path, config):
    path = open_clip_folder(tmp_path, config) / "open_clip_model.safetensors"
    found = open_stored_model(path, activation="gelu")
    assert (found.kind, found.preprocess) == ("open_clip state dict", Preprocess(image_size=32))
    towers = {"text": dataclasses.replace(config.text, activation="gelu")}
    if config is VIT_CONFIG:
        towers["image"] = dataclasses.replace(config.image, activation="gelu")
    assert_built(open_stored_model(path, activation="gelu"), dataclasses.replace(config, **towers), weights_of(config))
    assert_built(open_stored_model(path), config, weights_of(config))  # by the config beside it
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(WeightsError, match="a bare state dict does not tell its activation"):
        open_stored_model(path)


def test_heads_of_another_width_are_taken_as_said(tmp_path):
    path = open_clip_folder(tmp_path) / "open_clip_model.safetensors"
    assert open_stored_model(path, activation="gelu", heads=4).config.image.heads == 4
    with pytest.raises(WeightsError, match=r"safetensors: image\.heads must divide image\.width"):
        open_stored_model(path, activation="gelu", heads=7)


@pytest.mark.parametrize("config", BOTH)
def test_an_archive_of_openai_opens_with_quick_gelu_and_nothing_said(tmp_path, config):
    path = archive(config, tmp_path / "x.pt")
    found = open_stored_model(path)
    assert (found.kind, found.naming) == ("OpenAI archive", naming_of(config))
    rounded = {
        name: tensor.half().float() if tensor.is_floating_point() else tensor
        for name, tensor in weights_of(config).items()
    }
    assert_built(open_stored_model(path), config, rounded)


def test_a_state_dict_of_openai_is_known_by_the_sizes_in_it(tmp_path):
    theirs = naming_of(VIT_CONFIG).from_ours(weights_of(VIT_CONFIG)) | {"input_resolution": torch.tensor(32)}
    torch.save(theirs, tmp_path / "x.pt")
    assert open_stored_model(tmp_path / "x.pt").kind == "OpenAI state dict"
    assert_built(open_stored_model(tmp_path / "x.pt"), VIT_CONFIG, weights_of(VIT_CONFIG))


def test_newer_names_and_a_scale_of_one_dimension_are_read(tmp_path):
    theirs = naming_of(VIT_CONFIG).from_ours(weights_of(VIT_CONFIG))
    theirs["logit_scale"] = theirs["logit_scale"][None]
    text = ("token_embedding", "positional_embedding", "ln_final", "transformer", "text_projection", "attn_mask")
    theirs["attn_mask"] = torch.zeros(16, 16)
    theirs = {f"text.{name}" if name.startswith(text) else name: tensor for name, tensor in theirs.items()}
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in theirs.items()}}, tmp_path / "x.pt"
    )
    assert_built(open_stored_model(tmp_path / "x.pt", activation="quick_gelu"), VIT_CONFIG, weights_of(VIT_CONFIG))


def test_tinyclips_three_modules_are_one_model(tmp_path):
    names = naming_of(VIT_CONFIG).from_ours(weights_of(VIT_CONFIG))
    homes = {"visual": "_image_encoder.module.", "logit_scale": "_logit_scale."}
    theirs = {homes.get(name.split(".")[0], "_text_encoder.") + name: tensor for name, tensor in names.items()}
    torch.save({"epoch": 1, "state_dict": theirs}, tmp_path / "x.pt")
    assert_built(open_stored_model(tmp_path / "x.pt", activation="quick_gelu"), VIT_CONFIG, weights_of(VIT_CONFIG))


def test_long_clips_two_kinds_of_positions_are_one_and_its_activation_is_known(tmp_path):
    long = dataclasses.replace(VIT_CONFIG, text=dataclasses.replace(VIT_CONFIG.text, context_length=30))
    theirs = naming_of(long).from_ours(weights_of(long))
    whole = theirs["positional_embedding"]
    theirs["positional_embedding"] = torch.cat([whole[:20], whole[20:] + 1])
    theirs["positional_embedding_res"] = torch.cat([whole[:20] + 1, whole[20:]])
    torch.save(theirs, tmp_path / "longclip.pt")
    assert_built(open_stored_model(tmp_path / "longclip.pt"), long, weights_of(long))


def test_a_folder_tells_its_activation_and_heads_itself(tmp_path):
    transformers_folder(tmp_path)
    with pytest.raises(WeightsError, match=r"tells its own (activation|heads): leave that out"):
        open_stored_model(tmp_path, activation="gelu")
    with pytest.raises(WeightsError, match=r"tells its own (activation|heads): leave that out"):
        open_stored_model(tmp_path, heads=1)


# Memory


def test_a_model_in_float32_keeps_the_memory_of_its_file(tmp_path):
    path = open_clip_folder(tmp_path) / "open_clip_model.safetensors"
    found = open_stored_model(path, activation="gelu")
    parameters = dict(found.build().named_parameters())
    theirs = naming_of(VIT_CONFIG).to_ours(found.tensors, parameters)
    assert all(parameters[name].data_ptr() == tensor.data_ptr() for name, tensor in theirs.items())


def test_a_model_in_half_becomes_float32(tmp_path):
    halves = {
        name: tensor.bfloat16() for name, tensor in naming_of(VIT_CONFIG).from_ours(weights_of(VIT_CONFIG)).items()
    }
    safetensors.torch.save_file(halves, tmp_path / "x.safetensors")
    rounded = {name: tensor.bfloat16().float() for name, tensor in weights_of(VIT_CONFIG).items()}
    assert_built(open_stored_model(tmp_path / "x.safetensors", activation="quick_gelu"), VIT_CONFIG, rounded)


# Tensors that do not fit


def test_missing_and_unexpected_tensors_are_counted_and_named(tmp_path):
    def change(weights):
        del weights["text_projection.weight"], weights["logit_scale"]
        weights["head.weight"] = torch.zeros(3)

    edit(transformers_folder(tmp_path) / "model.safetensors", change)
    message = (
        r"model\.safetensors does not fit the model's sizes: 2 missing \(logit_scale, text_projection\.weight\), "
        r"1 unexpected \(head\.weight\)\. Was it saved from another architecture\?"
    )
    with pytest.raises(WeightsError, match=message):
        open_stored_model(tmp_path).build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["text_config"].update(num_hidden_layers=0), r"text\.layers must be at least 1"),
        (lambda data: data["vision_config"].update(num_hidden_layers=1), r"16 unexpected \(.*, \.\.\.\)"),
        (
            lambda data: data.update(projection_dim=31),
            r"2 of another shape \(visual_projection\.weight \[24, 64\] instead of \[31, 64\], text_pro",
        ),
        (lambda data: data.update(model_type="siglip"), r"missing"),
        (lambda data: data.update(model_type="bert"), r"model_type"),
    ],
)
def test_a_config_that_does_not_fit_is_told_in_one_line(tmp_path, change, message):
    path = transformers_folder(tmp_path) / "config.json"
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)
    with pytest.raises(WeightsError, match=message) as caught:
        open_stored_model(tmp_path).build()
    assert "\n" not in str(caught.value)


def test_a_tensor_of_another_shape_in_an_open_clip_folder_is_named(tmp_path):
    path = open_clip_folder(tmp_path) / "open_clip_model.safetensors"
    edit(path, lambda weights: weights.update({"visual.proj": torch.zeros(24, 64)}))
    with pytest.raises(WeightsError, match=r"1 of another shape \(visual\.proj \[24, 64\] instead of \[64, 24\]\)"):
        open_stored_model(tmp_path).build()


def test_weights_that_are_whole_numbers_are_refused(tmp_path):
    path = transformers_folder(tmp_path) / "model.safetensors"
    edit(path, lambda weights: weights.update(logit_scale=torch.tensor(3)))
    with pytest.raises(WeightsError, match=r"logit_scale must be torch\.float32 or alike\. Got torch\.int64"):
        open_stored_model(tmp_path).build()


def test_tensors_that_hold_no_weights_may_be_there_or_not(tmp_path):
    path = transformers_folder(tmp_path / "vit") / "model.safetensors"
    edit(path, lambda weights: weights.update({"text_model.embeddings.position_ids": torch.arange(16)[None]}))
    assert_built(open_stored_model(tmp_path / "vit"), VIT_CONFIG, weights_of(VIT_CONFIG))

    def drop_counters(weights):
        for name in [name for name in weights if name.endswith("num_batches_tracked")]:
            del weights[name]

    edit(open_clip_folder(tmp_path / "resnet", RESNET_CONFIG) / "open_clip_model.safetensors", drop_counters)
    assert_built(open_stored_model(tmp_path / "resnet"), RESNET_CONFIG, weights_of(RESNET_CONFIG))


# Files that are missing or damaged


def test_a_folder_without_a_config_or_weights_says_which(tmp_path):
    with pytest.raises(WeightsError, match=r"must hold config\.json or open_clip_config\.json, and has neither"):
        open_stored_model(tmp_path)
    write_json(tmp_path / "open_clip_config.json", {})
    with pytest.raises(WeightsError, match=r"must hold model\.safetensors, or weights under another"):
        open_stored_model(tmp_path)


def test_a_path_where_nothing_is_says_so(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pt must be a file of weights, and there is none"):
        open_stored_model(tmp_path / "none.pt")


@pytest.mark.parametrize("text", ["{'model_cfg': {}}", "[]", "", "{}", '{"model_cfg": 3}', '{"model_cfg": {}}'])
def test_a_damaged_open_clip_config_is_named(tmp_path, text):
    (open_clip_folder(tmp_path) / "open_clip_config.json").write_text(text)
    with pytest.raises(WeightsError, match=rf"{tmp_path}.* must ") as caught:
        open_stored_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 7, 500, -1])
def test_truncated_weights_in_a_folder_are_refused(tmp_path, kept):
    path = transformers_folder(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read: .* Copy or download it again"):
        open_stored_model(tmp_path)


# Tokenizers


def write_merges(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(b"#version\nc a\nca t</w>\n"))
    return path


def test_a_tokenizer_is_found_beside_the_weights_or_is_said(tmp_path, tokenizer: Tokenizer):
    transformers_folder(tmp_path / "m")
    with pytest.raises(
        WeightsError, match=r"m comes without a tokenizer\. Put tokenizer\.json or bpe_simple_vocab_16e6"
    ):
        open_stored_model(tmp_path / "m").read_tokenizer()
    elsewhere = tmp_path / "tokenizer"
    elsewhere.mkdir()
    tokenizer.save(elsewhere)
    found = open_stored_model(tmp_path / "m", tokenizer=elsewhere)
    assert found.read_tokenizer().fingerprint() == tokenizer.fingerprint()
    tokenizer.save(tmp_path / "m")
    found = open_stored_model(tmp_path / "m")
    assert found.tokenizer == tmp_path / "m"
    assert found.read_tokenizer().fingerprint() == tokenizer.fingerprint()
    merges = write_merges(tmp_path / "merges.txt.gz")
    assert open_stored_model(tmp_path / "m", tokenizer=merges).read_tokenizer().encode(["cat"])[0, 1] == 513


def test_the_tokenizer_has_the_context_length_of_the_model(tmp_path, tokenizer: Tokenizer):
    transformers_folder(tmp_path)
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    write_json(path, json.loads(path.read_text()) | {"model_max_length": 10**30})  # transformers' "not known"
    assert open_stored_model(tmp_path).read_tokenizer().context_length == 16


def test_a_tokenizer_that_is_said_and_is_not_there_is_named(tmp_path):
    transformers_folder(tmp_path)
    with pytest.raises(WeightsError, match=r"gone\.txt"):
        open_stored_model(tmp_path, tokenizer=tmp_path / "gone.txt").read_tokenizer()


@pytest.fixture
def clip_sized(tmp_path) -> Path:
    """A bare state dict with CLIP's vocabulary, alone in its folder."""
    config = dataclasses.replace(VIT_CONFIG, text=dataclasses.replace(TEXT, vocab_size=49_408))
    return open_clip_folder(tmp_path / "m", config) / "open_clip_model.safetensors"


def test_clips_published_merges_beside_the_weights_are_taken(tmp_path, clip_sized):
    assert open_stored_model(clip_sized, activation="gelu").tokenizer is None
    merges = write_merges(clip_sized.with_name("bpe_simple_vocab_16e6.txt.gz"))
    found = open_stored_model(clip_sized, activation="gelu")
    assert found.tokenizer == merges
    assert found.read_tokenizer().encode(["cat"])[0, 1] == 513  # 512 symbols, then the merges in their order
    smaller = open_clip_folder(tmp_path / "small")
    write_merges(smaller / "bpe_simple_vocab_16e6.txt.gz")
    assert open_stored_model(smaller).tokenizer is None  # not of this vocabulary


@pytest.mark.parametrize("package", ["open_clip", "clip"])
def test_the_merges_of_an_installed_package_are_taken_and_the_package_is_not_run(
    tmp_path, clip_sized, package, monkeypatch
):
    place = tmp_path / "site" / package
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("raise AssertionError('imported')")
    merges = write_merges(place / "bpe_simple_vocab_16e6.txt.gz")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert open_stored_model(clip_sized, activation="gelu").tokenizer == merges


def test_sizes_that_the_file_cannot_hold_are_refused_before_they_are_built(tmp_path, monkeypatch):
    path = transformers_folder(tmp_path) / "config.json"
    whole = json.loads(path.read_text())
    monkeypatch.setattr(stored_module, "CLIP", None)  # nothing is built
    for tower, key, value, said in (
        (
            "text_config",
            "num_hidden_layers",
            1_000_000,
            r"text\.layers must be at most \d+, by what model\.safetensors",
        ),
        ("vision_config", "num_hidden_layers", 10**9, r"image\.layers must be at most"),
        ("text_config", "vocab_size", 10**12, r"text\.vocab_size must be at most"),
        ("vision_config", "image_size", 10**6, r"image\.image_size must be at most 16,384"),
        ("vision_config", "intermediate_size", 10**30, r"image\.mlp_width .* Got a number beyond counting"),
    ):
        write_json(path, whole | {tower: whole[tower] | {key: value}})
        with pytest.raises(WeightsError, match=said):
            open_stored_model(tmp_path).build()


def test_a_name_with_a_number_beyond_all_layers_does_not_make_them(tmp_path):
    weights = naming_of(VIT_CONFIG).from_ours(weights_of(VIT_CONFIG))
    weights["transformer.resblocks.999999999.ln_1.weight"] = torch.ones(1)
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"text\.layers must be at most .* Got 1,000,000,000"):
        open_stored_model(tmp_path / "model.safetensors", activation="gelu").build()


NASTY = [10**30, 10**400, -1, 0, math.inf, math.nan, "x", None, [], {}, True, [1, 2, 3], [[]], "gelu" * 1000]
KEYS = [
    ("config.json", ("text_config",)),
    ("config.json", ("projection_dim",)),
    ("config.json", ("text_config", "hidden_act")),
    ("config.json", ("vision_config", "layer_norm_eps")),
    ("config.json", ("vision_config", "image_size")),
    ("preprocessor_config.json", ("size",)),
    ("preprocessor_config.json", ("crop_size", "height")),
    ("preprocessor_config.json", ("rescale_factor",)),
    ("preprocessor_config.json", ("image_mean",)),
    ("preprocessor_config.json", ("resample",)),
]


@pytest.mark.parametrize(("name", "keys"), KEYS)
def test_any_value_in_a_config_gives_a_model_or_a_sentence(tmp_path, name, keys):
    path = transformers_folder(tmp_path) / name
    whole = path.read_text()
    for value in NASTY:
        data = json.loads(whole)
        *parents, last = keys
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
        path.write_text(json.dumps(data))
        with contextlib.suppress(DiptychError):
            open_stored_model(tmp_path).build()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"projection_dim": ' + "9" * 5_000 + "}"])
def test_deep_json_and_endless_numbers_are_refused_in_a_sentence(tmp_path, text):
    path = transformers_folder(tmp_path) / "config.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json must be JSON"):
        open_stored_model(tmp_path)
