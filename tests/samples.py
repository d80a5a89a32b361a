"""Arguments of the functions that several files test: shapes of x and alpha, and values away from 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from leaky_ext import learnable_leaky_relu, straight_through_relu

Function = Callable[..., Tensor]
FUNCTIONS = [learnable_leaky_relu, straight_through_relu]
# The shapes of x and of alpha (None: a float), and channel_dim. After OpInfo's samples of prelu and leaky_relu.
SAMPLES: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, int]] = {
    "float": ((5, 5), None, 1),
    "0-d x, float": ((), None, 1),
    "empty, float": ((2, 0, 3), None, 1),
    "0-d x": ((), (), 1),
    "0-d alpha": ((2, 3), (), 1),
    "one element": ((2, 3, 4), (1,), 1),
    "channels": ((2, 3, 4), (3,), 1),
    "last dimension": ((2, 3, 4), (4,), -1),
    "1-d": ((4,), (4,), 0),
    "broadcast": ((2, 3, 4), (2, 1, 4), 1),
    "full": ((2, 3), (2, 3), 1),
    "empty, channels": ((0, 3), (3,), 1),
}
# The shape of alpha, and channel_dim, for an x of shape (3, 4, 5).
SLOPES = {
    "0-d": ((), 1),
    "one element": ((1,), 1),
    "more dimensions than x": ((1, 1, 1, 1), 1),
    "channels": ((4,), 1),
    "first dimension": ((3,), 0),
    "last dimension": ((5,), -1),
    "broadcast": ((3, 1, 5), 1),
    "full": ((3, 4, 5), 1),
}
samples = pytest.mark.parametrize("sample", SAMPLES)
functions = pytest.mark.parametrize("function", FUNCTIONS)


def away_from_zero(*shape: int) -> Tensor:
    """Returns normal numbers of either sign, none of them near 0, where the gradient jumps."""
    x = torch.randn(shape, dtype=torch.float64)
    return x + 0.1 * x.sign()


def arguments(sample: str, dtype: torch.dtype = torch.float64, requires_grad: bool = True) -> tuple[Tensor, Any, int]:
    """Returns x, alpha and channel_dim. No element of x is near 0, where the gradient jumps."""
    shape, slopes, channel_dim = SAMPLES[sample]
    x = away_from_zero(*shape).to(dtype).requires_grad_(requires_grad)
    if slopes is None:
        return x, -0.3, channel_dim
    return x, (torch.rand(slopes, dtype=torch.float64) + 0.1).to(dtype).requires_grad_(requires_grad), channel_dim


def inputs(x: Tensor, alpha: Any) -> tuple[Tensor, ...]:
    return (x, alpha) if isinstance(alpha, Tensor) else (x,)


def of_inputs(function: Function, alpha: Any, channel_dim: int, **options: Any) -> Callable[..., Tensor]:
    """Returns the function with only its differentiable arguments."""
    if isinstance(alpha, Tensor):
        return lambda x, alpha: function(x, alpha, channel_dim=channel_dim, **options)
    return lambda x: function(x, alpha, channel_dim=channel_dim, **options)


def gradients(f: Callable[..., Tensor], args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((f(*args) ** 2).sum(), args)
