"""The public functions.

An eager call with plain tensors goes to `_C.activation` (csrc/bindings.cpp). `_dispatch` handles every other call: for
compilers, exporters, tracers, tensor subclasses and nested tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_dynamo_compiling
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
    r"""Return ``x`` where ``x >= 0``, else ``alpha * x``: leaky ReLU with a slope that can be trained.

    With ``g``, the gradient of the output, the gradients are ::

        grad_x     = g where x >= 0, else alpha * g
        grad_alpha = sum of g * x over the negative elements, to alpha's shape

    NaN counts as negative. ``+0.0`` and ``-0.0`` count as positive: unlike :class:`torch.nn.LeakyReLU` and
    :class:`torch.nn.PReLU`, the gradient at x == 0 is ``g`` (docs/numerics.md).

    Args:
        x: a tensor of any shape and layout; float64, float32, float16 or bfloat16.
        alpha: the slope for negative elements, of any sign. A float, or a tensor of one of these four dtypes, which may
            differ from x's dtype. The shape of a tensor is one of

            - one element, in any number of dimensions: one slope for all elements;
            - 1-D with C elements: one slope per index of `channel_dim`;
            - as many dimensions as x: broadcast against x. The output always has x's shape. If x and alpha are both
              1-D, broadcasting takes precedence over the per-channel rule.
        channel_dim: the dimension of x that has one slope per index; negative values count from the end. Ignored for
            other shapes of alpha.
        save: what is saved for backward if alpha requires grad. ``"input"`` saves x. ``"output"`` saves y, which the
            next layer usually saves anyway, and computes x as ``y / alpha``. docs/memory.md has the details.

    Returns:
        A tensor of x's shape and dtype. If x is dense, the tensor has x's strides. Each element is computed in float32
        (float64 for float64) and rounded once. grad_alpha has alpha's shape and dtype, and the same inputs give the
        same bits; "Rounding" in docs/numerics.md has the error bounds. Autocast has no effect.

    Raises:
        TypeError: x is not a tensor, alpha is neither a tensor nor a number, or a dtype is not supported.
        ValueError: alpha's shape does not fit; `save` is neither ``"input"`` nor ``"output"``; or, with
            ``save="output"``, a learned slope on the CPU is 0, so that x cannot be computed from y. (On CUDA the
            gradient of alpha is NaN in this case.)
        IndexError: channel_dim is out of range.
        RuntimeError: x and alpha are on different devices. (A one-element CPU alpha that does not require grad works
            with x on any device.)

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
    if not is_dynamo_compiling():
        y = _C.activation(x, alpha, channel_dim, formula, False)
        if y is not NotImplemented:
            return y
    return _dispatch("learnable_leaky_relu", x, alpha, formula, channel_dim=channel_dim, save=save)


def learnable_leaky_relu_(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1) -> Tensor:
    """Overwrite x with the result of :func:`learnable_leaky_relu` and return x.

    Eager calls save as ``save="output"`` does, and compiled calls as ``save="input"`` does.

    Raises:
        RuntimeError: x is a leaf that requires grad or a view of such a leaf, or elements of x share memory. Nothing is
            written then. Other errors are those of :func:`learnable_leaky_relu`.
    """
    if not is_dynamo_compiling():
        y = _C.activation(x, alpha, channel_dim, LEAKY_RELU, True)
        if y is not NotImplemented:
            return x
    return _dispatch("learnable_leaky_relu_", x, alpha, LEAKY_RELU, channel_dim=channel_dim)


def straight_through_relu(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    r"""Return ReLU of x, with the gradient of leaky ReLU: units with negative inputs still learn.

    The value is ``x`` where ``x >= 0``, else 0 (NaN stays NaN). All derivatives are those of
    :func:`learnable_leaky_relu`: ::

        grad_x     = g where x >= 0, else alpha * g
        grad_alpha = sum of g * x over the negative elements, to alpha's shape

    If alpha does not require grad, 1 bit per element is saved for backward, else x (docs/memory.md).

    Arguments, errors and the precision of the gradients are those of :func:`learnable_leaky_relu`.

    Example::

        >>> x = torch.tensor([-2.0, 3.0], requires_grad=True)
        >>> y = leaky_ext.straight_through_relu(x, 0.1)
        >>> y.sum().backward()
        >>> y.detach(), x.grad
        (tensor([0., 3.]), tensor([0.1000, 1.0000]))
    """
    if not is_dynamo_compiling():
        y = _C.activation(x, alpha, channel_dim, RELU, False)
        if y is not NotImplemented:
            return y
    return _dispatch("straight_through_relu", x, alpha, RELU, channel_dim=channel_dim)


def straight_through_relu_(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    """Overwrite x with the result of :func:`straight_through_relu` and return x.

    Raises:
        RuntimeError: alpha requires grad, because its gradient needs the overwritten x (compiled calls work); x is a
            leaf that requires grad or a view of such a leaf; or elements of x share memory. Nothing is written then.
            Other errors are those of :func:`learnable_leaky_relu`.
    """
    if not is_dynamo_compiling():
        y = _C.activation(x, alpha, channel_dim, RELU, True)
        if y is not NotImplemented:
            return x
    return _dispatch("straight_through_relu_", x, alpha, RELU, channel_dim=channel_dim)


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """Return a copy of x_forward. The gradient flows only to x_backward, summed to its shape.

    Use it to define surrogate gradients: ``straight_through(torch.sign(x), torch.tanh(x))``. Nothing is saved for
    backward. The result is new memory, so you can change it in place. Unlike
    ``x_backward + (x_forward - x_backward).detach()``, values and gradients are correct at infinities.

    In three cases the gradient is 0 where x_backward is not finite: if the function is exported or traced; compiled by
    a backend that is neither Inductor nor one of PyTorch's debugging backends; or compiled inside a torch.func
    transform.

    Args:
        x_forward: a floating tensor. It gets no gradient.
        x_backward: a floating tensor on the same device, with a shape that broadcasts to x_forward's shape.

    Raises:
        TypeError: a tensor is not floating.
        ValueError: x_backward does not broadcast to x_forward's shape.
        RuntimeError: the tensors are on different devices.
    """
    if is_compiling():
        from .operators.compiled import straight_through as compiled_straight_through

        return compiled_straight_through(x_forward, x_backward)
    if has_torch_function((x_forward, x_backward)) and not torch_private.is_tracing():
        return handle_torch_function(straight_through, (x_forward, x_backward), x_forward, x_backward)
    return reference.straight_through(x_forward, x_backward)


def _dispatch(name: str, x: Tensor, alpha: Tensor | float, formula: int, **options: Any) -> Tensor:
    """Call the public function `name` in every case that `_C.activation` does not support."""
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
