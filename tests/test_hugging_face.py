import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256
from diptych.model import blocks as blocks_module
from diptych.model.blocks import Block
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.naflex import NaFlexTowerConfig
from diptych.model.presets import preset
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.golden import golden_picture
from diptych.weights.hf_clip import CLIP_NAMES
from diptych.weights.hf_siglip import SIGLIP_NAMES
from diptych.weights.hub import MODEL_TYPES
from diptych.weights.hugging_face import LAYOUTS, config_from_hf, config_to_hf, hugging_face_naming
from foreign_tokenizers import FOREIGN, write_tokenizer
from foreign_tokenizers import TEXTS as FOREIGN_TEXTS
from siglip_standins import siglip_twin, write_siglip2_tokenizer, write_siglip_tokenizer
from standins import UNEVEN

IDS = {"start_token_id": 399, "end_token_id": 400, "vocab_size": 401}


def test_tensors_go_to_transformers_and_back_bit_for_bit():
    ours = CLIP(UNEVEN, generator(0)).state_dict()
    theirs = CLIP_NAMES.from_ours(ours)
    back = CLIP_NAMES.to_ours(theirs, ours)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    assert all(tensor.is_contiguous() for tensor in (*theirs.values(), *back.values()))


def test_names_and_shapes_are_those_of_transformers():
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**config_to_hf(UNEVEN, **IDS))).state_dict()
    written = CLIP_NAMES.from_ours(CLIP(UNEVEN).state_dict())
    assert {name: tensor.shape for name, tensor in written.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if not name.endswith("position_ids")
    }


def test_queries_keys_and_values_are_the_thirds_of_ours_in_this_order():
    ours = {"text.blocks.11.attention.in_projection.bias": torch.arange(6.0)}
    prefix = "text_model.encoder.layers.11.self_attn."
    theirs = {name: tensor.tolist() for name, tensor in CLIP_NAMES.from_ours(ours).items()}
    assert theirs == {
        f"{prefix}q_proj.bias": [0, 1],
        f"{prefix}k_proj.bias": [2, 3],
        f"{prefix}v_proj.bias": [4, 5],
    }


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336"])
def test_a_preset_comes_back_from_a_config_file(name):
    ids = {"start_token_id": 49_406, "end_token_id": 49_407, "vocab_size": 49_408}
    assert config_from_hf(config_to_hf(preset(name), **ids)) == preset(name)


def test_uneven_sizes_come_back_from_a_config_file():
    assert config_from_hf(config_to_hf(UNEVEN, **IDS)) == UNEVEN


def test_a_silent_config_file_is_vit_b_32_as_in_transformers():
    assert config_from_hf({"model_type": "clip"}) == preset("ViT-B-32")
    defaults = transformers.CLIPConfig().to_dict()
    assert config_from_hf(defaults) == preset("ViT-B-32")


def test_the_older_section_is_read_alone_as_in_transformers():
    data = {
        "model_type": "clip",
        "text_config": {"hidden_size": 64, "num_hidden_layers": 3},
        "text_config_dict": {"hidden_size": 768},
    }
    theirs = transformers.CLIPConfig(**data).text_config
    ours = config_from_hf(data).text
    assert (ours.width, ours.layers) == (theirs.hidden_size, theirs.num_hidden_layers) == (768, 12)


@pytest.mark.parametrize(
    ("model_end", "tokenizer_vocab_size", "eos_token_id"),
    [
        (None, 401, 400),  # the tokenizer's highest id: both rules say the same
        (None, 450, 2),  # tokens were added after the end token: only their "highest id" rule says what ours does
        (400, 450, 400),
    ],
)
def test_transformers_finds_the_end_token_by_the_rule_of_the_model(model_end, tokenizer_vocab_size, eos_token_id):
    config = dataclasses.replace(UNEVEN, text=dataclasses.replace(UNEVEN.text, end_token_id=model_end))
    data = config_to_hf(config, start_token_id=399, end_token_id=400, vocab_size=tokenizer_vocab_size)
    assert data["text_config"]["eos_token_id"] == eos_token_id


@pytest.mark.parametrize(("eos_token_id", "end_token_id"), [(2, None), (49_407, None), (49_405, 49_405)])
def test_id_2_and_the_last_id_mean_the_highest_of_a_text(eos_token_id, end_token_id):
    assert (
        config_from_hf({"model_type": "clip", "text_config": {"eos_token_id": eos_token_id}}).text.end_token_id
        == end_token_id
    )


