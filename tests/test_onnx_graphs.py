"""Graphs of every kind of tower, run in onnxruntime, beside torch."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.fastvit_tower import FastViTTowerConfig
from diptych.model.siglip import SigLIPImageTowerConfig
from diptych.torch_runtime import generator
from diptych.weights.normalise import normalise
from tower_kinds import IMAGE_KINDS, TEXT_KINDS, image_of, kind_of, preprocess_of, text_of

pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")
onnxruntime = pytest.importorskip("onnxruntime")
import onnx  # noqa: E402

from diptych.export.onnx_graphs import NATIVE, OPSET, Ports, image_graph, text_graph, to_bytes  # noqa: E402

BATCHES = (1, 3, 17)
OUTSIDE = Ports(
    image_input="pixel_values",
    image_output="image_embeds",
    text_input="input_ids",
    text_output="text_embeds",
    takes_bytes=False,
    unit_length=False,
)


def model_of(image: Any = None, text: Any = None) -> CLIP:
    """A model of random weights, none of which is 0; statistics of batch norms are of the size that they have."""
    image = image or image_of(IMAGE_KINDS[0])
    config = CLIPConfig(embed_dim=24, image=image, text=text or text_of(TEXT_KINDS[0]))
    model = CLIP(config, generator(0)).eval()
    with torch.no_grad():
        for number, (name, tensor) in enumerate(model.state_dict().items()):
            if tensor.is_floating_point() and not name.startswith("logit"):
                noise = torch.randn(tensor.shape, generator=generator(1, number))
                tensor.add_(noise.abs() if name.endswith("running_var") else 0.05 * noise)
    return model


def run(graph: Any, batch: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(to_bytes(graph))
    (port,) = session.get_inputs()
    return session.run(None, {port.name: batch.numpy()})[0]


def pictures(preprocess: Preprocess, count: int, draw: torch.Generator) -> Tensor:
    if not preprocess.patch_size:
        return torch.randint(0, 256, (count, *preprocess.shape), generator=draw, dtype=torch.uint8)
    sizes = [(8 * int(side) for side in torch.randint(1, 9, (2,), generator=draw)) for _ in range(count)]
    resized = [
        np.random.default_rng(7).integers(0, 256, (*preprocess.size_for(*size)[::-1], 3), dtype=np.uint8)
        for size in sizes
    ]
    return torch.from_numpy(np.stack([preprocess.arranged(pixels) for pixels in resized]))


SMALL_LITE = image_of(IMAGE_KINDS[3])
OTHERS = {
    "vit-gelu": dataclasses.replace(image_of(IMAGE_KINDS[0]), activation="gelu"),
    "siglip-with-a-rest": SigLIPImageTowerConfig(image_size=32, patch_size=7, width=24, layers=1, heads=2),
    "fastvit-fused": FastViTTowerConfig(image_size=32, widths=(8, 32), layers=(1, 1), squeezed_stages=1, fused=True),
    "efficientnet-twice": dataclasses.replace(SMALL_LITE, second_size=24),
}


@pytest.mark.parametrize(
    "image", [image_of(cls) for cls in IMAGE_KINDS] + list(OTHERS.values()), ids=[*map(kind_of, IMAGE_KINDS), *OTHERS]
)
def test_an_image_tower_gives_torchs_features_at_any_batch(image):
    model, preprocess = model_of(image), preprocess_of(image)
    graph = image_graph(model, preprocess, NATIVE)
    draw = generator(2)
    for count in BATCHES:
        pixels = pictures(preprocess, count, draw)
        with torch.no_grad():
            expected = model.encode_image(normalise(preprocess, pixels))
        np.testing.assert_allclose(run(graph, pixels), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        *(text_of(cls) for cls in TEXT_KINDS),
        dataclasses.replace(text_of(TEXT_KINDS[0]), end_token_id=3, activation="gelu"),
        dataclasses.replace(text_of(TEXT_KINDS[2]), head_width=0, anchors=0),
    ],
    ids=[*map(kind_of, TEXT_KINDS), "clip-with-an-end", "sentence-without-a-memory"],
)
def test_a_text_tower_gives_torchs_features_at_any_batch_and_length(text):
    model = model_of(text=text)
    graph = text_graph(model, NATIVE)
    draw = generator(3)
    for count in BATCHES:
        for length in (16,) if text.reads_padding else (2, 9, 16):
            tokens = torch.randint(1, text.vocab_size, (count, length), generator=draw)
            tokens[1:, length // 2 :] = 0  # padding
            with torch.no_grad():
                expected = model.encode_text(tokens)
            np.testing.assert_allclose(run(graph, tokens), expected.numpy(), atol=1e-5)


def test_a_naflex_graph_takes_sequences_of_any_length():
    image = next(image_of(cls) for cls in IMAGE_KINDS if kind_of(cls) == "naflex")
    model, preprocess = model_of(image), preprocess_of(image)
    graph = image_graph(model, preprocess, NATIVE)
    rows = pictures(preprocess, 1, generator(4))
    longer = torch.cat([rows, torch.zeros_like(rows[:, :5])], dim=1)  # of padding, which nobody looks at
    np.testing.assert_allclose(run(graph, longer), run(graph, rows), atol=1e-5)


def test_outside_form_takes_normalised_pictures_and_gives_lengths():
    model, preprocess = model_of(), preprocess_of(image_of(IMAGE_KINDS[0]))
    images = normalise(preprocess, pictures(preprocess, 2, generator(5)))
    tokens = torch.tensor([[1, 5, 9], [2, 599, 0]])
    with torch.no_grad():
        expected = model.image(images).numpy(), model.text(tokens).numpy()
    assert not np.allclose(np.linalg.norm(expected[0], axis=1), 1, atol=0.1)
    np.testing.assert_allclose(run(image_graph(model, preprocess, OUTSIDE), images), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(text_graph(model, OUTSIDE), tokens), expected[1], rtol=1e-4, atol=1e-5)


def test_a_graph_says_who_made_it_what_is_free_and_has_our_names():
    model, preprocess = model_of(), preprocess_of(image_of(IMAGE_KINDS[0]))
    graph = onnx.ModelProto.FromString(to_bytes(image_graph(model, preprocess, NATIVE)))
    onnx.checker.check_model(graph, full_check=True)
    assert (graph.producer_name, graph.opset_import[0].version) == ("diptych", OPSET)
    ports = [graph.graph.input[0], graph.graph.output[0]]
    sizes = [[size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim] for port in ports]
    assert [port.name for port in ports] == ["pixels", "image_features"]
    assert sizes == [["batch", 32, 32, 3], ["batch", 24]]
    ours = {name for name in model.state_dict() if name.startswith("image.")}
    assert {one.name for one in graph.graph.initializer} > ours  # by name, none of them folded into another


def test_a_tower_from_outside_is_refused_in_a_sentence():
    model = model_of()
    object.__setattr__(model.config.image, "kind", "mine:Tower")
    try:
        with pytest.raises(ConfigError, match=r"image tower mine:Tower comes from outside"):
            image_graph(model, preprocess_of(image_of(IMAGE_KINDS[0])), NATIVE)
    finally:
        object.__setattr__(model.config.image, "kind", "vit")
