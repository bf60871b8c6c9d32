import re

import pytest
import transformers

from diptych.weights.bundle import Bundle
from diptych.weights.hugging_face import config_from_hf
from hf_standins import SIZES, VISION, check_same, drawn, published, said

TEXT = SIZES | {"vocab_size": 700, "max_position_embeddings": 24, "eos_token_id": 2}


def inside(kind: str):
    """A larger model, the part of it that is a CLIP, and a sentence about the rest."""
    shared = {"text_config": TEXT, "projection_dim": 16}
    if kind == "clipseg":
        config = transformers.CLIPSegConfig(vision_config=VISION, extract_layers=[0, 1], reduce_dim=8, **shared)
        twin = drawn(transformers.CLIPSegForImageSegmentation(config))
        return twin, twin.clip, r"Left out: 42 tensors, of decoder\.film_add, decoder\.film_mul"
    if kind == "xclip":
        vision = VISION | {"mit_hidden_size": 16, "mit_num_attention_heads": 2, "mit_intermediate_size": 20}
        config = transformers.XCLIPConfig(vision_config=vision, prompt_num_attention_heads=2, **shared)
        twin = drawn(transformers.XCLIPModel(config))
        return twin, twin, r"Left out: \d+ tensors, of mit"
    kinds = {"owlvit": "OwlViT", "owlv2": "Owlv2"}
    cls = getattr(transformers, f"{kinds[kind]}ForObjectDetection")
    twin = drawn(cls(cls.config_class(vision_config=VISION, **shared)))
    return twin, getattr(twin, kind), r"Left out: \d+ tensors, of .*box_head"


RECIPES = {
    "clipseg": {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}, "resample": 2},
    "xclip": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32},
    "owlvit": {"image_processor_type": "OwlViTImageProcessor", "size": {"height": 32, "width": 32}},
    "owlv2": {"image_processor_type": "Owlv2ImageProcessor", "size": {"height": 32, "width": 32}, "do_pad": True},
}


@pytest.mark.parametrize("kind", RECIPES)
def test_the_clip_inside_of_a_larger_model_opens_and_the_rest_is_named(kind, tmp_path, caplog):
    twin, clip, sentence = inside(kind)
    folder = published(tmp_path / "published", twin, tokenizer="XLM-R", recipe=RECIPES[kind])
    bundle = Bundle.load(folder)
    (found,) = [line for line in said(caplog) if "Left out" in line]
    assert re.search(sentence, found)
    assert any("does not tell its picture recipe" in line for line in said(caplog)) == (kind == "owlv2")
    assert bundle.preprocess.image_size == 32
    if kind == "xclip":  # the library has frames of films alone
        clip = plain_twin(clip)
    check_same(bundle, clip, folder)
    bundle.save(tmp_path / "ours")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    check_same(Bundle.load(tmp_path / "ours"), theirs, tmp_path / "ours")


def plain_twin(model) -> transformers.CLIPModel:
    """A CLIP with those weights of an X-CLIP that are one's."""
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    twin = transformers.CLIPModel(config).eval()
    theirs = {name.replace("pre_layernorm", "pre_layrnorm"): tensor for name, tensor in model.state_dict().items()}
    weights = {name: tensor for name, tensor in theirs.items() if name in twin.state_dict()}
    assert len(weights) == len(twin.state_dict())
    twin.load_state_dict(weights)
    return twin


def test_silent_config_files_are_as_in_transformers():
    for kind, cls in (
        ("clipseg", transformers.CLIPSegConfig),
        ("owlvit", transformers.OwlViTConfig),
        ("owlv2", transformers.Owlv2Config),
        ("xclip", transformers.XCLIPConfig),
    ):
        assert config_from_hf({"model_type": kind}) == config_from_hf(
            cls(text_config={}, vision_config={}).to_dict()
        ), kind
    assert config_from_hf({"model_type": "owlv2"}).image.image_size == 768
    assert config_from_hf({"model_type": "owlv2"}).text.context_length == 16
