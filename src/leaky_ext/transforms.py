"""autograd.Function for `torch.func` transforms and forward-mode AD, and for a backward that is differentiated.

Gradients and batched calls run the kernels, to any depth. What only a tangent or a second derivative needs is plain
PyTorch, which autograd and every transform differentiate further.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import _C
from .reference import check, leaky, negative, opmath, slopes

Alpha = Tensor | float


def activation(x: Tensor, alpha: Alpha, channel_dim: int, relu: bool) -> Tensor:
    """`learnable_leaky_relu`, or `straight_through_relu` if `relu`."""
    check(x, alpha, channel_dim)
    return _Activation.apply(x, alpha, channel_dim, relu)


def backward(
    grad: Tensor, x: Tensor, alpha: Alpha, channel_dim: int, need_x: bool, need_alpha: bool
) -> tuple[Tensor | None, Tensor | None]:
    """(grad_x, grad_alpha) of both activations, each None unless it is needed."""
    return _Backward.apply(grad, x, alpha, channel_dim, need_x, need_alpha)


def gradients(
    grad: Tensor, x: Tensor, alpha: Tensor, slope: Tensor, where: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The same in plain PyTorch, where `slope` is alpha as `reference.slopes` gives it, and `where` x is negative."""
    wide = grad.to(opmath(grad.dtype))
    return leaky(where, slope, wide).to(grad.dtype), _sum_to(alpha, slope, _product(where, wide, x))


class _Activation(Function):
    @staticmethod
    def forward(x: Tensor, alpha: Alpha, channel_dim: int, relu: bool) -> Tensor:
        return _C.straight_through_relu(x) if relu else _C.learnable_leaky_relu(x, alpha, channel_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, alpha, ctx.channel_dim, _ = inputs
        _save(ctx, alpha, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha = _saved(ctx)
        need_x, need_alpha, _, _ = ctx.needs_input_grad
        return *backward(grad, x, alpha, ctx.channel_dim, need_x, need_alpha), None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, alpha_t: Tensor | None, *_: None) -> Tensor:
        x, alpha = _saved(ctx)
        return _tangent(x, alpha, ctx.channel_dim, x, x_t, alpha_t)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, alpha: Alpha, channel_dim: int, relu: bool) -> tuple[Tensor, int]:
        x_dim, alpha_dim, _, _ = in_dims
        x = _batch_first(x, x_dim, info.batch_size)
        alpha, channel_dim = _batch_alpha(alpha, alpha_dim, x.ndim - 1, channel_dim)
        return _Activation.apply(x, alpha, channel_dim, relu), 0


