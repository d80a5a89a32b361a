"""What is measured: leaky_ext, the formulas that people write by hand, and PyTorch's own operators.

Every implementation is a function of (x, alpha). The hand-written ones are modern equivalents of what is found in
forums and tutorials: https://discuss.pytorch.org, "Relu with leaky derivative", for the straight-through ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import leaky_ext

LEARNABLE = "learnable_leaky_relu"
FIXED = "leaky_relu"  # the slope is a float: leaky_ext.learnable_leaky_relu(x, 0.01) against F.leaky_relu
STRAIGHT_THROUGH = "straight_through_relu"

FIXED_SLOPE = 0.01


@dataclass(frozen=True)
class Implementation:
    name: str
    function: Callable[..., Tensor]
    # How it wants its slopes: "[1]" (or [C]), "[]" (or broadcastable to x), or "float".
    alpha: str
    # What it does not compute, said wherever it is compared. Empty: it computes the same thing.
    less: str = ""
    slope: float | None = None  # a slope of its own, where it does not take the case's
    one_slope: bool = False  # one slope for all channels, where the case has one for each
    compiled: bool = False

    @property
    def learns(self) -> bool:
        return self.alpha != "float"


def where(x: Tensor, alpha: Any) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def clamp(x: Tensor, alpha: Any) -> Tensor:
    positive = torch.clamp(x, min=0.0)
    negative = x - positive
    return positive + alpha * negative


def prelu(x: Tensor, alpha: Tensor, channel_dim: int = 1) -> Tensor:
    if x.ndim > 1 and channel_dim != 1:  # F.prelu knows one place for channels
        return F.prelu(x.movedim(channel_dim, 1), alpha).movedim(1, channel_dim)
    return F.prelu(x, alpha)


def detach(x: Tensor, alpha: float) -> Tensor:
    """Forward of the one, gradient of the other, by adding their difference as a constant."""
    x_forward, x_backward = F.relu(x), F.leaky_relu(x, alpha)
    return x_backward + (x_forward - x_backward).detach()


class FWBWMismatch(torch.autograd.Function):
    """Value of x_forward, gradient to x_backward."""

    @staticmethod
    def forward(ctx: Any, x_forward: Tensor, x_backward: Tensor) -> Tensor:
        ctx.shape = x_backward.shape
        return x_forward.view_as(x_forward)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0].sum_to_size(ctx.shape)


def fwbw_mismatch(x: Tensor, alpha: float) -> Tensor:
    with torch.no_grad():
        x_forward = F.relu(x)
    return FWBWMismatch.apply(x_forward, F.leaky_relu(x, alpha))


class NSReLU(torch.autograd.Function):
    """Non-saturating ReLU: the negative half of the gradient is scaled in place, by an index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        ctx.save_for_backward(x < 0)
        return x.clamp(min=0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (negative,) = ctx.saved_tensors
        grad_x = grads[0].clone()
        grad_x[negative] *= ctx.alpha
        return grad_x, None


def nsrelu(x: Tensor, alpha: float) -> Tensor:
    return NSReLU.apply(x, alpha)


def relu(x: Tensor, alpha: float) -> Tensor:
    return F.relu(x)


def leaky_relu(x: Tensor, alpha: Any) -> Tensor:
    return F.leaky_relu(x, FIXED_SLOPE)


def save_output(x: Tensor, alpha: Tensor, channel_dim: int = 1) -> Tensor:
    return leaky_ext.learnable_leaky_relu(x, alpha, channel_dim=channel_dim, save="output")


def _table(*implementations: Implementation) -> dict[str, Implementation]:
    compiled = [replace(i, name=f"{i.name}, compiled", compiled=True) for i in implementations]
    return {i.name: i for i in (*implementations, *compiled)}


# operator -> name -> implementation, ours first
IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {
    LEARNABLE: _table(
        Implementation("leaky_ext", leaky_ext.learnable_leaky_relu, "[1]"),
        Implementation("leaky_ext, save=output", save_output, "[1]"),
        Implementation("where", where, "[]"),
        Implementation("where, alpha [1]", where, "[1]"),  # the same formula with a parameter of shape [1]
        Implementation("clamp", clamp, "[]"),
        Implementation("F.prelu", prelu, "[1]"),
        Implementation("F.leaky_relu", leaky_relu, "float", less="no d(alpha)", slope=FIXED_SLOPE),
        Implementation("leaky_ext, one slope", leaky_ext.learnable_leaky_relu, "[1]", less="one slope", one_slope=True),
    ),
    FIXED: _table(
        Implementation("leaky_ext", leaky_ext.learnable_leaky_relu, "float"),
        Implementation("where", where, "float"),
        Implementation("clamp", clamp, "float"),
        Implementation("F.leaky_relu", leaky_relu, "float"),
    ),
    STRAIGHT_THROUGH: _table(
        Implementation("leaky_ext", leaky_ext.straight_through_relu, "float"),
        Implementation("NSReLU", nsrelu, "float"),
        Implementation("detach", detach, "float"),
        Implementation("FWBWMismatch", fwbw_mismatch, "float"),
        Implementation("F.relu", relu, "float", less="gradient 0 for x < 0", slope=0.0),
    ),
}


def needs_channel_dim(implementation: Implementation) -> bool:
    return implementation.function in (leaky_ext.learnable_leaky_relu, save_output, prelu)


def compile_function(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One graph, static shapes: what torch.compile gives after its first call."""
    return torch.compile(function, fullgraph=True, dynamic=False)
