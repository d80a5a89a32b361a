"""Gradients of eager calls. Each way keeps one thing for backward:

- `_C.keep_input`: x and alpha; `_C.keep_mask`: 1 bit an element. They are in C++ (csrc/autograd.cpp), because Python in
  the way of forward and backward is a quarter of the time of a small call.
- `KeepOutput`: y and alpha. `PassGradient`: nothing.

The Functions here use `forward(ctx, ...)`, because one with `setup_context` spends 20 microseconds binding arguments,
and take their arguments by position. Where backward is itself to be differentiated (`create_graph=True`) or batched,
all go through `transforms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch._C import _are_functorch_transforms_active as transforms_active
from torch._C._autograd import CreationMeta, _get_creation_meta
from torch.autograd import Function

from . import _C, reference, transforms


def _backward_of_mask(
    grad: Tensor, mask: Tensor, alpha: Tensor | float, channel_dim: int, stride: list[int]
) -> Tensor | None:
    """grad_x in a form that can be differentiated. Any x with the same signs has the same gradient."""
    x = 1 - 2 * unpack(mask, grad, stride).to(grad.dtype)
    if not transforms_active():
        x.requires_grad_()  # grad_x joins a graph even where grad is a constant; its derivative by x is 0
    return transforms.backward(grad, x, alpha, channel_dim, True, False)[0]


_C.set_differentiable(transforms.backward, _backward_of_mask)


class KeepOutput(Function):
    """Keeps y and a learned alpha, and a mask of negative x where the sign of y does not tell it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, channel_dim: int, inplace: bool) -> Tensor:
        _C.check_alpha(x, alpha, channel_dim)
        sign_tells = not alpha.is_cuda and _C.alpha_is_positive(alpha)
        if not sign_tells and not alpha.is_cuda and not alpha.to(reference.opmath(x.dtype)).all():
            raise ValueError(
                f"leaky_ext: x cannot be rebuilt from the output where alpha is 0: use save='input'; alpha is {alpha}"
            )
        y = x
        mask = None
        if sign_tells:
            if inplace:
                _C.learnable_leaky_relu_(x, alpha, channel_dim, True)
            else:
                y = _C.learnable_leaky_relu(x, alpha, channel_dim, True)
        elif inplace:
            mask = _C.learnable_leaky_relu_mask_(x, alpha, channel_dim)
        else:
            y, mask = _C.learnable_leaky_relu_mask(x, alpha, channel_dim)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y, mask, alpha)
        ctx.channel_dim = channel_dim
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, mask, alpha = ctx.saved_tensors
        need_x, need_alpha, _, _ = ctx.needs_input_grad
        if is_grad_enabled() or transforms_active():
            negative = y.signbit() | y.isnan() if mask is None else unpack(mask, y, y.stride())
            # y is in the graph of x and alpha, and so is x once it is rebuilt.
            slope = reference.slopes(y, alpha, ctx.channel_dim)
            x = y.to(reference.opmath(y.dtype)) / torch.where(negative, slope, 1)
            grads = transforms.gradients(grad, x, alpha, slope, negative)
        else:
            grads = _C.backward_output(grad, y, mask, alpha, ctx.channel_dim, need_x, need_alpha)
        return *grads, None, None


class PassGradient(Function):
    """The first argument, with the gradient of the second. Keeps nothing."""

    @staticmethod
    def forward(ctx: Any, x_forward: Tensor, x_backward: Tensor) -> Tensor:
        ctx.like = x_backward.shape, x_backward.dtype
        return x_forward

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, dtype = ctx.like
        return None, grad.to(dtype).sum_to_size(shape)


# `apply`, less what it does in Python for setup_context and functorch, which is a third of the time of a small call.
# Tensors that have left a transform must come through `torch._C._functorch.unwrap_if_dead`, or lose their gradient.
keep_output = super(Function, KeepOutput).apply
pass_gradient = super(Function, PassGradient).apply


def unpack(mask: Tensor, like: Tensor, stride: Sequence[int]) -> Tensor:
    """The bits of `mask` as booleans of the shape of `like`; they are in the memory order that `stride` says."""
    bits = mask.unsqueeze(-1).bitwise_right_shift(torch.arange(8, dtype=torch.uint8, device=mask.device)) & 1
    order = torch.empty_strided(like.shape, stride, dtype=torch.bool, device="meta")
    return bits.flatten()[: like.numel()].bool().as_strided(like.shape, torch.empty_like(order).stride())


def holds_data(x: Tensor) -> bool:
    """False for subclasses such as DTensor, which can split x but would not know how to split its mask."""
    return type(x).__torch_dispatch__ is Tensor.__torch_dispatch__


def check_inplace(x: Tensor) -> None:
    """Raises what autograd raises for an in-place operation, but before anything is written."""
    if not holds_data(x):
        raise RuntimeError(
            f"leaky_ext: in place with a gradient is not for {type(x).__name__}: use the function without _"
        )
    if not x.requires_grad:
        return
    if x.is_leaf:
        raise RuntimeError(
            "leaky_ext: a leaf that requires grad is used in an in-place operation: use the function without _"
        )
    if x._is_view():
        base = x._base
        if base is not None and base.is_leaf and base.requires_grad:
            raise RuntimeError(
                "leaky_ext: a view of a leaf that requires grad is used in an in-place operation: "
                "use the function without _"
            )
        if _get_creation_meta(x) != CreationMeta.DEFAULT:
            raise RuntimeError(
                "leaky_ext: a view that autograd lets no one modify (one of several outputs, or made by a custom "
                "Function or without grad mode) is used in an in-place operation: use the function without _"
            )
