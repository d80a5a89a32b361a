"""The operators below autograd, by what was saved: torch.ops.leaky_ext.* with the arguments that tests vary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leaky_ext.enums import INPUT, LEAKY_RELU, LEAKY_RELU_SIGNED, MASK, OUTPUT, OUTPUT_AND_MASK, RELU
from leaky_ext.reference import slope_and_value

__all__ = ["LEAKY_RELU", "LEAKY_RELU_SIGNED", "RELU"]

OPS = torch.ops.leaky_ext
Slope = Tensor | float
Gradients = tuple[Tensor | None, Tensor | None]


@torch.no_grad()
def forward(x: Tensor, alpha: Slope = 0.0, channel_dim: int = 1, formula: int = LEAKY_RELU) -> Tensor:
    return OPS.forward(x, *slope_and_value(alpha), channel_dim, formula)


@torch.no_grad()
def forward_mask(
    x: Tensor, alpha: Slope = 0.0, channel_dim: int = 1, formula: int = LEAKY_RELU
) -> tuple[Tensor, Tensor]:
    return OPS.forward_mask(x, *slope_and_value(alpha), channel_dim, formula)


@torch.no_grad()
def backward(
    grad: Tensor, x: Tensor, alpha: Slope, channel_dim: int = 1, need_x: bool = True, need_alpha: bool = True
) -> Gradients:
    return OPS.backward(grad, x, None, *slope_and_value(alpha), channel_dim, INPUT, None, [need_x, need_alpha])


@torch.no_grad()
def backward_output(grad: Tensor, y: Tensor, mask: Tensor | None, alpha: Slope, channel_dim: int = 1) -> Gradients:
    kind = OUTPUT if mask is None else OUTPUT_AND_MASK
    return OPS.backward(grad, y, mask, *slope_and_value(alpha), channel_dim, kind, None, [True, True])


@torch.no_grad()
def backward_mask(
    grad: Tensor, mask: Tensor, alpha: Slope, channel_dim: int = 1, stride: Sequence[int] | None = None
) -> Tensor:
    return OPS.backward(grad, None, mask, *slope_and_value(alpha), channel_dim, MASK, stride, [True, False])[0]