def test_an_end_token_that_clip_would_take_for_a_rule_is_metaclips(tmp_path):
    config = dataclasses.replace(UNEVEN, text=dataclasses.replace(UNEVEN.text, end_token_id=2))
    data = config_to_hf(config, **IDS | {"end_token_id": 2})
    assert data["model_type"] == "metaclip_2"
    assert config_from_hf(data) == config


ENDS = {  # the id that config.json has for the end token, and the model that has it
    "the end token": (2, transformers.MetaClip2Model),
    "the highest id": (2, transformers.CLIPModel),
    "another name": (5, transformers.CLIPModel),
}


@pytest.mark.parametrize("rule", ENDS)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_a_tokenizer_of_another_kind_encodes_as_its_library(tmp_path, name, rule):
    backend, tokens, (start, end, pad) = FOREIGN[name]
    eos_token_id, kind = ENDS[rule]
    eos_token_id = end if rule == "another name" else eos_token_id
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": start, "eos_token_id": eos_token_id, "pad_token_id": pad}
    text = {**sizes, "vocab_size": 700, "max_position_embeddings": 24, **ids}
    twin = kind(
        kind.config_class(text_config=text, vision_config={**sizes, "image_size": 32}, projection_dim=24)
    ).eval()
    for i, parameter in enumerate(twin.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=generator(i))
    twin.save_pretrained(tmp_path)
    write_tokenizer(tmp_path, backend(), tokens)
    recipe = Preprocess(image_size=32).to_hf()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(recipe))
    if kind is transformers.MetaClip2Model and end != eos_token_id:
        with pytest.raises(WeightsError, match="must have the same end token"):
            Bundle.load(tmp_path)
        return
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = theirs(FOREIGN_TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        features = twin.get_text_features(inputs["input_ids"])
    expected = F.normalize(getattr(features, "pooler_output", features))
    bundle = Bundle.load(tmp_path)
    torch.testing.assert_close(bundle.encode_texts(FOREIGN_TEXTS, truncate=True), expected.numpy(), rtol=0, atol=1e-5)
    bundle.save(tmp_path / "again")
    again = transformers.AutoModel.from_pretrained(tmp_path / "again")
    with torch.inference_mode():
        features = again.eval().get_text_features(inputs["input_ids"])
    torch.testing.assert_close(F.normalize(getattr(features, "pooler_output", features)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"vision_config": {"num_channels": 4}}, r"num_channels must be 3\. Got 4"),
        ({"vision_config": {"hidden_act": "silu"}}, "silu is not a hidden_act that diptych has"),
        ({"vision_config": {"image_size": [224, 336]}}, r"image\.image_size must be a whole number"),
        ({"text_config": {"hidden_size": 100}}, r"text\.heads must divide text\.width"),
        ({"text_config": {"eos_token_id": [1, 5]}}, r"text\.end_token_id must be a whole number"),
        ({"text_config": 7}, "text_config must be a JSON object"),
    ],
)
def test_a_config_file_of_what_we_have_not_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        config_from_hf({"model_type": "clip", **data})


# SigLIP

SIGLIP = CLIPConfig(  # no two sizes are the same where they need not be
    embed_dim=48,
    head="sigmoid",
    image=SigLIPImageTowerConfig(
        image_size=29, patch_size=8, width=48, layers=3, heads=4, mlp_width=70, layer_norm_eps=1e-4
    ),
    text=SigLIPTextTowerConfig(
        context_length=20, vocab_size=430, width=36, layers=2, heads=3, mlp_width=80, activation="gelu"
    ),
)
SIGLIP_IDS = {"start_token_id": None, "end_token_id": 1, "vocab_size": 420}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model_type": "bert"}, r"must be clip, .* or diptych-clip\. Got 'bert': it is a text encoder"),
        ({}, r"Got None"),
        ({"model_type": "blip-2"}, r"Got 'blip-2': it is BLIP-2, whose 32 features .*\. Take a SigLIP 2\."),
        ({"model_type": "tipsv2"}, r"Got 'tipsv2': it is TIPS v2, .*\. Take a SigLIP 2\."),
        ({"model_type": "M-CLIP"}, r"Got 'M-CLIP': it is M-CLIP, a text tower alone\. Take an XLM-R CLIP"),
        ({"model_type": "vision-text-dual-encoder"}, r"two encoders of any kinds\. Take a CLIP"),
        ({"model_type": "videoprism"}, r"Got 'videoprism': it is VideoPrism, .*\. Take a CLIP"),
    ],
)
def test_a_type_that_does_not_open_is_told_with_what_it_is(data, message):
    with pytest.raises(ConfigError, match=message):
        config_from_hf(data)


