import re
from pathlib import Path

import numpy as np
import pytest
import torch

import foreign_files
from diptych.data.images import Preprocess
from diptych.errors import WeightsError
from diptych.model.siglip import SigLIPImageTowerConfig, SigLIPTextTowerConfig
from diptych.weights.big_vision import is_big_vision
from diptych.weights.bundle import Bundle
from diptych.weights.stored import open_stored_model
from diptych.weights.untold import assumptions
from siglip_standins import write_siglip_tokenizer

STORED = foreign_files.read("big_vision")
ARRAYS = {name: foreign_files.drawn(name, tuple(shape)) for name, shape in STORED["arrays"].items()}


def stacked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same as a program writes it that scans over its layers."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():
        layers.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", name), []).append(array)
    return {name: np.stack(some) if "/encoderblock/" in name else some[0] for name, some in layers.items()}


def write(folder: Path, arrays: dict[str, np.ndarray], name: str = "webli.npz") -> Path:
    np.savez(folder / name, **arrays)  # pyright: ignore[reportArgumentType]
    return folder / name


@pytest.mark.parametrize(
    "arrays",
    [
        ARRAYS,
        stacked(ARRAYS),
        {name.removeprefix("params/"): array for name, array in ARRAYS.items()},
        ARRAYS | {"opt/1/mu/img/embedding/kernel": np.zeros(3, np.float32)},
    ],
    ids=["plain", "stacked", "without params", "with an optimizer"],
)
def test_a_siglip_gives_the_features_that_open_clip_makes_of_it(tmp_path, arrays):
    found = open_stored_model(write(tmp_path, arrays))
    assert found.kind == "big_vision checkpoint"
    assert found.config.image == SigLIPImageTowerConfig(
        image_size=32, patch_size=8, width=48, layers=2, heads=3, mlp_width=96
    )
    assert found.config.text == SigLIPTextTowerConfig(
        context_length=16, vocab_size=600, width=32, layers=3, heads=4, mlp_width=80
    )
    model = found.build()
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(foreign_files.pixels()))
        texts = model.encode_text(torch.from_numpy(foreign_files.tokens()))
    np.testing.assert_allclose(images, STORED["image_features"], atol=1e-5)
    np.testing.assert_allclose(texts, STORED["text_features"], atol=1e-5)
    assert model.logit_scale.item() == ARRAYS["params/t"].item()
    assert model.logit_bias is not None
    assert model.logit_bias.item() == ARRAYS["params/b"].item()


def test_the_recipe_is_siglips_and_is_said_to_be_assumed(tmp_path):
    found = open_stored_model(write(tmp_path, ARRAYS))
    assert found.preprocess == Preprocess(image_size=32, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert found.cleaning == "siglip"
    (said,) = assumptions(found.untold, found.path)
    assert "does not tell its picture recipe" in said
    assert open_stored_model(found.path, mean=(0.4, 0.4, 0.4)).preprocess.mean == (0.4, 0.4, 0.4)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("webli_en_so400m_35_58765454.npz", 35), ("webli_so400m_40_1.npz", 32), ("webli_en_b8-32.npz", 32), ("x.npz", 32)],
)
def test_the_image_size_is_that_of_the_name_where_it_makes_the_same_grid(tmp_path, name, image_size):
    """384 px have 27 patches of 14, as 378 px have: here 35 px have 4 of 8."""
    assert open_stored_model(write(tmp_path, ARRAYS, name)).config.image.image_size == image_size


@pytest.mark.parametrize("gone", ["params/img/MAPHead_0/probe", "params/txt/Embed_0/embedding"])
def test_another_model_of_that_program_is_refused(tmp_path, gone):
    arrays = {name: array for name, array in ARRAYS.items() if name != gone}
    with pytest.raises(WeightsError, match=r"must be a SigLIP of big_vision: .* such as LiT or an image tower alone"):
        open_stored_model(write(tmp_path, arrays))


def test_what_is_missing_or_of_another_shape_is_told_in_one_line(tmp_path):
    name = "params/img/Transformer/encoderblock_1/LayerNorm_1/scale"
    with pytest.raises(WeightsError, match=r"must hold img/Transformer/encoderblock_1/LayerNorm_1/scale"):
        open_stored_model(write(tmp_path, {one: array for one, array in ARRAYS.items() if one != name}))
    with pytest.raises(WeightsError, match="1 of another shape") as caught:
        open_stored_model(write(tmp_path, ARRAYS | {name: np.zeros(5, np.float32)})).build()
    assert "\n" not in str(caught.value)
    flat = ARRAYS | {"params/img/embedding/kernel": np.zeros((8, 3), np.float32)}
    with pytest.raises(WeightsError, match="must have the shapes of a SigLIP of big_vision") as caught:
        open_stored_model(write(tmp_path, flat))
    assert "\n" not in str(caught.value)


def test_names_tell_the_program():
    assert is_big_vision(["params/img/embedding/kernel"])
    assert not is_big_vision(["visual.conv1.weight", "params/x"])


def test_what_opened_is_saved_as_a_bundle_bit_for_bit(tmp_path):
    write_siglip_tokenizer(tmp_path / "tokenizer")
    path = write(tmp_path, ARRAYS)
    bundle = Bundle.load(path, tokenizer=tmp_path / "tokenizer")
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert again.fingerprint() == bundle.fingerprint()
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