class _Backward(Function):
    @staticmethod
    def forward(
        grad: Tensor, x: Tensor, alpha: Alpha, channel_dim: int, need_x: bool, need_alpha: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        return _C.backward(grad, x, alpha, channel_dim, need_x, need_alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        grad, x, alpha, ctx.channel_dim, ctx.need_x, ctx.need_alpha = inputs
        ctx.set_materialize_grads(False)
        _save(ctx, alpha, grad, x)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None) -> tuple[Tensor | None, ...]:
        # u and v are what arrives for grad_x and grad_alpha. Leaky ReLU is its own adjoint: d/dgrad is a tangent.
        grad, x, alpha = _saved(ctx)
        need_grad, need_x, need_alpha = ctx.needs_input_grad[:3]
        d_grad = d_x = d_alpha = None
        where = negative(x)
        wide = grad.to(opmath(x.dtype))
        if need_grad:
            d_grad = _tangent(x, alpha, ctx.channel_dim, x, u, v)
        if need_x and v is not None:
            d_x = _product(where, slopes(x, v, ctx.channel_dim), wide).to(x.dtype)
        if need_alpha and u is not None:
            d_alpha = _sum_to(alpha, slopes(x, alpha, ctx.channel_dim), _product(where, u, wide))
        return d_grad, d_x, d_alpha, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, grad_t: Tensor | None, x_t: Tensor | None, alpha_t: Tensor | None, *_: None
    ) -> tuple[Tensor | None, Tensor | None]:
        grad, x, alpha = _saved(ctx)
        grad_x_t = grad_alpha_t = None
        if ctx.need_x:
            grad_x_t = _tangent(x, alpha, ctx.channel_dim, grad, grad_t, alpha_t)
        if ctx.need_alpha:
            where = negative(x)
            wide = x.to(opmath(x.dtype))
            products = torch.zeros_like(wide)
            if grad_t is not None:
                products = products + _product(where, grad_t, wide)
            if x_t is not None:
                products = products + _product(where, x_t.to(wide.dtype), grad)
            grad_alpha_t = _sum_to(alpha, slopes(x, alpha, ctx.channel_dim), products)
        return grad_x_t, grad_alpha_t

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple,
        grad: Tensor,
        x: Tensor,
        alpha: Alpha,
        channel_dim: int,
        need_x: bool,
        need_alpha: bool,
    ) -> tuple[tuple[Tensor | None, Tensor | None], tuple[int | None, int | None]]:
        grad_dim, x_dim, alpha_dim = in_dims[:3]
        grad = _batch_first(grad, grad_dim, info.batch_size)
        x = _batch_first(x, x_dim, info.batch_size)
        if need_alpha:  # every example has its own grad_alpha, so it needs its own alpha
            assert isinstance(alpha, Tensor)
            alpha, alpha_dim = _batch_first(alpha, alpha_dim, info.batch_size), 0
            shape = alpha.shape
        alpha, channel_dim = _batch_alpha(alpha, alpha_dim, x.ndim - 1, channel_dim)
        grad_x, grad_alpha = backward(grad, x, alpha, channel_dim, need_x, need_alpha)
        if grad_alpha is not None:
            grad_alpha = grad_alpha.reshape(shape)
        return (grad_x, grad_alpha), (None if grad_x is None else 0, None if grad_alpha is None else 0)


def _save(ctx: Any, alpha: Alpha, *tensors: Tensor) -> None:
    ctx.alpha = None if isinstance(alpha, Tensor) else alpha
    kept = (*tensors, alpha) if ctx.alpha is None else tensors
    ctx.save_for_backward(*kept)
    ctx.save_for_forward(*kept)


def _saved(ctx: Any) -> tuple:
    return ctx.saved_tensors if ctx.alpha is None else (*ctx.saved_tensors, ctx.alpha)


def _product(where: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a * b where x is negative, else 0; in the derivatives too, which is why b is masked before it meets a."""
    return torch.where(where, a * torch.where(where, b, 0), 0)


def _tangent(
    x: Tensor, alpha: Alpha, channel_dim: int, factor: Tensor, t: Tensor | None, alpha_t: Tensor | None
) -> Tensor:
    """t, or alpha * t where x is negative, plus factor * alpha_t where x is negative."""
    where = negative(x)
    out = torch.zeros_like(factor, dtype=opmath(x.dtype))
    if t is not None:
        out = leaky(where, slopes(x, alpha, channel_dim), t.to(out.dtype))
    if alpha_t is not None:
        out = out + _product(where, slopes(x, alpha_t, channel_dim), factor)
    return out.to(factor.dtype)


def _sum_to(alpha: Tensor, slope: Tensor, products: Tensor) -> Tensor:
    return products.sum_to_size(slope.shape).reshape(alpha.shape).to(alpha.dtype)


def _batch_first(x: Tensor, dim: int | None, size: int) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def _batch_alpha(alpha: Alpha, dim: int | None, ndim: int, channel_dim: int) -> tuple[Alpha, int]:
    """The alpha and channel_dim that mean the same for an x of `ndim` dimensions once it has a batch in front."""
    if not isinstance(alpha, Tensor):
        return alpha, channel_dim
    if dim is None:
        if alpha.numel() == 1:
            return alpha, 0
        if alpha.ndim == 1:
            return alpha, channel_dim % ndim + 1
        return alpha.unsqueeze(0), 0
    alpha = alpha.movedim(dim, 0)
    size = alpha.shape[0]
    if alpha[0].numel() == 1:  # a slope an example: a channel along the batch
        return alpha.reshape(size), 0
    if alpha.ndim == 2 and ndim != 1:  # C slopes an example
        before = channel_dim % ndim
        alpha = alpha.reshape([size] + [1] * before + [alpha.shape[1]] + [1] * (ndim - before - 1))
    return alpha, 0