def test_the_types_that_open_are_those_of_the_layouts_and_nine_of_zero_shot_classification():
    types = [kind for layout in LAYOUTS for kind in layout.model_types]
    assert len(types) == len(set(types))
    assert {*types, "diptych-clip"} == set(MODEL_TYPES)
    theirs = set(MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    assert len(theirs & set(types)) >= 9
    for kind in theirs - set(types):
        with pytest.raises(ConfigError, match=rf"Got '{kind}': .*Take a"):
            config_from_hf({"model_type": kind})


def test_a_mixture_has_no_class_in_transformers():
    assert hugging_face_naming(SIGLIP) is SIGLIP_NAMES
    assert hugging_face_naming(UNEVEN) is CLIP_NAMES
    for changes in ({"head": "softmax"}, {"text": UNEVEN.text}, {"image": preset("tiny-resnet").image}):
        assert hugging_face_naming(dataclasses.replace(SIGLIP, **changes)) is None


LABELS = ["a photo of a cat", "A Blue BOAT, (2 dogs)!", "", "the cat " * 40]


def pictures() -> list[Image.Image]:
    return [golden_picture(), golden_picture().rotate(90, expand=True), Image.new("RGB", (20, 33), "red")]


@pytest.fixture(params=["siglip", "siglip2"])
def foreign(request, tmp_path) -> tuple[Path, transformers.SiglipModel]:
    """A folder as it is published, and the model in it."""
    folder = tmp_path / "published"
    shared = {"hidden_size": 32, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = siglip_twin(vision=shared | {"image_size": 30, "patch_size": 8}, text=shared | {"vocab_size": 420})
    model.save_pretrained(folder)
    (write_siglip_tokenizer if request.param == "siglip" else write_siglip2_tokenizer)(folder)
    square = {"height": 30, "width": 30}
    third = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "size": square}
    half = [0.5, 0.5, 0.5]
    recipe = third | {"image_processor_type": "SiglipImageProcessor", "image_mean": half, "image_std": half}
    recipe["resample"] = 3 if request.param == "siglip" else 2
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder, model


@torch.no_grad()
def test_a_siglip_folder_opens_and_what_is_saved_opens_in_transformers(foreign, tmp_path):
    folder, model = foreign
    bundle = Bundle.load(folder)
    assert bundle.preprocess == Preprocess(
        image_size=30,
        resize="squash",
        interpolation="bicubic" if bundle.tokenizer.pad_token_id == 1 else "bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    bundle.save(tmp_path / "ours")
    recipe = json.loads((tmp_path / "ours" / "preprocessor_config.json").read_text())
    assert recipe["image_processor_type"] == "SiglipImageProcessor"
    processor = transformers.SiglipProcessor.from_pretrained(tmp_path / "ours", local_files_only=True)
    theirs = transformers.SiglipModel.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in model.state_dict().items())
    options = {"return_tensors": "pt", "padding": "max_length", "truncation": True}
    inputs = processor(text=LABELS, images=pictures(), **options)
    assert inputs["input_ids"].shape == (4, 64)
    output = theirs(**inputs)
    for ours in (bundle, Bundle.load(tmp_path / "ours")):
        image_features, text_features = ours.encode_images(pictures()), ours.encode_texts(LABELS, truncate=True)
        torch.testing.assert_close(image_features, output.image_embeds.numpy(), rtol=0, atol=1e-5)
        torch.testing.assert_close(text_features, output.text_embeds.numpy(), rtol=0, atol=1e-5)
        logits = ours.logits_per_image(image_features, text_features)
        torch.testing.assert_close(logits, output.logits_per_image.numpy(), rtol=0, atol=1e-3)
        expected = output.logits_per_image.sigmoid().numpy()
        torch.testing.assert_close(ours.probabilities(logits), expected, rtol=0, atol=1e-4)
    assert (bundle.logit_scale > 100, bundle.with_image_size(48).encode_images(pictures()).shape) == (True, (3, 32))


def test_what_a_naflex_config_is_silent_about_is_as_in_transformers():
    whole = transformers.Siglip2Config(text_config={"bos_token_id": None, "eos_token_id": 1}).to_dict()
    silent = config_from_hf({"model_type": "siglip2", "text_config": {}, "vision_config": {}})
    assert silent == config_from_hf(whole)
    assert silent.image == NaFlexTowerConfig(patch_size=16, width=768, layers=12, heads=12)


@torch.no_grad()
def test_a_naflex_folder_opens_and_what_is_saved_opens_in_transformers(tmp_path):
    shared = {"hidden_size": 32, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": 1}
    vision, text = shared | {"patch_size": 8, "num_patches": 25}, ids | shared | {"vocab_size": 420}
    model = transformers.Siglip2Model(transformers.Siglip2Config(vision_config=vision, text_config=text)).eval()
    for i, (name, parameter) in enumerate(model.named_parameters()):
        mean = float("norm" in name and name.endswith("weight"))
        torch.nn.init.normal_(parameter, mean=mean, std=0.3, generator=generator(i))
    folder = tmp_path / "published"
    model.save_pretrained(folder)
    write_siglip2_tokenizer(folder)
    module = pytest.importorskip("transformers.models.siglip2.image_processing_pil_siglip2")
    processor = module.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=36)  # more than there are positions
    processor.save_pretrained(folder)
    bundle = Bundle.load(folder)
    assert (bundle.model.config.image.image_size, bundle.preprocess.shape) == (48, (36, 194))
    bundle.save(tmp_path / "ours")
    theirs = transformers.Siglip2Model.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in model.state_dict().items())
    inputs = processor(pictures(), return_tensors="pt")
    assert not inputs["pixel_attention_mask"].all()
    tokens = torch.from_numpy(bundle.tokenizer.encode(LABELS, truncate=True))
    output = theirs(input_ids=tokens, **inputs)
    for ours in (bundle, Bundle.load(tmp_path / "ours")):
        image_features, text_features = ours.encode_images(pictures()), ours.encode_texts(LABELS, truncate=True)
        torch.testing.assert_close(image_features, output.image_embeds.numpy(), rtol=0, atol=1e-5)
        torch.testing.assert_close(text_features, output.text_embeds.numpy(), rtol=0, atol=1e-5)
    assert Bundle.load(tmp_path / "ours").with_image_size(64).encode_images(pictures()).shape == (3, 32)


