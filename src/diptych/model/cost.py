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


def transformer_cost(sizes: BlockSizes, tokens: int, element: int, *, first: int, last: int, outside: int) -> TowerCost:
    """A stack of transformer blocks, and what is before and behind it.

    Args:
        sizes: of the blocks.
        tokens: positions that pass through them.
        element: bytes of one number in matrix products.
        first: FLOPs of the layer that pixels enter; 0 where none does.
        last: FLOPs behind the blocks.
        outside: bytes kept outside of the blocks.
    """
    width, hidden = sizes.width, sizes.mlp_width
    block = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    # Of each token: inputs of both layer norms; in the matrix type, inputs of the attention, query, key, value, its
    # output and the input of the MLP, then both sides of the activation; one float a head of the fused attention.
    kept = tokens * (2 * layer_norm_bytes(width) + element * (6 * width + 2 * hidden) + FLOAT * sizes.heads)
    blocks = sizes.layers * block
    forward = first + blocks + last
    return TowerCost(
        forward=forward,
        backward=2 * forward - first,
        blocks=blocks,
        activations=outside + sizes.layers * kept,
        checkpointed=outside + sizes.layers * tokens * width * FLOAT + kept,
    )


def without_blocks(*, forward: int, first: int, activations: int) -> TowerCost:
    """A tower none of whose parts is computed a second time; see `transformer_cost`."""
    return TowerCost(
        forward=forward, backward=2 * forward - first, blocks=0, activations=activations, checkpointed=activations
    )


def layer_norm_bytes(width: int) -> int:
    """Bytes that a layer norm keeps of one position: its input, mean and deviation."""
    return FLOAT * (width + 2)
