"""A captioner: a causal transformer that writes the caption of a picture, token by token.

The picture stands in front of the text as a few projected tokens, as in CLIP's own captioning baseline (CLIP-AR,
arXiv:2103.00020, section 3.1.5 and appendix A); it may also be looked at position by position, as in CoCa,
arXiv:2205.01917. Letters: B, C, D, L, N, P, V, W; K tokens that stand for the picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.model.blocks import (
    Activation,
    Block,
    Embedding,
    Linear,
    attend,
    check_blocks,
    check_sizes,
    draw_normal,
    reset_to_defaults,
)
from diptych.model.clip import CLIPConfig
from diptych.model.cost import FLOAT, TowerCost, layer_norm_bytes, transformer_cost, without_blocks
from diptych.train.prefix_tree import PrefixTree
from diptych.train.seen import Need, Seen
from diptych.train.word_classes import WordCounts

_TOKENS = 600  # of names, that are read at once at most


class TextEnds(Protocol):
    """What a captioner asks of a tokenizer."""

    @property
    def start_token_id(self) -> int | None: ...
    @property
    def end_token_id(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What does the caption say, word for word?

    Raises:
        ConfigError: a size below 1, or heads that do not divide the width.
    """

    kind: Literal["caption"] = "caption"
    weight: float = 1.0  # factor on the loss, beside other objectives
    width: int = 256  # channels of the residual stream
    layers: int = 2
    heads: int = 4
    mlp_width: int = 0  # hidden channels of the MLP; 0 stands for 4 * width and is replaced by it
    activation: Activation = "gelu"
    layer_norm_eps: float = 1e-5
    prefix: int = 4  # tokens in front of the text, that are made of the image feature
    attends: bool = False  # each layer looks at the image tokens too

    is_per_sample: ClassVar[Literal[True]] = True
    wants_counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        check_sizes("caption", prefix=self.prefix)
        check_blocks("caption", self)

    def needs(self, model: CLIPConfig) -> frozenset[Need]:  # noqa: ARG002
        """What the forward pass must give."""
        own: tuple[Need, ...] = ("image_features", "tokens")
        return frozenset((*own, "image_tokens") if self.attends else own)

    def build(self, model: CLIPConfig, tokenizer: TextEnds) -> "CaptionHead":
        """Its head, on torch's default device."""
        return CaptionHead(self, model, start_token_id=tokenizer.start_token_id, end_token_id=tokenizer.end_token_id)

    def cost(self, model: CLIPConfig, *, element: int) -> TowerCost:
        """FLOPs and activations of one pair whose text has the full context length."""
        length, classes, width = model.text.context_length, model.text.vocab_size, self.width
        positions, patches = self.prefix + length - 1, model.image.patches
        first = 2 * model.embed_dim * self.prefix * width
        last = 2 * length * width * classes
        # The stream at both ends, the input of the last product, and the logits, which become float32 for the softmax.
        outside = element * (model.embed_dim + length * (width + classes)) + FLOAT * length * classes
        outside += (positions + length) * layer_norm_bytes(width)
        cost = transformer_cost(self, positions, element, first=0, last=first + last, outside=outside)
        looks = kept = 0
        if self.attends:
            looks = 4 * positions * width**2 + 4 * patches * model.image.token_width * width
            looks += 4 * positions * patches * width
            kept = positions * (layer_norm_bytes(width) + element * 3 * width) + patches * element * 2 * width
            kept += patches * element * model.image.token_width
        return without_blocks(
            forward=cost.forward + self.layers * looks,
            first=0,
            activations=cost.activations + self.layers * kept,
        )


class Written(NamedTuple):
    """A caption that was written."""

    tokens: Tensor  # [L] int64, start and end as in training
    score: float  # nats a token: the mean logarithm of the chances


