"""The gradients as subclasses of :class:`torch.autograd.Function`, for reading and subclassing.

Each Function calls the operators and shows what is saved for backward. The Functions can be differentiated once.

The public functions use nodes in C++ (csrc/autograd.cpp) instead. These nodes compute the same, take 2 us less per call
and support `torch.func`, forward-mode AD and compilers. tests/test_autograd.py compares both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import operators  # noqa: F401  (defines them)
from .enums import INPUT, LEAKY_RELU, LEAKY_RELU_SIGNED, MASK, OUTPUT, RELU

__all__ = ["KeepInput", "KeepMask", "KeepOutput", "PassGradient"]

ops = torch.ops.leaky_ext


class KeepInput(Function):
    """`apply(x, alpha, channel_dim=1, relu=False)`: saves x and alpha. For a learned slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, channel_dim: int = 1, relu: bool = False) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.channel_dim = channel_dim
        return ops.forward(x, alpha, 0.0, channel_dim, RELU if relu else LEAKY_RELU)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        return *ops.backward(grad, x, None, alpha, 0.0, ctx.channel_dim, INPUT, None, need), None, None


class KeepMask(Function):
    """`apply(x, value, relu=False)`: saves 1 bit per element, set if x is negative. For a float slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float, relu: bool = False) -> Tensor:
        y, mask = ops.forward_mask(x, None, value, 1, RELU if relu else LEAKY_RELU)
        ctx.save_for_backward(mask)
        ctx.value, ctx.stride = value, y.stride()
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        grad_x, _ = ops.backward(grad, None, mask, None, ctx.value, 1, MASK, ctx.stride, [True, False])
        return grad_x, None, None


class KeepOutput(Function):
    """`apply(x, alpha, channel_dim=1)`: saves y and alpha. Slopes must be positive: backward computes x as y / alpha.

    forward writes +0.0 for x == -0.0. So y has the sign bit of x, even if alpha * x underflows to -0.0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, channel_dim: int = 1) -> Tensor:
        if not bool((alpha > 0).all()):
            raise ValueError(f"leaky_ext: KeepOutput requires positive slopes, got {alpha}")
        y = ops.forward(x, alpha, 0.0, channel_dim, LEAKY_RELU_SIGNED)
        ctx.save_for_backward(y, alpha)
        ctx.channel_dim = channel_dim
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, alpha = ctx.saved_tensors
        need = ctx.needs_input_grad[:2]
        return *ops.backward(grad, y, None, alpha, 0.0, ctx.channel_dim, OUTPUT, None, need), None


class PassGradient(Function):
    """`apply(x_forward, x_backward)`: copies x_forward; the gradient flows only to x_backward. Saves nothing."""

    @staticmethod
    def forward(x_forward: Tensor, x_backward: Tensor) -> Tensor:
        return x_forward.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.like = inputs[1].shape, inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, dtype = ctx.like
        return None, grad.to(dtype).sum_to_size(shape)


class PassGradientAndTangent(PassGradient):
    """`PassGradient` for `torch.func` and forward-mode AD. Dynamo does not support a Function with `jvp`."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        PassGradient.setup_context(ctx, inputs, output)
        ctx.output = output.shape, output.dtype

    @staticmethod
    def jvp(ctx: Any, _: Tensor | None, tangent: Tensor | None) -> Tensor | None:
        shape, dtype = ctx.output
        return None if tangent is None else tangent.to(dtype).expand(shape).clone()