def test_golden_features_find_a_causal_mask(foreign, tmp_path, monkeypatch):
    Bundle.load(foreign[0]).save(tmp_path / "ours")
    monkeypatch.setattr(blocks_module, "Block", lambda **options: Block(**{**options, "is_causal": True}))
    with pytest.raises(WeightsError, match=r"image_features are .* off.* text_features are .* off"):
        Bundle.load(tmp_path / "ours")


def test_golden_features_find_a_tokenizer_that_does_not_clean(foreign, tmp_path, monkeypatch):
    folder = tmp_path / "ours"
    Bundle.load(foreign[0]).save(folder)
    backend = json.loads((folder / "tokenizer.json").read_text())
    backend["normalizer"] = backend["normalizer"]["normalizers"][-1]
    (folder / "tokenizer.json").write_text(json.dumps(backend))
    with pytest.raises(WeightsError, match=r"tokenizer\.json must be the file that was saved"):
        Bundle.load(folder)
    config = json.loads((folder / "config.json").read_text())
    config["diptych"]["sha256"]["tokenizer.json"] = sha256(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"tokens differ.* text_features are .* off"):
        Bundle.load(folder)


def test_a_siglip_bundle_of_a_shorter_tokenizer_is_refused(foreign):
    bundle, tokenizer = Bundle.load(foreign[0]), Tokenizer.load(foreign[0], context_length=32, cleaning="siglip")
    with pytest.raises(ConfigError, match=r"that reads the padding\. Got 32 and 64"):
        dataclasses.replace(bundle, tokenizer=tokenizer)


def test_mixtures_and_siglip_towers_over_a_tokenizer_of_ours_are_saved_in_our_own_names(tmp_path):
    tokenizer = Tokenizer.train(["a red kite", "a blue boat"] * 3, vocab_size=520, context_length=20)
    text = dataclasses.replace(SIGLIP.text, vocab_size=520)
    mixtures = {
        "tokenizer": dataclasses.replace(SIGLIP, text=text),
        "softmax": dataclasses.replace(SIGLIP, text=text, head="softmax"),
        "sigmoid": dataclasses.replace(UNEVEN, head="sigmoid"),
    }
    mixtures["sigmoid"] = dataclasses.replace(
        mixtures["sigmoid"], text=dataclasses.replace(UNEVEN.text, context_length=20, vocab_size=520, end_token_id=None)
    )
    for name, config in mixtures.items():
        model = CLIP(config, generator(0)).eval()
        bundle = Bundle(model=model, preprocess=Preprocess(image_size=config.image.image_size), tokenizer=tokenizer)
        bundle.save(tmp_path / name)
        assert json.loads((tmp_path / name / "config.json").read_text())["model_type"] == "diptych-clip"
        loaded = Bundle.load(tmp_path / name)
        assert loaded.fingerprint() == bundle.fingerprint()
        assert loaded.model.config == config
