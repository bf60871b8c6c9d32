"""Small stand-ins for published models, drawn so that a mistake shows: for test_parity.py and benchmarks/parity.py."""

import dataclasses
from typing import Any, TypeVar

import torch
import transformers
from torch import nn

from diptych.model.clip import CLIPConfig
from diptych.model.image_tower import ImageTowerConfig
from diptych.model.text_tower import TextTowerConfig
from diptych.torch_runtime import generator

Tower = TypeVar("Tower", ImageTowerConfig, TextTowerConfig)

UNEVEN = CLIPConfig(  # no two sizes are the same
    embed_dim=20,
    image=ImageTowerConfig(
        image_size=24, patch_size=8, width=48, layers=3, heads=4, mlp_width=112, activation="gelu", layer_norm_eps=1e-6
    ),
    text=TextTowerConfig(
        context_length=9,
        vocab_size=600,
        width=36,
        layers=2,
        heads=3,
        mlp_width=80,
        activation="gelu_tanh",
        layer_norm_eps=1e-4,
        end_token_id=400,
    ),
)
GAIN = 1.5  # standard deviation of a layer's outputs for inputs of 1: softmax and activations work off their middle


def stand_in(config: CLIPConfig) -> CLIPConfig:
    """Two heads and two layers a tower, one or two bottlenecks a stage; all else, or its ratio, is as in the whole.

    Image size, patches, context length, width of a head, ratio of the MLP, activations: none of them is made small.
    """
    image = config.image
    if isinstance(image, ImageTowerConfig):
        image = _shrunk(image)
    else:
        heads = image.heads * 16 // image.width  # the same width of a head
        image = dataclasses.replace(image, width=16, layers=(1, 2, 1, 1), heads=heads)
    return CLIPConfig(embed_dim=48, image=image, text=_shrunk(config.text))


def draw(module: nn.Module, seed: int) -> None:
    """Draw all parameters of a module of any library anew, by the kind and place of each.

    Embeddings are small, so that the epsilon of the layer norm that reads them shows; gains and biases of norms are
    neither 1 nor 0.
    """
    with torch.no_grad():
        for i, (name, parameter) in enumerate(module.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator(seed, i))
            if parameter.ndim == 0:  # the logit scale, which has a meaning
                continue
            if "embedding" in name:
                parameter.copy_(0.02 * values)
            elif parameter.ndim == 1:
                parameter.copy_(float(name.endswith("weight")) + 0.3 * values)
            else:
                parameter.copy_(GAIN * parameter[0].numel() ** -0.5 * values)


def transformers_model(config: CLIPConfig, *, bos_token_id: int, eos_token_id: int) -> transformers.CLIPModel:
    """Their model of these sizes, in their words; in eval mode, with the parameters it starts with."""

    def words(tower: Tower) -> dict[str, Any]:
        return {
            "hidden_size": tower.width,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.mlp_width,
            "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(tower.activation, tower.activation),
            "layer_norm_eps": tower.layer_norm_eps,
        }

    image = {"image_size": config.image.image_size, "patch_size": config.image.patch_size}
    text = {
        "vocab_size": config.text.vocab_size,
        "max_position_embeddings": config.text.context_length,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
    }
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config=words(config.image) | image,
            text_config=words(config.text) | text,
            projection_dim=config.embed_dim,
        )
    ).eval()


def _shrunk(tower: Tower) -> Tower:
    heads = 2
    return dataclasses.replace(
        tower,
        width=heads * tower.width // tower.heads,
        heads=heads,
        layers=2,
        mlp_width=heads * tower.mlp_width // tower.heads,
    )
