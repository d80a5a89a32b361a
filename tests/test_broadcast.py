"""Slopes of every shape that broadcasts: values, gradients, peaks. Only outputs have the size of x."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle import DTYPES, check_grad_alpha
from peak import MIB, peak
from slow import slow_but
from torch import Tensor

from leaky_ext import learnable_leaky_relu, learnable_leaky_relu_, reference, straight_through_relu

N, C, H, W = 5, 32, 58, 60  # a copy of x takes more than 1 MiB in every dtype
SLOPES = [
    (N, C, 1, 1),
    (N, 1, 1, 1),
    (1, C, 1, W),
    (1, C, H, 1),
    (N, C, H, 1),
    (1, 1, H, W),
    (N, 1, H, 1),
]
LAYOUTS = {
    "contiguous": lambda: torch.randn(N, C, H, W),
    "channels_last": lambda: torch.randn(N, H, W, C).permute(0, 3, 1, 2),
    "transposed": lambda: torch.randn(C, W, N, H).permute(2, 0, 3, 1),
    "every other": lambda: torch.randn(N, C, H, 2 * W)[..., ::2],
}
# The call, its formula, whether slopes are learned, and whether all are positive.
Call = Callable[[Tensor, Tensor], Tensor]
CALLS: dict[str, tuple[Call, Call, bool, bool]] = {
    "learned": (learnable_leaky_relu, reference.learnable_leaky_relu, True, False),
    "save='output'": (
        lambda x, a: learnable_leaky_relu(x, a, save="output"),
        reference.learnable_leaky_relu,
        True,
        True,
    ),
    "in place": (lambda x, a: learnable_leaky_relu_(x.clone(), a), reference.learnable_leaky_relu, True, False),
    "frozen": (learnable_leaky_relu, reference.learnable_leaky_relu, False, False),
    "straight-through": (straight_through_relu, reference.straight_through_relu, True, False),
    "straight-through, frozen": (straight_through_relu, reference.straight_through_relu, False, False),
}


@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slopes", SLOPES, ids=str)
def test_values_and_peaks(slopes: tuple[int, ...], layout: str, dtype: torch.dtype, device: str) -> None:
    check_all_calls(LAYOUTS[layout]().to(dtype), slopes, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("shape", "slopes"),
    [((2, 21, 70, 133), (1, 21, 70, 133)), ((37, 64, 83, 3), (37, 64, 83, 1)), ((5, 301, 2, 503), (1, 301, 2, 503))],
)
def test_slopes_almost_as_large_as_x_in_another_order(
    shape: tuple[int, ...], slopes: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """In channels_last, a copy of such slopes and one of their gradient would take 1.5 MiB and more."""
    check_all_calls(torch.randn(shape).to(dtype, memory_format=torch.channels_last), slopes, device)


def check_all_calls(source: Tensor, slopes: tuple[int, ...], device: str) -> None:
    """Values, gradients and peaks of every call, with an x that is laid out as source is."""
    dtype = source.dtype
    x = torch.empty_strided(source.shape, source.stride(), dtype=dtype, device=device).copy_(source).requires_grad_()
    grad = torch.randn_like(x)
    size, bits = x.numel() * x.element_size(), (x.numel() + 7) // 8
    for name, (call, formula, learned, positive) in CALLS.items():
        alpha = torch.rand(slopes, device=device) + 0.1
        if not positive:
            alpha *= torch.randn(slopes, device=device).sign()
        alpha.requires_grad_(learned)
        inputs = (x, alpha) if learned else (x,)
        torch.autograd.grad(call(x, alpha), inputs, grad)  # what is allocated once

        outputs: list[Tensor] = []
        # On CUDA the workspace of d(alpha) alone may take 1 MiB; besides, there are copies of the slope's pieces.
        beyond = MIB if device == "cpu" else MIB + 3 * min(4 * alpha.numel(), 256 * 1024)
        assert peak(lambda: outputs.append(call(x, alpha)), device) < size + bits + beyond, name  # noqa: B023
        y = outputs.pop()
        gradients: list[Tensor] = []
        backward = lambda: gradients.extend(torch.autograd.grad(y, inputs, grad))  # noqa: B023, E731
        assert peak(backward, device) < size + learned * 4 * alpha.numel() + beyond, name

        expected = formula(x, alpha)
        assert torch.equal(y, expected) and y.dtype == dtype, name
        assert torch.equal(gradients[0], torch.autograd.grad(expected, x, grad)[0]) and gradients[0].dtype == dtype, (
            name
        )
        assert gradients[0].stride() == y.stride() == torch.empty_like(x).stride()
        if not learned:
            continue
        if name in ("learned", "straight-through"):
            check_grad_alpha(gradients[1], x.detach(), alpha.detach(), grad)
        else:  # x comes back as exactly as y, alpha * x, holds it; alpha is at least 0.1
            terms = torch.where(x >= 0, 0.0, grad.double() * x.detach().double())
            exact, scale = terms.sum_to_size(slopes), terms.abs().sum_to_size(slopes)
            info = torch.finfo(dtype)
            allowed = 2 * max(info.eps, torch.finfo(alpha.dtype).eps) * scale
            allowed += 10 * info.smallest_normal * info.eps * grad.double().abs().sum_to_size(slopes)  # underflow
            assert bool(((gradients[1] - exact).abs() <= allowed).all()), name
