import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diptych.errors import ConfigError
from diptych.model.blocks import (
    ACTIVATIONS,
    Attention,
    Block,
    GatedMLP,
    KeptAttention,
    Stack,
    attend,
    attended,
    check_blocks,
    check_sizes,
    keep_patches,
    reset_to_defaults,
)
from diptych.torch_runtime import generator


def make_attention(*, is_causal: bool) -> Attention:
    attention = Attention(8, 2, is_causal=is_causal)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, generator=generator(0, parameter.numel()))
    return attention


def attention_by_loops(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """One position of one head at a time."""
    length, width = x.shape
    size = width // attention.heads
    query, key, value = (x @ attention.in_projection.weight.T + attention.in_projection.bias).split(width, dim=1)
    mixed = torch.zeros(length, width)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            seen = i + 1 if attention.is_causal else length
            shares = torch.softmax(key[:seen, part] @ query[i, part] / math.sqrt(size), dim=0)
            mixed[i, part] = shares @ value[:seen, part]
    return mixed @ attention.out_projection.weight.T + attention.out_projection.bias


def test_activations_equal_their_formulas():
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    tanh = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(ACTIVATIONS["quick_gelu"](x), x * torch.sigmoid(1.702 * x))
    torch.testing.assert_close(ACTIVATIONS["gelu"](x), 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
    torch.testing.assert_close(ACTIVATIONS["gelu_tanh"](x), tanh)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_equals_its_plain_twin(is_causal):
    attention = make_attention(is_causal=is_causal)
    x = torch.randn(3, 5, 8, generator=generator(1))
    torch.testing.assert_close(attention(x), torch.stack([attention_by_loops(attention, row) for row in x]))


def heads_of(length: int, *, queries: int = 0, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key and value of 2 rows and 3 heads of 4 channels."""
    shapes = [(2, 3, queries or length, 4), (2, 3, length, 4), (2, 3, length, 4)]
    return [
        (2 * torch.randn(shape, generator=generator(i), dtype=torch.float64)).to(dtype).requires_grad_()
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(("is_causal", "queries"), [(False, 5), (True, 5), (False, 1)])
def test_kept_attention_has_value_and_both_derivatives_of_the_plain_formula(is_causal, queries):
    inputs = heads_of(5, queries=queries, dtype=torch.float64)
    plain = nn.functional.scaled_dot_product_attention(*inputs, is_causal=is_causal)
    torch.testing.assert_close(KeptAttention.apply(*inputs, is_causal), plain)
    assert torch.autograd.gradcheck(KeptAttention.apply, (*inputs, is_causal))
    assert torch.autograd.gradgradcheck(KeptAttention.apply, (*inputs, is_causal))


@pytest.mark.parametrize("is_causal", [False, True])
def test_in_bfloat16_attention_is_as_near_to_the_exact_one_as_the_fused_kernel(is_causal):
    """Largest error of value and gradients, against float64; under autocast, as in training."""
    weights = torch.randn(2, 3, 33, 4, generator=generator(9), dtype=torch.float64)

    def results(attention: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.detach().to(dtype).requires_grad_() for t in heads_of(33, dtype=torch.bfloat16)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = attention(*inputs, is_causal=is_causal)
        assert out.dtype == dtype
        return [out, *torch.autograd.grad((out * weights).sum(), inputs)]

    fused = nn.functional.scaled_dot_product_attention
    exact = results(fused, torch.float64)
    ours, theirs = (
        [((value - truth).norm() / truth.norm()).item() for value, truth in zip(found, exact, strict=True)]
        for found in (results(attend, torch.bfloat16), results(fused, torch.bfloat16))
    )
    assert all(mine < 1.5 * other for mine, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_attention_keeps_its_matrix_only_in_bfloat16_where_gradients_are_wanted_and_it_is_small():
    def keeps(length: int, dtype: torch.dtype) -> bool:
        out = attend(*heads_of(length, dtype=dtype), is_causal=False)
        return out.grad_fn is not None and "KeptAttention" in out.grad_fn.name()

    assert keeps(256, torch.bfloat16)
    assert not keeps(257, torch.bfloat16)
    assert not keeps(8, torch.float32)
    with torch.no_grad():
        assert not keeps(8, torch.bfloat16)


def test_a_block_normalises_before_each_part_and_adds_it_to_what_came_in():
    block = Block(width=8, heads=2, mlp_width=24, activation="gelu", layer_norm_eps=1e-3, is_causal=False)
    reset_to_defaults(block, generator(1))
    x = torch.randn(2, 5, 8, generator=generator(2))

    def normalised(x: torch.Tensor) -> torch.Tensor:  # the scales are 1 and the shifts 0
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()

    half = x + block.attention(normalised(x))
    hidden = nn.functional.gelu(normalised(half) @ block.mlp.up.weight.T + block.mlp.up.bias)
    assert hidden.shape == (2, 5, 24)
    torch.testing.assert_close(block(x), half + hidden @ block.mlp.down.weight.T + block.mlp.down.bias)


def test_layer_norm_of_bfloat16_takes_its_statistics_in_float32():
    norm = Block(width=8, heads=1, mlp_width=8, activation="gelu", layer_norm_eps=1e-5, is_causal=False).ln_mlp
    x = (256 + 2 * torch.arange(8.0)).bfloat16()  # bfloat16 holds only even numbers here: a mean of 263 would be lost
    exact = norm(x.float()).bfloat16()
    torch.testing.assert_close(norm.bfloat16()(x), exact, rtol=2**-7, atol=0)


def test_layers_start_as_torch_starts_them():
    with torch.random.fork_rng():
        torch.manual_seed(1)  # torch draws its own start from the global state
        theirs = nn.MultiheadAttention(64, 4)
        linear, conv = nn.Linear(100, 400), nn.Conv2d(4, 400, 5)
    layers = nn.ModuleDict(
        {"attention": Attention(64, 4, is_causal=False), "linear": nn.Linear(100, 400), "conv": nn.Conv2d(4, 400, 5)}
    )
    for parameter in layers.parameters():
        nn.init.constant_(parameter, torch.nan)
    reset_to_defaults(layers, generator(0))
    attention = layers["attention"]
    assert isinstance(attention, Attention)
    pairs = [
        (attention.in_projection.weight, theirs.in_proj_weight),
        (attention.out_projection.weight, theirs.out_proj.weight),
        (layers["linear"].weight, linear.weight),
        (layers["linear"].bias, linear.bias),
        (layers["conv"].weight, conv.weight),
    ]
    for ours, reference in pairs:  # uniform: the largest value tells the bound, the mean that both signs come
        assert ours.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.02)
        assert ours.std().item() == pytest.approx(reference.std().item(), rel=0.1)
        assert ours.mean().abs() < 0.2 * ours.std()
    assert not attention.in_projection.bias.any()
    assert not attention.out_projection.bias.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, r"text\.heads must divide text\.width\. Got heads=3, width=8"),
        ({"layers": 0}, r"text\.layers must be at least 1\. Got 0"),
        ({"activation": "quick_gelo"}, r"text\.activation.*Did you mean quick_gelu\?"),
    ],
)
def test_impossible_blocks_are_refused(wrong, message):
    sizes = {"width": 8, "layers": 1, "heads": 2, "mlp_width": 32, "activation": "gelu", "layer_norm_eps": 1e-5}
    check_blocks("text", SimpleNamespace(**sizes))
    with pytest.raises(ConfigError, match=message):
        check_blocks("text", SimpleNamespace(**(sizes | wrong)))


def test_the_first_size_below_one_is_named():
    with pytest.raises(ConfigError, match=r"image\.b must be at least 1\. Got -2"):
        check_sizes("image", a=1, b=-2, c=0)


def make_stack() -> Stack:
    sizes = {"width": 16, "heads": 2, "mlp_width": 64, "activation": "gelu", "layer_norm_eps": 1e-5, "is_causal": True}
    stack = Stack(*(Block(**sizes) for _ in range(3)))  # pyright: ignore[reportArgumentType]
    reset_to_defaults(stack, generator(0))
    return stack


def test_recomputed_blocks_keep_less_and_have_the_same_gradients_to_the_bit():
    x = torch.randn(2, 5, 16, generator=generator(1))
    results, kept = [], []
    for recomputes in (False, True):
        stack, sizes = make_stack(), []
        stack.recomputes = recomputes
        start = x.clone().requires_grad_()

        def keep(t: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = stack(start)
            kept.append(sum(sizes))
        out.square().sum().backward()
        results.append([out, start.grad, *(p.grad for p in stack.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert kept[1] < 0.1 * kept[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's tracer does so itself
def test_a_block_is_compiled_in_one_piece_with_the_same_gradients():
    """By torch's tracers alone: what a compiler makes of the trace is not ours to test."""
    x = torch.randn(2, 5, 16, generator=generator(1))
    results = []
    for compiles in (False, True):
        block, start = make_stack()[0], x.clone().requires_grad_()
        if compiles:
            block.compile(backend="aot_eager", fullgraph=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = block(start)
        out.square().sum().backward()
        results.append([out, start.grad, *(p.grad for p in block.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def test_a_stack_is_named_as_a_sequence_is():
    assert make_stack().state_dict().keys() == nn.Sequential(*make_stack()).state_dict().keys()


def test_kept_patches_are_picked_for_each_picture_by_itself():
    x = torch.arange(12.0).view(2, 3, 2)
    assert keep_patches(x, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_a_gated_mlp_lets_through_what_its_gate_opens():
    mlp = GatedMLP(6, 10, F.silu)
    reset_to_defaults(mlp, generator(0))
    x = torch.randn(2, 3, 6, generator=generator(1))
    gate = x @ mlp.gate.weight.T + mlp.gate.bias
    through = gate * gate.sigmoid() * (x @ mlp.up.weight.T + mlp.up.bias)
    torch.testing.assert_close(mlp(x), through @ mlp.down.weight.T + mlp.down.bias)
    torch.testing.assert_close(mlp.hidden(x), through)


def test_attention_between_its_projections_is_what_attention_does():
    attention = Attention(8, 2, is_causal=True)
    reset_to_defaults(attention, generator(0))
    x = torch.randn(2, 5, 8, generator=generator(1))
    inner = attended(attention.in_projection(x), 2, is_causal=True)
    assert torch.equal(attention.out_projection(inner), attention(x))