class CaptionHead(nn.Module):
    """Image feature and the text so far in, logits of the next token out.

    The embedding of a token is also its row in the last product. Parameters that are not in a torch layer are empty
    until `reset_parameters` is called or weights are loaded.
    """

    names_by_bundle: bool = False

    def __init__(self, config: Caption, model: CLIPConfig, *, start_token_id: int | None, end_token_id: int) -> None:
        super().__init__()
        self.start_token_id, self.end_token_id = start_token_id, end_token_id
        self.prefix = config.prefix
        self.context_length = model.text.context_length
        self.projection = Linear(model.embed_dim, config.prefix * config.width)
        self.token_embedding = Embedding(model.text.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.prefix + self.context_length - 1, config.width))
        self.layers = nn.ModuleList(_Layer(config, model.image.token_width) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def logits(self, seen: Seen, tokens: Tensor) -> Tensor:
        """Logits of each token of a text and of the one after it.

        Args:
            seen: of B pictures; its own tokens are not looked at.
            tokens: [B, l] int64, the texts so far; l from 0 to the context length less 1.

        Returns:
            [B, 1 + l, V], float32 at least: the first row is about the first token.
        """
        return self._logits(seen, tokens, torch.arange(tokens.shape[1], device=tokens.device), None)

    def _logits(self, seen: Seen, tokens: Tensor, depths: Tensor, sees: Tensor | None) -> Tensor:
        """See `logits`.

        Args:
            seen: of B pictures.
            tokens: [B, l] int64.
            depths: [l] int64: how many tokens stand before each.
            sees: [K + l, K + l] bool: what each position sees; those before it when not given.
        """
        features = seen.image_features * seen.image_features.shape[-1] ** 0.5  # entries of about 1
        picture = self.projection(features).unflatten(-1, (self.prefix, -1))  # [B, K, W]
        x = torch.cat([picture, self.token_embedding(tokens).to(picture)], dim=1)
        places = torch.cat([torch.arange(self.prefix, device=depths.device), self.prefix + depths])
        x = x + self.position_embedding[places]  # [B, K + l, W]
        for layer in self.layers:
            x = layer(x, seen.image_tokens, sees)
        x = self.ln_final(x[:, self.prefix - 1 :]) @ self.token_embedding.weight.T
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def forward(self, seen: Seen) -> Tensor:
        """[B] in nats a token: the mean over a caption's tokens, its end included; start and padding do not count."""
        losses, counts = self._losses(seen, seen.tokens)
        return (losses * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)  # of a blank that stands for no pair

    def _losses(self, seen: Seen, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of each token [B, L], and which of them count."""
        logits = self.logits(seen, tokens[:, :-1])  # [B, L, V]
        losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
        end = (tokens == self.end_token_id).int().argmax(dim=1, keepdim=True)  # the first: some pad with the end token
        counts = torch.arange(tokens.shape[1], device=tokens.device) <= end
        if self.start_token_id is not None:
            counts[:, 0] = False
        return losses, counts

    def scores(self, seen: Seen, names: Tensor) -> Tensor:
        """How much likelier a picture makes a name than the others do.

        That is log p(name | picture) less its mean over the pictures. log p alone prefers short and frequent names
        whatever a picture shows. So a score hangs on which pictures are asked about together: they must be several, and
        show different things.

        Args:
            seen: of N pictures.
            names: [C, L] int64.

        Returns:
            [N, C] in nats.
        """
        ended = [row[: row.index(self.end_token_id) + 1] for row in names.tolist()]
        chances = seen.image_features.new_empty(len(seen.image_features), len(ended))  # [N, C]
        for some in _read_together(ended):
            tree = PrefixTree.of([ended[name] for name in some], given=0 if self.start_token_id is None else 1)
            tree = PrefixTree(*(part.to(names.device) for part in tree))
            for row in range(len(chances)):
                chances[row, some] = self._log_chances(_one_picture(seen, row), tree, len(some))
        return chances - chances.mean(dim=0)

    def _log_chances(self, picture: Seen, tree: PrefixTree, count: int) -> Tensor:
        """Log p of each of a tree's texts, [count]."""
        length = self.prefix + len(tree.tokens)
        sees = torch.ones(length, length, dtype=torch.bool, device=tree.sees.device).tril()
        sees[self.prefix :, self.prefix :] = tree.sees
        logits = self._logits(picture, tree.tokens[None], tree.depths, sees)[0]  # [1 + N, V]
        asked = logits[tree.after, tree.asked] - logits.logsumexp(dim=1)[tree.after]
        return asked.new_zeros(count).index_add(0, tree.texts, asked)

    @torch.no_grad()
    def write(self, picture: Seen, *, beams: int = 1) -> Written:
        """The caption of one picture, by beam search; one beam is greedy: always the likeliest next token.

        A text that has ended keeps its place among the beams. The best is the one with the highest mean log-chance a
        token: the sum would prefer short ones.

        Args:
            picture: of one picture.
            beams: texts that are followed at a time.
        """
        device = picture.image_features.device
        start = [] if self.start_token_id is None else [self.start_token_id]
        texts = torch.tensor([start], dtype=torch.int64, device=device)  # [beams, l]
        sums = torch.zeros(1, device=device)
        ended: list[tuple[float, Tensor]] = []
        for length in range(len(start), self.context_length):
            chances = self.logits(_repeated(picture, len(texts)), texts)[:, -1].log_softmax(dim=1)  # [beams, V]
            best = (sums[:, None] + chances).flatten().topk(min(beams, chances.numel()))
            rows, tokens = best.indices // chances.shape[1], best.indices % chances.shape[1]
            texts, sums = torch.cat([texts[rows], tokens[:, None]], dim=1), best.values
            is_end = (tokens == self.end_token_id) | torch.tensor(length + 1 == self.context_length, device=device)
            written = length + 1 - len(start)
            ended += [(sums[n].item() / written, texts[n]) for n in is_end.nonzero().flatten().tolist()]
            if is_end.all() or len(ended) >= beams:
                break
            texts, sums = texts[~is_end], sums[~is_end]
        score, tokens = max(ended, key=lambda one: one[0])
        return Written(tokens, score)

    def reset_parameters(self, generator: torch.Generator, counts: WordCounts | None) -> None:  # noqa: ARG002
        """Draw all parameters as those of a text tower; what looks at image tokens begins as if there were none."""
        reset_to_defaults(self, generator)
        width = self.token_embedding.embedding_dim
        draw_normal(self.token_embedding.weight, width**-0.5, generator)
        draw_normal(self.position_embedding, 0.01, generator)
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            residual_std = width**-0.5 * (2 * len(self.layers)) ** -0.5
            for written in (layer.block.attention.out_projection, layer.block.mlp.down):
                draw_normal(written.weight, residual_std, generator)
            if layer.look is not None:
                nn.init.zeros_(layer.look.out_projection.weight)
                nn.init.zeros_(layer.look.out_projection.bias)


class _Layer(nn.Module):
    """A causal block, and before it, where the config says so, a look at the picture."""

    def __init__(self, config: Caption, token_width: int) -> None:
        super().__init__()
        self.look = _Look(config, token_width) if config.attends else None
        self.block = Block(
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            layer_norm_eps=config.layer_norm_eps,
            is_causal=True,
        )

    def forward(self, x: Tensor, image_tokens: Tensor | None, sees: Tensor | None) -> Tensor:
        """[B, K + l, W] to the same; `sees` as in `CaptionHead._logits`."""
        if self.look is not None:
            assert image_tokens is not None
            x = x + self.look(x, image_tokens)
        return self.block(x, sees)


class _Look(nn.Module):
    """Attention whose queries are of the text, and its keys and values of the picture."""

    def __init__(self, config: Caption, token_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.query = Linear(config.width, config.width)
        self.key_and_value = Linear(token_width, 2 * config.width)
        self.out_projection = Linear(config.width, config.width)

    def forward(self, x: Tensor, image_tokens: Tensor) -> Tensor:
        """[B, l, W] and [B, P, width of the image tower] to [B, l, W]."""
        parts = (self.query(self.norm(x)), *self.key_and_value(image_tokens).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out_projection(attend(query, key, value, is_causal=False).transpose(1, 2).flatten(2))


def _read_together(names: Sequence[list[int]]) -> Iterator[list[int]]:
    """Rows of names by which they begin, so many at a time as have `_TOKENS` tokens."""
    some: list[int] = []
    tokens = 0
    for row in sorted(range(len(names)), key=lambda row: names[row]):
        if some and tokens + len(names[row]) > _TOKENS:
            yield some
            some, tokens = [], 0
        some.append(row)
        tokens += len(names[row])
    if some:
        yield some


def _one_picture(seen: Seen, row: int) -> Seen:
    tokens = seen.image_tokens
    return seen._replace(
        image_features=seen.image_features[row : row + 1],
        image_tokens=None if tokens is None else tokens[row : row + 1],
    )


def _repeated(picture: Seen, count: int) -> Seen:
    tokens = picture.image_tokens
    return picture._replace(
        image_features=picture.image_features.expand(count, -1),
        image_tokens=None if tokens is None else tokens.expand(count, -1, -1),
    )
