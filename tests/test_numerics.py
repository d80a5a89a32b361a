"""Random tensors against float64, and the error bounds of d(alpha) for long sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import DTYPES, OPERATORS, check, check_grad_alpha
from slow import slow_but
from torch import Tensor

import leaky_ext


@st.composite
def tensors(draw: st.DrawFn, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Draws a tensor of any memory format: maybe a slice, a view at an odd offset, expanded, or with infinities."""
    order = draw(st.permutations(range(len(shape))))
    step = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in shape]
    expanded = [draw(st.integers(0, 9)) == 0 for _ in shape]
    stored = [1 if expanded[d] else shape[d] * step[d] for d in order]
    offset = draw(st.integers(0, 3))
    count = max(1, torch.Size(stored).numel())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    memory = torch.randn(offset + count, generator=generator, dtype=torch.float64) * 10 ** draw(st.integers(-2, 2))
    if draw(st.booleans()):
        memory[:: draw(st.integers(1, 5))] = draw(st.sampled_from([float("inf"), -float("inf"), 0.0, -0.0]))
    memory = memory.to(dtype)
    view = memory[offset : offset + torch.Size(stored).numel()].view(stored)
    view = view.permute([order.index(d) for d in range(len(shape))])
    for d, size in enumerate(shape):
        view = view.expand([size if i == d else n for i, n in enumerate(view.shape)]) if expanded[d] else view
        view = view[(slice(None),) * d + (slice(None, None, step[d] if not expanded[d] else 1),)]
    assert list(view.shape) == shape
    return view


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int]:
    shape = draw(st.lists(st.integers(0, 9), max_size=5))
    dtype = draw(st.sampled_from(DTYPES))
    channel_dim = draw(st.integers(-len(shape), len(shape) - 1)) if shape else 1
    kinds = [[], [1], [1] * len(shape)]
    if shape:
        kinds += [[shape[channel_dim]], [n if draw(st.booleans()) else 1 for n in shape]]
    alpha = draw(tensors(draw(st.sampled_from(kinds)), draw(st.sampled_from(DTYPES))))
    if alpha.ndim == 1 == len(shape):  # both 1-D: broadcast
        alpha = alpha if alpha.numel() in (1, shape[0]) else alpha[:1]
    return draw(tensors(shape, dtype)), alpha, draw(tensors(shape, dtype)), channel_dim


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_any_tensor(name: str, call: tuple[Tensor, Tensor, Tensor, int]) -> None:
    x, alpha, grad, channel_dim = call
    check(name, x, alpha, grad, channel_dim=channel_dim)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls(), need_x=st.booleans(), need_alpha=st.booleans())
def test_frozen_arguments_get_no_gradient(
    call: tuple[Tensor, Tensor, Tensor, int], need_x: bool, need_alpha: bool
) -> None:
    x, alpha, grad, channel_dim = call
    leaves = [x.detach().requires_grad_(need_x), alpha.detach().requires_grad_(need_alpha)]
    both = [x.detach().requires_grad_(), alpha.detach().requires_grad_()]
    y = leaky_ext.learnable_leaky_relu(*leaves, channel_dim=channel_dim)
    assert y.requires_grad == (need_x or need_alpha)
    if y.requires_grad:
        y.backward(grad)
        leaky_ext.learnable_leaky_relu(*both, channel_dim=channel_dim).backward(grad)
    for leaf, full, needed in zip(leaves, both, (need_x, need_alpha), strict=True):
        if needed:
            torch.testing.assert_close(leaf.grad, full.grad, rtol=0, atol=0, equal_nan=True)
        else:
            assert leaf.grad is None


