"""NLLBTower, the encoder of M2M-100 and NLLB with a head on it, and its config.

Source: M2M-100, arXiv:2010.11125; NLLB, arXiv:2207.04672; NLLB-CLIP, arXiv:2309.01859; the released code.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    Activation,
    Embedding,
    Stack,
    check_blocks,
    check_sizes,
    draw_normal,
    reset_to_defaults,
)
from diptych.model.cost import TowerCost, layer_norm_bytes, transformer_cost
from diptych.model.text_head import (
    Head,
    Pool,
    TextHead,
    check_head,
    check_head_width,
    cut_padding,
    head_bytes,
    head_flops,
)
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pad_token, check_same_padding, check_tokens_fit

_LONGEST_WAVE = 10_000  # positions, by 2 pi


@dataclass(frozen=True, kw_only=True)
class NLLBTowerConfig:
    """Sizes of an encoder of NLLB's kind. The defaults are those of NLLB-200 distilled to 600 million parameters.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, a width that is odd or below 4, padding that
            is no token, or a head that there is not.
    """

    kind: Literal["nllb"] = "nllb"
    context_length: int = 77  # tokens, language and end included
    vocab_size: int = 256_206
    width: int = 1024  # channels of the residual stream
    layers: int = 12
    heads: int = 16
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "relu"
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1  # tokens that are not looked at
    pool: Pool = "first"
    head: Head = "linear"
    head_width: int = 0  # hidden channels of the heads that have two layers
    head_bias: bool = False  # of the head linear

    reads_padding: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = True
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        check_head(self)
        if self.width % 2 or self.width < 4:
            raise ConfigError(f"text.width must be even and at least 4 for waves as positions. Got {self.width}.")
        check_pad_token(self.pad_token_id, self.vocab_size)

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"NLLB, {self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "NLLBTower":
        """The tower; see `CLIP` for where its parameters are.

        Raises:
            ConfigError: it has no projection, and `embed_dim` is not its width.
        """
        check_head_width(self, embed_dim)
        return NLLBTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text at full context length; see `ImageTowerConfig.cost`."""
        length = self.context_length
        outside = length * layer_norm_bytes(self.width) + head_bytes(self, length, element)
        last = head_flops(self, embed_dim)
        return transformer_cost(self, length, element, first=0, last=last, outside=outside)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads with another one.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        check_same_padding(tokenizer, self.pad_token_id)


class NLLBTower(nn.Module):
    """Pre-LN transformer without a causal mask, its positions waves: tokens in, one feature out.

    Padding is not looked at. The first token of a text names its language.
    Parameters are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, L, W, D.
    """

    def __init__(self, config: NLLBTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.blocks = Stack.of(config, is_causal=False)
        self.ln_final = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.head = TextHead(config, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; how much padding there is changes nothing.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        tokens = cut_padding(tokens, self.pad_token_id)
        is_word = tokens != self.pad_token_id  # [B, L]
        width = self.token_embedding.embedding_dim
        # Words are counted from the one behind the padding's id.
        places = is_word.long().cumsum(dim=1) + self.pad_token_id  # [B, L]
        x = self.token_embedding(tokens) * math.sqrt(width) + _waves(places, width)  # [B, L, W]
        x = self.ln_final(self.blocks(x, is_word[:, None, None]))
        return self.head(x, is_word)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as torch does by default, and the embedding as the released code does."""
        reset_to_defaults(self, generator)
        draw_normal(self.token_embedding.weight, self.token_embedding.embedding_dim**-0.5, generator)


def _waves(places: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of places at wavelengths that grow by one factor: [B, L] int64 to [B, L, W] float32.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.5, in the order of tensor2tensor's code.
    """
    steps = torch.arange(width // 2, device=places.device).float()
    angles = places[..., None].float() * torch.exp(steps * -(math.log(_LONGEST_WAVE) / (width // 2 - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
