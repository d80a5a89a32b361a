"""The contract in float64: what a call must return, and the error bound of grad_alpha."""

from __future__ import annotations

import torch
from torch import Tensor

import leaky_ext

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OPERATORS = {"learnable": leaky_ext.learnable_leaky_relu, "straight_through": leaky_ext.straight_through_relu}


def broadcast(x: Tensor, alpha: Tensor, channel_dim: int = 1) -> Tensor:
    """Returns alpha with a shape that broadcasts against x."""
    if alpha.numel() == 1:
        return alpha.reshape([1] * x.ndim)
    if alpha.ndim == 1 and x.ndim > 1:
        shape = [1] * x.ndim
        shape[channel_dim] = -1
        return alpha.reshape(shape)
    return alpha


def same(actual: Tensor, expected: Tensor) -> None:
    """Returns whether two tensors are equal to the bit, except the sign and payload of NaNs and the sign of zeros."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def check_grad_alpha(
    actual: Tensor, x: Tensor, alpha: Tensor, grad: Tensor, channel_dim: int = 1, device: str = ""
) -> None:
    """Checks the bound of the contract: 2e-7 of sum|g * x| on the CPU, 1e-6 on CUDA, and one rounding to alpha's dtype.

    device: the device of the computation, if the tensor has been moved.
    """
    assert actual.shape == alpha.shape and actual.dtype == alpha.dtype
    terms = torch.where(x >= 0, 0.0, grad.double() * x.double())
    shape = broadcast(x, alpha, channel_dim).shape
    exact, scale = (t.sum_to_size(shape).reshape(alpha.shape) for t in (terms, terms.abs()))
    bound = 1e-13 if x.dtype == torch.float64 else 2e-7 if (device or x.device.type) == "cpu" else 1e-6
    info = torch.finfo(alpha.dtype)
    allowed = bound * scale * (1 + info.eps) + exact.abs() * info.eps / 2 + info.smallest_normal * info.eps
    finite = exact.isfinite() & (exact.abs() < info.max)
    error = (actual.double() - exact).abs()
    assert bool((error <= allowed)[finite].all()), f"off by {error[finite].max()}, allowed {allowed[finite].max()}"
    torch.testing.assert_close(actual[~finite], exact[~finite].to(alpha.dtype), rtol=0, atol=0, equal_nan=True)


def check(name: str, x: Tensor, alpha: Tensor | float, grad: Tensor, *, channel_dim: int = 1, **options: str) -> None:
    """Runs an operator forward and backward on leaves that need a gradient; y, grad_x and grad_alpha must be right."""
    leaf = x.detach().requires_grad_()
    slope = alpha.detach().requires_grad_() if isinstance(alpha, Tensor) else alpha
    y = OPERATORS[name](leaf, slope, channel_dim=channel_dim, **options)
    y.backward(grad)

    opmath = torch.promote_types(x.dtype, torch.float32)
    wide = broadcast(x, alpha.to(opmath), channel_dim) if isinstance(alpha, Tensor) else alpha
    negative = ~(x >= 0)
    scaled = torch.where(x < 0, 0, x) if name == "straight_through" else (wide * x.to(opmath)).to(x.dtype)
    same(y.detach(), torch.where(negative, scaled, x))
    assert leaf.grad is not None
    same(leaf.grad, torch.where(negative, (wide * grad.to(opmath)).to(x.dtype), grad))
    assert y.stride() == torch.empty_like(x).stride()
    if isinstance(slope, Tensor):
        assert slope.grad is not None
        check_grad_alpha(slope.grad, x, slope.detach(), grad, channel_dim)
