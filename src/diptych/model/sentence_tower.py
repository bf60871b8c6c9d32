"""SentenceTower, a bidirectional transformer whose positions are averaged, and its config.

Source: BERT, arXiv:1810.04805; pooling by the mean: Sentence-BERT, arXiv:1908.10084.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    MLP,
    Activation,
    Attention,
    BlockSizes,
    Embedding,
    Linear,
    check_blocks,
    check_sizes,
    draw_normal,
)
from diptych.model.cost import TowerCost, layer_norm_bytes, transformer_cost, without_blocks
from diptych.model.vocabulary import GOLDEN_TEXTS, Vocabulary, check_pad_token, check_same_padding, check_tokens_fit

_STD = 0.02  # of all weights at the start


@dataclass(frozen=True, kw_only=True)
class SentenceTowerConfig:
    """Sizes of a sentence encoder. The defaults are those of MiniLM-L6 but for the context length.

    Raises:
        ConfigError: a size below 1, heads that do not divide the width, or padding that is no token.
    """

    kind: Literal["sentence"] = "sentence"
    context_length: int = 77  # tokens, start and end included
    vocab_size: int = 30_522
    width: int = 384  # channels of the residual stream
    layers: int = 6
    heads: int = 12
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    head_width: int = 0  # hidden channels of an MLP in the head; 0: it has none
    anchors: int = 0  # N, words that the head knows the place of; 0: it has no such memory
    anchor_width: int = 0  # K, numbers that a text is compared with such a word by; 0: as many as the width
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0  # tokens that are not looked at

    reads_padding: ClassVar[bool] = False
    has_blocks: ClassVar[bool] = False  # its own take a mask beside their input
    rows_are_features: ClassVar[bool] = False
    golden_texts: ClassVar[tuple[str, ...]] = GOLDEN_TEXTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("text", context_length=self.context_length, vocab_size=self.vocab_size)
        check_blocks("text", self)
        for name in ("head_width", "anchors", "anchor_width"):
            if getattr(self, name) < 0:
                size = getattr(self, name)
                raise ConfigError(f"text.{name} must be at least 0, which stands for none of its own. Got {size}.")
        check_pad_token(self.pad_token_id, self.vocab_size)

    @property
    def summary(self) -> str:
        """In a few words."""
        return f"{self.layers} layers of {self.width}"

    def build(self, embed_dim: int) -> "SentenceTower":
        """The tower; see `CLIP` for where its parameters are."""
        return SentenceTower(self, embed_dim)

    def cost(self, embed_dim: int, *, element: int) -> TowerCost:
        """FLOPs and activations of one text at full context length; see `ImageTowerConfig.cost`."""
        width, hidden, anchors = self.width, self.head_width, self.anchors
        head = 2 * width * embed_dim + 2 * hidden * (width + embed_dim)
        compared = self.anchor_width or width
        head += 2 * compared * (width + anchors) + 2 * anchors * embed_dim if anchors else 0
        # Of each token the first layer norm; of a text, where it has anchors, its likeness to each of them.
        outside = self.context_length * layer_norm_bytes(width) + element * anchors
        cost = transformer_cost(self, self.context_length, element, first=0, last=head, outside=outside)
        return without_blocks(forward=cost.forward, first=0, activations=cost.activations)

    def check_tokenizer(self, tokenizer: Vocabulary) -> None:
        """Refuse a tokenizer of another model.

        Raises:
            ConfigError: it gives more tokens than the tower takes, or pads with another one.
        """
        check_tokens_fit(tokenizer, context_length=self.context_length, vocab_size=self.vocab_size)
        check_same_padding(tokenizer, self.pad_token_id)


class SentenceTower(nn.Module):
    """Transformer without a causal mask: tokens in, one feature out, the mean of all positions that are no padding.

    Parameters that are not in a torch layer are empty until `reset_parameters` is called or weights are loaded.

    Source: see the file. Letters: B, L, W, D.
    """

    def __init__(self, config: SentenceTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.token_embedding = Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.ln_embedding = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(PostBlock(config) for _ in range(config.layers))
        self.head = SentenceHead(config, embed_dim)

    def trunk(self, tokens: Tensor) -> Tensor:
        """The sentence vector before the head: [B, L] int64 to [B, W], not unit length."""
        is_word = tokens != self.pad_token_id  # [B, L]
        x = self.token_embedding(tokens) + self.position_embedding[: tokens.shape[1]]  # [B, L, W]
        x = self.ln_embedding(x)
        for block in self.blocks:
            x = block(x, is_word[:, None, None])
        weights = is_word[..., None].to(x)  # [B, L, 1]
        return (x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)  # [B, W]

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: [B, L] int64, L at most the context length; how much padding there is changes nothing.

        Returns:
            [B, D], not yet unit length; `CLIP.encode_text` makes it so.
        """
        return self.head(self.trunk(tokens))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all parameters as the released code of BERT does."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()  # ones and zeros: nothing is drawn
            elif isinstance(module, nn.Linear | nn.Embedding):
                draw_normal(module.weight, _STD, generator)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        draw_normal(self.position_embedding, _STD, generator)
        if self.head.memory is not None:
            draw_normal(self.head.memory.values, _STD, generator)


class PostBlock(nn.Module):
    """Post-LN residual block: each sum is normalised, where `Block` normalises what goes into a branch."""

    def __init__(self, config: BlockSizes) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, is_causal=False)
        self.ln_attention = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.ln_mlp = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]; positions look where mask, [B, 1, 1, L] bool, is True."""
        x = self.ln_attention(x + self.attention(x, mask))
        return self.ln_mlp(x + self.mlp(x))


class SentenceHead(nn.Module):
    """From a sentence vector into the space that it shares with pictures.

    A projection, an MLP where the config has one, and, where it has anchors, one attention step over words whose place
    in that space is known: it has learned by heart what the other two can only approximate, and puts an unknown word
    between those that mean nearly the same.
    """

    def __init__(self, config: SentenceTowerConfig, embed_dim: int) -> None:
        super().__init__()
        self.projection = Linear(config.width, embed_dim)
        self.up = Linear(config.width, config.head_width) if config.head_width else None
        self.down = Linear(config.head_width, embed_dim) if config.head_width else None
        self.memory = AnchorMemory(config, embed_dim) if config.anchors else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, W] to [B, D]."""
        direction = F.normalize(x, dim=-1)
        x = direction * x.shape[-1] ** 0.5  # entries of about 1, whatever the length of the vector
        y = self.projection(x)
        if self.up is not None and self.down is not None:
            y = y + self.down(F.gelu(self.up(x)))
        return y if self.memory is None else y + self.memory(direction)


class AnchorMemory(nn.Module):
    """Attention over N learned keys and values; the temperature is in the length of the keys."""

    def __init__(self, config: SentenceTowerConfig, embed_dim: int) -> None:
        super().__init__()
        compared = config.anchor_width or config.width
        self.query = Linear(config.width, compared)
        self.keys = Linear(compared, config.anchors)  # its bias: how much a word counts before it is compared
        self.values = nn.Parameter(torch.empty(config.anchors, embed_dim))

    def forward(self, direction: Tensor) -> Tensor:
        """[B, W] of unit length to [B, D] of unit length."""
        weights = self.keys(F.normalize(self.query(direction), dim=-1)).softmax(dim=-1)  # [B, N]
        return F.normalize(weights @ self.values, dim=-1)
