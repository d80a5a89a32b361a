"""The public functions. A call takes one of two ways: a compiler or exporter gets `compiled.activation`; any other call
is the operator (csrc/operators.h), called through `_C.activation` if the arguments are plain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function

from . import _C, reference, torch_private
from .enums import LEAKY_RELU, LEAKY_RELU_SIGNED, RELU
from .operators import register_sharding

__all__ = [
    "learnable_leaky_relu",
    "learnable_leaky_relu_",
    "straight_through",
    "straight_through_relu",
    "straight_through_relu_",
]

ops = torch.ops.leaky_ext


def learnable_leaky_relu(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1, save: str = "input") -> Tensor:
    r"""Leaky ReLU whose slope can be trained: ``x`` where ``x >= 0``, else ``alpha * x``.

    The gradients are, with ``g`` that of the output and sums taken over the negative elements alone, ::

        grad_x     = g where x >= 0, else alpha * g
        grad_alpha = sum of g * x, to alpha's shape

    ``+0.0`` and ``-0.0`` count as positive (for :class:`torch.nn.LeakyReLU` and :class:`torch.nn.PReLU` they are
    negative: only the gradient at exactly 0 differs), NaN as negative.

    Args:
        x: any shape, layout and number of elements; float64, float32, float16 or bfloat16.
        alpha: the slope on the negative side, of any sign: a float, or a tensor of any of the four dtypes, whatever
            x's is, with

            - one element, of any shape: one slope for all;
            - C elements in one dimension: one slope per index of `channel_dim`;
            - as many dimensions as x: broadcast against x, whose shape never grows. Where x and alpha both are 1-D,
              broadcasting takes precedence over the per-channel rule.
        channel_dim: the dimension of x that slopes go with; negative counts from the end. Without effect otherwise.
        save: what is kept for backward if alpha requires grad: ``"input"``, or ``"output"``, which the next layer
            usually keeps anyway. x is then rebuilt as y / alpha, to the precision of y. Unless all slopes are positive,
            1 bit per element is kept too. On CUDA, where reading the slopes would wait for the device, only a module
            with ``alpha_bounds`` above 0 is known to have positive slopes. If alpha does not require grad, 1 bit per
            element is kept and nothing else.

    Returns:
        Tensor of x's shape and dtype, and x's strides where x is dense. Each element is computed in float32 (float64
        for float64) and rounded once. grad_alpha has alpha's shape and dtype; it is within ``2e-7 * sum(|g * x|)`` on
        the CPU and ``1e-6 * sum(|g * x|)`` on CUDA, at any size (float64: ``1e-13``), before it is rounded to alpha's
        dtype; the same inputs give the same bits. Compiled, the compiler's sum decides: see "Rounding" in
        docs/numerics.md. Autocast changes nothing.

    Raises:
        TypeError: x or alpha has another dtype, or is no tensor (alpha: nor a number).
        ValueError: alpha's shape fits no rule; `save` is another word; with save="output", a learned slope on the CPU
            is 0, from which x cannot be rebuilt (on CUDA the gradient of alpha is NaN then).
        IndexError: channel_dim is out of range.
        RuntimeError: x and alpha are on different devices. (A one-element CPU alpha that does not require grad works
            with any x.)

    Example::

        >>> alpha = torch.tensor(0.25, requires_grad=True)
        >>> y = leaky_ext.learnable_leaky_relu(torch.tensor([-2.0, 3.0]), alpha)
        >>> y.sum().backward()
        >>> y.detach(), alpha.grad
        (tensor([-0.5000,  3.0000]), tensor(-2.))
    """
    if save == "input":
        formula = LEAKY_RELU
    elif save == "output":
        formula = LEAKY_RELU_SIGNED
    else:
        raise ValueError(f"leaky_ext: save must be 'input' or 'output', got {save!r}")
    if not is_compiling():
        y = _C.activation(x, alpha, channel_dim, formula, False)
        if y is not NotImplemented:
            return y
    return _dispatch("learnable_leaky_relu", x, alpha, formula, channel_dim=channel_dim, save=save)


def learnable_leaky_relu_(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1) -> Tensor:
    """:func:`learnable_leaky_relu` in place: x is overwritten and returned, and save="output" is what is kept.

    Raises:
        RuntimeError: in addition, x is a leaf that requires grad, a view of one, or has elements that share memory.
            Nothing is written then.
    """
    if not is_compiling():
        y = _C.activation(x, alpha, channel_dim, LEAKY_RELU, True)
        if y is not NotImplemented:
            return x
    return _dispatch("learnable_leaky_relu_", x, alpha, LEAKY_RELU, channel_dim=channel_dim)


def straight_through_relu(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    r"""ReLU in the forward pass, with the gradient of leaky ReLU: no unit stops learning.

    The value is ``x`` where ``x >= 0``, else 0 (NaN stays NaN). Every derivative is the surrogate's, that is, the one
    that :func:`learnable_leaky_relu` has: ::

        grad_x     = g where x >= 0, else alpha * g
        grad_alpha = sum of g * x over the negative elements, to alpha's shape

    Where alpha does not require grad, 1 bit per element is kept for backward: less than ReLU itself keeps. Otherwise x
    is kept.

    Args, errors and the precision of the gradients are those of :func:`learnable_leaky_relu`.

    Example::

        >>> x = torch.tensor([-2.0, 3.0], requires_grad=True)
        >>> y = leaky_ext.straight_through_relu(x, 0.1)
        >>> y.sum().backward()
        >>> y.detach(), x.grad
        (tensor([0., 3.]), tensor([0.1000, 1.0000]))
    """
    if not is_compiling():
        y = _C.activation(x, alpha, channel_dim, RELU, False)
        if y is not NotImplemented:
            return y
    return _dispatch("straight_through_relu", x, alpha, RELU, channel_dim=channel_dim)


def straight_through_relu_(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    """:func:`straight_through_relu` in place: x is overwritten and returned.

    Raises:
        RuntimeError: in addition, alpha requires grad, since its gradient is computed from x; or x is a leaf that
            requires grad, a view of one, or has elements that share memory. Nothing is written then.
    """
    if not is_compiling():
        y = _C.activation(x, alpha, channel_dim, RELU, True)
        if y is not NotImplemented:
            return x
    return _dispatch("straight_through_relu_", x, alpha, RELU, channel_dim=channel_dim)


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """The value of `x_forward`, with the gradient going to `x_backward` alone, summed to its shape.

    The building block of surrogate gradients: ``straight_through(torch.sign(x), torch.tanh(x))``. The result is new
    memory, which may be changed in place; `x_forward` is never written to, and nothing is kept for backward. Unlike
    ``x_backward + (x_forward - x_backward).detach()`` it is right at infinities. (Exported and traced,
    compiled by backends other than Inductor and PyTorch's own, and in torch.func transforms that are compiled, the
    gradient is 0 where x_backward is not finite.)

    Args:
        x_forward: any floating tensor. No gradient reaches it.
        x_backward: a floating tensor on the same device, of any shape that broadcasts to x_forward's.

    Raises:
        TypeError: one of them is not floating.
        ValueError: x_backward does not broadcast to x_forward's shape.
        RuntimeError: they are on different devices.
    """
    if is_compiling():
        from .operators.compiled import straight_through as compiled_straight_through

        return compiled_straight_through(x_forward, x_backward)
    if has_torch_function((x_forward, x_backward)) and not torch_private.is_tracing():
        return handle_torch_function(straight_through, (x_forward, x_backward), x_forward, x_backward)
    return reference.straight_through(x_forward, x_backward)


def _dispatch(name: str, x: Tensor, alpha: Tensor | float, formula: int, **options: Any) -> Tensor:
    """A call of the public function `name` that `_C.activation` did not take."""
    if is_compiling():
        from .operators.compiled import activation  # which imports Dynamo and Inductor

        return activation(name, x, alpha, formula, options)
    if torch_private.is_tracing():
        return getattr(reference, name)(x, alpha, **options)
    if has_torch_function((x, alpha)):
        return handle_torch_function(globals()[name], (x, alpha), x, alpha, **options)
    if not isinstance(x, Tensor):
        raise TypeError(f"leaky_ext: x must be a Tensor, got {type(x).__name__}")
    if x.is_nested:
        if x.layout is not torch.jagged:
            raise NotImplementedError(f"leaky_ext: a nested x must have layout=torch.jagged, got {x.layout}")
        return getattr(reference, name)(x, alpha, **options)
    register_sharding()
    slope, value = reference.slope_and_value(alpha)
    op = ops.forward_ if name.endswith("_") else ops.forward
    return op(x, slope, value, options["channel_dim"], formula)
