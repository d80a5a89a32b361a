"""The contenders: leaky_ext, PyTorch's own activations, and the formulas that people write by hand.

Every contender is a function of (x, alpha). A contender for networks also has the module that replaces an `nn.PReLU`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leaky_ext

SLOPE = 0.01  # the slope of all contenders with a fixed slope
BOUNDS = (0.0, 1.0)  # of the slopes of "bounded" contenders


@dataclass(frozen=True, kw_only=True)
class Contender:
    function: Callable[[Tensor, Any], Tensor]
    forward: float | None = SLOPE  # slope for negative x; None: alpha, a tensor that requires grad
    backward: float | None = SLOPE  # the same for the gradient
    module: Callable[[nn.PReLU], nn.Module] | None = None
    mkldnn: bool = False  # x and its gradient are in oneDNN's own layout

    @property
    def learns(self) -> bool:
        return self.backward is None


class Layer(nn.Module):
    """A function of (x, alpha) as a layer. alpha is the parameter of the PReLU that it replaces, or a float."""

    def __init__(self, function: Callable[[Tensor, Any], Tensor], alpha: nn.Parameter | float) -> None:
        super().__init__()
        self.function, self.alpha = function, alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.alpha)


def converted(prelu: nn.PReLU, **options: Any) -> nn.Module:
    leaky_ext.convert(prelu, **options)
    return prelu


def prelu_clamped(x: Tensor, alpha: Any) -> Tensor:
    return F.prelu(x, alpha.clamp(*BOUNDS))


def where(x: Tensor, alpha: Any) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def where_straight_through(x: Tensor, alpha: float) -> Tensor:
    surrogate = alpha * x
    return torch.where(x >= 0, x, surrogate - surrogate.detach())


def clamp(x: Tensor, alpha: Any) -> Tensor:
    positive = torch.clamp(x, min=0.0)
    return positive + alpha * (x - positive)


def detach(x: Tensor, alpha: float) -> Tensor:
    """Computes ReLU with the gradient of leaky ReLU, by adding their difference as a constant."""
    x_forward, x_backward = F.relu(x), F.leaky_relu(x, alpha)
    return x_backward + (x_forward - x_backward).detach()


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


learnable, straight_through = leaky_ext.learnable_leaky_relu, leaky_ext.straight_through_relu

CONTENDERS: dict[str, Contender] = {
    "learnable": Contender(function=learnable, forward=None, backward=None, module=converted),
    "fixed": Contender(function=learnable, module=lambda prelu: Layer(learnable, SLOPE)),
    "straight-through": Contender(
        function=straight_through, forward=0.0, module=lambda prelu: leaky_ext.StraightThroughReLU(SLOPE)
    ),
    "PReLU": Contender(function=F.prelu, forward=None, backward=None, module=lambda prelu: prelu),
    "LeakyReLU": Contender(function=F.leaky_relu, module=lambda prelu: nn.LeakyReLU(SLOPE)),
    "ReLU": Contender(function=lambda x, alpha: F.relu(x), forward=0.0, backward=0.0, module=lambda prelu: nn.ReLU()),
    "learnable, save=output": Contender(
        function=lambda x, alpha: learnable(x, alpha, save="output"),
        forward=None,
        backward=None,
        module=lambda prelu: converted(prelu, save="output"),
    ),
    "learnable, bounded": Contender(
        function=learnable, forward=None, backward=None, module=lambda prelu: converted(prelu, alpha_bounds=BOUNDS)
    ),
    "PReLU, clamped": Contender(
        function=prelu_clamped, forward=None, backward=None, module=lambda prelu: Layer(prelu_clamped, prelu.weight)
    ),
    "where": Contender(function=where, forward=None, backward=None, module=lambda prelu: Layer(where, prelu.weight)),
    "where, fixed": Contender(function=where),
    "where, straight-through": Contender(function=where_straight_through, forward=0.0),
    "clamp": Contender(function=clamp, forward=None, backward=None),
    "detach": Contender(function=detach, forward=0.0),
    "NSReLU": Contender(function=NSReLU.apply, forward=0.0),
    # No activation: the upper bound of a speed-up.
    "none": Contender(function=lambda x, alpha: x, forward=1.0, backward=1.0, module=lambda prelu: nn.Identity()),
    "oneDNN": Contender(function=F.prelu, forward=None, backward=None, mkldnn=True),
}

# leaky_ext's activation -> PyTorch's own of the same kind. BY_HAND has the formulas that people write instead.
PEER = {"learnable": "PReLU", "fixed": "LeakyReLU", "straight-through": "ReLU"}
MAIN = (*PEER, *PEER.values())
SMALL = "learnable, save=output"  # the learned slope that saves the least memory
NETWORK_CONTENDERS = (*MAIN, SMALL)
# What a user of nn.PReLU can write -> contender.
CHOICES = {"nn.PReLU": "PReLU", "convert": "learnable", 'convert, save="output"': SMALL, "nn.ReLU": "ReLU"}
BOUNDED = {"learnable, bounded": "PReLU, clamped"}
BY_HAND = {
    "learnable": ("where", "clamp"),
    "fixed": ("where, fixed",),
    "straight-through": ("where, straight-through", "detach", "NSReLU"),
}