SHAPES = {"shared": (1 << 24,), "channels": (4, 64, 1 << 16), "last": (1 << 14, 1 << 10), "few": (1 << 22, 4)}


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("signs", slow_but(["random", "equal"], "equal"))
@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float32))
def test_bound_of_grad_alpha_over_16m_elements(layout: str, signs: str, dtype: torch.dtype, device: str) -> None:
    shape = SHAPES[layout]
    x, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    if signs == "equal":
        x, grad = -x.abs(), torch.full_like(grad, 0.1)
    channels = 1 if layout == "shared" else shape[1]
    alpha = torch.full((channels,), 0.25, dtype=torch.float64, device=device)
    leaf = alpha.clone().requires_grad_()
    leaky_ext.learnable_leaky_relu(x, leaf).backward(grad)
    assert leaf.grad is not None
    check_grad_alpha(leaf.grad, x, alpha, grad)


@pytest.mark.slow
def test_bound_of_grad_alpha_over_268m_elements(device: str) -> None:
    x = torch.full((1 << 28,), -0.1, device=device)
    grad = torch.rand(1 << 28, device=device)
    leaf = torch.full((1,), 0.25, dtype=torch.float64, device=device, requires_grad=True)
    leaky_ext.learnable_leaky_relu(x, leaf).backward(grad)
    assert leaf.grad is not None
    check_grad_alpha(leaf.grad, x, leaf.detach(), grad)


def test_half_precision_sum_of_small_products(device: str) -> None:
    """Products near 1e-7 vanish in fp16: torch's own prelu, which rounds each one, is 77% off here."""
    x = -torch.full((1_000_000,), 1e-3, dtype=torch.float16, device=device)
    grad = torch.full_like(x, 1e-4)
    alpha = torch.full((1,), 0.25, dtype=torch.float16, device=device, requires_grad=True)
    leaky_ext.learnable_leaky_relu(x, alpha).backward(grad)
    exact = (x.double() * grad.double()).sum()
    assert alpha.grad is not None
    torch.testing.assert_close(alpha.grad.double()[0], exact, rtol=2**-11, atol=0)


def test_half_precision_products_that_overflow_cancel(device: str) -> None:
    """Each product is beyond fp16: torch's own prelu gives NaN here."""
    x = torch.tensor([-500.0, -500.0], dtype=torch.float16, device=device)
    alpha = torch.full((1,), 0.25, dtype=torch.float16, device=device, requires_grad=True)
    leaky_ext.learnable_leaky_relu(x, alpha).backward(torch.tensor([200.0, -200.0], dtype=torch.float16, device=device))
    assert alpha.grad is not None and alpha.grad.item() == 0


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_autocast_changes_nothing(name: str, lower: torch.dtype, dtype: torch.dtype, device: str) -> None:
    x, grad = (torch.randn(3, 5, 4, dtype=dtype, device=device) for _ in range(2))
    alpha = torch.rand(5, dtype=torch.float32, device=device)
    with torch.autocast(device, lower):
        check(name, x, alpha, grad)


def test_double_rounds_once_to_a_half_alpha() -> None:
    """1 + 2^-11 + 2^-40 is above the midpoint of two fp16 numbers. Rounding to float32 first gives the midpoint."""
    x = torch.tensor([-1.0, -(2.0**-11), -(2.0**-40)], dtype=torch.float64)
    for dtype, middle in ((torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)):
        x[1] = -middle
        alpha = torch.ones(1, dtype=dtype, requires_grad=True)
        leaky_ext.learnable_leaky_relu(x, alpha).sum().backward()
        assert alpha.grad is not None and alpha.grad.item() == -(1 + 2 * middle)


@pytest.mark.parametrize("slope", [0.25, -0.25])
def test_the_gradient_at_both_zeros_in_place(slope: float, device: str) -> None:
    """With positive slopes only y is saved, and its sign shows which x were negative."""
    x = torch.tensor([-0.0, 0.0, 1.0, -1.0], device=device, requires_grad=True)
    alpha = torch.tensor([slope], device=device, requires_grad=True)
    y = leaky_ext.learnable_leaky_relu_(x * 1, alpha)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1.0, 1.0, 1.0, slope]
