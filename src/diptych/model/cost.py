"""What one sample costs in a tower: FLOPs and bytes kept for the backward pass. Each tower's config tells its own.

One multiply-add counts as 2 FLOPs. FLOPs are those of matrix products and convolutions, exactly; a causal mask saves
none of them, by convention. Activations are what autograd keeps under autocast, with fused attention (its matrix is
never kept): the matrix type takes 4 or 2 bytes a number, layer norms and the residual stream stay float32.
"""

from typing import NamedTuple

from diptych.model.blocks import BlockSizes

FLOAT = 4  # bytes of a float32


class TowerCost(NamedTuple):
    """What one sample costs in one tower."""

    forward: int  # FLOPs
    backward: int  # FLOPs: twice the forward pass, but for the layer that pixels enter, whose input needs no gradient
    blocks: int  # FLOPs of the forward pass in transformer blocks, which checkpointing computes twice
    activations: int  # bytes kept for the backward pass
    checkpointed: int  # the same when such blocks keep their inputs alone, and one of them at a time the rest


def frozen(cost: TowerCost) -> TowerCost:
    """What a tower costs that does not learn: its forward pass."""
    return TowerCost(cost.forward, backward=0, blocks=0, activations=0, checkpointed=0)


def transformer_cost(
    sizes: BlockSizes, tokens: int, element: int, *, first: int, last: int, outside: int, rotates: bool = False
) -> TowerCost:
    """A stack of transformer blocks, and what is before and behind it.

    Args:
        sizes: of the blocks.
        tokens: positions that pass through them.
        element: bytes of one number in matrix products.
        first: FLOPs of the layer that pixels enter; 0 where none does.
        last: FLOPs behind the blocks.
        outside: bytes kept outside of the blocks.
        rotates: whether queries and keys are turned by their place.
    """
    width, hidden = sizes.width, sizes.mlp_width
    block = attention_flops(width, tokens) + 4 * tokens * width * hidden
    kept = attention_bytes(width, sizes.heads, tokens, element, rotates=rotates)
    # Of each token: the input of the layer norm; in the matrix type that of the MLP, then both sides of the activation,
    # or of ReLU what it gives.
    sides = 1 if sizes.activation == "relu" else 2
    kept += tokens * (layer_norm_bytes(width) + element * (width + sides * hidden))
    return stack_cost(
        layers=sizes.layers,
        block=block,
        kept=kept,
        stream=tokens * width * FLOAT,
        first=first,
        last=last,
        outside=outside,
    )


def stack_cost(*, layers: int, block: int, kept: int, stream: int, first: int, last: int, outside: int) -> TowerCost:
    """Any kind of blocks, and what is before and behind them; see `transformer_cost`.

    Args:
        layers: how many blocks.
        block: FLOPs of one.
        kept: bytes that one keeps.
        stream: bytes of its input.
        first: see `transformer_cost`; so are the others.
        last: FLOPs behind the blocks.
        outside: bytes kept outside of the blocks.
    """
    blocks = layers * block
    forward = first + blocks + last
    return TowerCost(
        forward=forward,
        backward=2 * forward - first,
        blocks=blocks,
        activations=outside + layers * kept,
        checkpointed=outside + layers * stream + kept,
    )


def attention_flops(width: int, tokens: int) -> int:
    """FLOPs of self-attention with its projections."""
    return 8 * tokens * width**2 + 4 * tokens**2 * width


def attention_bytes(width: int, heads: int, tokens: int, element: int, *, rotates: bool = False) -> int:
    """Bytes that self-attention keeps, with the layer norm before it."""
    # Of each token: the input of the layer norm; in the matrix type the input of the attention, query, key, value and
    # its output, and query and key once more where they are rotated; one float a head of the fused attention.
    turned = 2 * width if rotates else 0
    return tokens * (layer_norm_bytes(width) + element * (5 * width + turned) + FLOAT * heads)


def without_blocks(*, forward: int, first: int, activations: int) -> TowerCost:
    """A tower none of whose parts is computed a second time; see `transformer_cost`."""
    return TowerCost(
        forward=forward, backward=2 * forward - first, blocks=0, activations=activations, checkpointed=activations
    )


def layer_norm_bytes(width: int, element: int = FLOAT) -> int:
    """Bytes that a layer norm keeps of one position: its input, `element` bytes a number, mean and deviation."""
    return element * width + 2 * FLOAT
