"""Every layout is processed without a copy. Strides are kept, and gradients may have another layout."""

from __future__ import annotations

import pytest
import torch
from oracle import OPERATORS, check
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import leaky_ext

LAYOUTS = {
    "channels_last": lambda: torch.randn(4, 6, 9, 11).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 6, 3, 5, 7).to(memory_format=torch.channels_last_3d),
    "transposed": lambda: torch.randn(40, 6, 50).transpose(0, 2),
    "permuted": lambda: torch.randn(7, 5, 6, 9).permute(3, 2, 0, 1),
    "sliced": lambda: torch.randn(8, 12, 30)[::2, ::2, 3:20:3],
    "narrow": lambda: torch.randn(3, 6, 2200)[:, :, 5:2100],
    "expanded": lambda: torch.randn(1, 6, 1).expand(5, 6, 400),
    "reversed by stride": lambda: torch.randn(5, 6, 70).flip(2).transpose(1, 2).contiguous().transpose(1, 2),
    "many dimensions": lambda: torch.randn(2, 6, *[4] * 7)[:, :, ::2, :, ::2, :, ::2, :, ::2],
    "ten scattered dimensions": lambda: torch.randn(2, 6, *[3] * 9)[
        :, ::1, ::2, ::2, ::2, ::2, ::2, ::2, ::2, ::2, ::2
    ],
    "scalar": lambda: torch.randn(()),
    "empty": lambda: torch.randn(3, 6, 0, 2),
    "no batch": lambda: torch.randn(0, 6, 4),
}
GRADIENTS = {
    "alike": lambda x: torch.randn(x.shape),
    "contiguous": lambda x: torch.randn(x.shape).contiguous(),
    "reversed dimensions": lambda x: torch.randn(x.shape[::-1]).permute(tuple(reversed(range(x.ndim)))),
    "expanded": lambda x: torch.randn(()).expand(x.shape),
    "every other": lambda x: torch.randn(*x.shape, 2)[..., 1],
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_layouts(name: str, layout: str, gradient: str, device: str) -> None:
    source = LAYOUTS[layout]()
    x = (
        torch.empty_strided(source.shape, source.stride(), device=device).copy_(source)
        if layout != "expanded"
        else source
    )
    x = x.to(device)
    grad = GRADIENTS[gradient](x).to(device)
    slopes: list[Tensor | float] = [-0.3, torch.tensor([0.3])]
    if x.ndim > 1:
        slopes += [torch.randn(x.shape[1]), torch.randn([1] * (x.ndim - 1) + [x.shape[-1]])]
        slopes += [torch.randn(x.shape), torch.randn([x.shape[0]] + [1] * (x.ndim - 2) + [x.shape[-1]])]
    for alpha in slopes:
        check(name, x, alpha.to(device) if isinstance(alpha, Tensor) else alpha, grad)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("expanded", "ten scattered dimensions")])
def test_in_place(layout: str) -> None:
    """Only the elements of the view are written."""
    source = LAYOUTS[layout]()
    memory = torch.full_like(source._base, 42.0) if source._is_view() else torch.full_like(source, 42.0)
    x = memory.as_strided(source.shape, source.stride(), source.storage_offset()).copy_(source)
    alpha = torch.rand(x.shape[1]) if x.ndim > 1 else torch.rand(1)
    for name, alpha_ in (("learnable_leaky_relu", alpha), ("straight_through_relu", 0.1)):
        x.copy_(source)
        version = x._version
        expected = getattr(leaky_ext, name)(x, alpha_)
        assert getattr(leaky_ext, name + "_")(x, alpha_) is x
        assert torch.equal(x, expected) and x._version > version
    x.fill_(42.0)
    assert bool((memory == 42).all())


@pytest.mark.parametrize("in_place", ["", "_"])
@pytest.mark.parametrize("operator", ["learnable_leaky_relu", "straight_through_relu"])
def test_views_with_the_negative_bit(operator: str, in_place: str) -> None:
    """The imaginary part of a conjugate is a view whose memory holds the opposite of its elements."""
    root, alpha = torch.randn(5, 6, requires_grad=True), torch.rand(6)
    expected = getattr(leaky_ext, operator)(root, alpha)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), root)
    x = torch.complex(root, -root).conj().imag
    assert x.is_neg()
    y = getattr(leaky_ext, operator + in_place)(x, alpha)
    (grad,) = torch.autograd.grad(y.square().sum(), root)
    assert torch.equal(y, expected) and torch.equal(grad, expected_grad)


@pytest.mark.parametrize("layout", ["channels_last", "channels_last_3d", "transposed", "permuted", "sliced", "narrow"])
def test_nothing_is_copied(layout: str) -> None:
    """Only the outputs are allocated: y, grad_x and grad_alpha."""
    x, alpha = LAYOUTS[layout]().requires_grad_(), torch.rand(6, requires_grad=True)
    grad = torch.randn(x.shape)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as forward:
        y = leaky_ext.learnable_leaky_relu(x, alpha)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as backward:
        torch.autograd.grad(y, (x, alpha), grad)
    for name, profiled, outputs in (("forward", forward, x.numel()), ("backward", backward, x.numel() + 6)):
        taken = sum(e.self_cpu_memory_usage for e in profiled.events() if e.self_cpu_memory_usage > 0)
        assert taken <= 4 * outputs + 256, name
        assert not any(e.name in ("aten::copy_", "aten::clone", "aten::contiguous") for e in profiled.events()), name


@pytest.mark.parametrize("shape", [(3, 5000, 3), (70_000, 3), (3, 70_000), (2, 2500, 7), (64, 300, 49), (6000, 513)])
def test_shapes_that_are_cut_in_each_way(shape: tuple[int, ...]) -> None:
    x, grad = torch.randn(shape), torch.randn(shape)
    check("learnable", x, torch.randn(shape[1]), grad)
    check("learnable", x, torch.randn(shape[-1]), grad, channel_dim=-1)
    check("learnable", x.double(), torch.randn(shape[1]).half(), grad.double())


@pytest.mark.slow
def test_more_than_2_31_elements() -> None:
    """9 GB in all. Only the elements beyond 2^31 and a few before are compared."""
    n = 2**31 + 100_003
    x = torch.full((n,), -1.0, dtype=torch.bfloat16)
    x[-50_000:] = torch.randn(50_000).bfloat16()
    alpha = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    y = leaky_ext.learnable_leaky_relu(x, alpha)
    tail, value = x[-50_000:], y.detach()
    assert torch.equal(value[-50_000:], torch.where(tail >= 0, tail, tail * 0.5))
    assert bool((value[:1000] == -0.5).all()) and bool((value[2**31 - 10 : 2**31 + 10] == -0.5).all())
    y.backward(torch.ones(1, dtype=torch.bfloat16).expand(n))
    exact = -(n - 50_000) + tail.double().clamp(max=0).sum()
    assert alpha.grad is not None
    torch.testing.assert_close(alpha.grad[0], exact, rtol=2e-7, atol=0)
