import pytest
import torch
import transformers

from diptych.errors import ConfigError
from diptych.model.align_tower import AlignTowerConfig
from diptych.weights.bundle import Bundle
from diptych.weights.hugging_face import config_from_hf
from hf_standins import SIZES, check_comes_back, check_same, drawn, pictures, published, said, text_ids

PUBLISHED = {  # of kakaobrain/align-base, but for the sizes
    "image_processor_type": "EfficientNetImageProcessor",
    "do_center_crop": True,
    "do_normalize": False,
    "include_top": False,
    "resample": 2,
    "rescale_factor": 2 / 255,
    "rescale_offset": True,
    "crop_size": {"height": 75, "width": 75},
    "size": {"height": 90, "width": 90},
}


def test_an_align_folder_opens_and_goes_back(tmp_path, caplog):
    text = SIZES | text_ids("BERT") | {"vocab_size": 700, "max_position_embeddings": 24}
    vision = {"width_coefficient": 0.15, "depth_coefficient": 0.5, "depthwise_padding": [1]}
    config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=48)
    twin = drawn(transformers.AlignModel(config))
    torch.nn.init.constant_(twin.temperature, 0.02)
    folder = published(tmp_path / "published", twin, tokenizer="BERT", recipe=PUBLISHED)
    bundle = Bundle.load(folder)
    assert any("Left out: 2 tensors, of text_model.pooler.dense." in line for line in said(caplog))
    assert (bundle.preprocess.crop_from, bundle.preprocess.image_size, bundle.preprocess.mean) == (90, 75, (0.5,) * 3)
    assert bundle.logit_scale == pytest.approx(50)  # the library divides by the temperature
    pil = pytest.importorskip("transformers.models.efficientnet.image_processing_pil_efficientnet")
    processor = pil.EfficientNetImageProcessorPil.from_pretrained(folder)
    pixels = processor(pictures(), return_tensors="pt")["pixel_values"]
    check_same(bundle, twin, folder, pixels)
    # Its temperature is a logarithm here, and comes back within a rounding.
    check_comes_back(bundle, twin, folder, tmp_path, but=("text_model.pooler.", "temperature"))
    theirs = transformers.AlignModel.from_pretrained(tmp_path / "ours", local_files_only=True)
    assert theirs.temperature.item() == pytest.approx(0.02, rel=1e-6)


def test_a_silent_config_file_is_efficientnet_b7_beside_bert_as_in_transformers():
    config = config_from_hf({"model_type": "align"})
    assert config == config_from_hf(transformers.AlignConfig(text_config={}, vision_config={}).to_dict())
    assert isinstance(config.image, AlignTowerConfig)
    assert (config.embed_dim, len(config.image.blocks), config.text.context_length) == (640, 55, 512)
    for vision, message in (
        ({"kernel_sizes": [3] * 7}, r"vision_config\.kernel_sizes must be \[3, 3, 5, 3, 5, 5, 3\].*Got \[3, 3, 3"),
        ({"depthwise_padding": [90]}, r"padded_alike must hold numbers of blocks, 0 to 54\. Got \[90\]"),
        ({"width_coefficient": 1.0}, r"projection_dim must be 320.*Got 640"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_from_hf({"model_type": "align", "vision_config": vision})
