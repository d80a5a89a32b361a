"""The public functions. Each call is sent to one of four places, in this order:

1. while compiling, exporting or tracing: `reference`, which the compiler fuses with its neighbours;
2. under a `torch.func` transform or forward-mode AD: `transforms`, which transforms follow to any depth;
3. where nothing needs a gradient: straight to the operator;
4. else: `autograd`, which keeps as little as can be for backward.
"""

from __future__ import annotations

import sys

from torch import Tensor, is_grad_enabled
from torch._C import _are_functorch_transforms_active as transforms_active
from torch._C import _is_tracing as is_tracing
from torch._C._functorch import unwrap_if_dead as alive
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import Parameter
from torch.overrides import handle_torch_function, has_torch_function

from . import _C, reference, transforms
from ._C import keep_input, keep_mask
from .autograd import check_inplace, holds_data, keep_output, pass_gradient

__all__ = [
    "learnable_leaky_relu",
    "learnable_leaky_relu_",
    "straight_through",
    "straight_through_relu",
    "straight_through_relu_",
]

_PLAIN = (Tensor, Parameter)
_SLOPES = (float, Tensor, Parameter)


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
              this rule goes before the last.
        channel_dim: the dimension of x that slopes go with; negative counts from the end. Without effect otherwise.
        save: what is kept for backward where alpha needs a gradient: ``"input"``, or ``"output"``, which the next layer
            usually keeps anyway. x is then rebuilt as y / alpha, as exactly as y holds it, with 1 bit an element beside
            it unless all slopes are positive (on CUDA always, since looking at them would wait for the device). Where
            alpha needs no gradient, 1 bit an element is kept and nothing else.

    Returns:
        Tensor of x's shape and dtype, and x's strides where x is dense. Each element is computed in float32 (float64
        for float64) and rounded once. grad_alpha has alpha's shape and dtype; it is within ``2e-7 * sum(|g * x|)`` on
        the CPU and ``1e-6 * sum(|g * x|)`` on CUDA, at any size (float64: ``1e-13``), before it is rounded to alpha's
        dtype; the same inputs give the same bits. Autocast changes nothing.

    Raises:
        TypeError: x or alpha has another dtype, or is no tensor (alpha: nor a number).
        ValueError: alpha's shape fits no rule; `save` is neither; save="output" and a learned slope on the CPU is 0,
            from which x cannot be rebuilt (on CUDA the gradient of alpha is NaN then).
        IndexError: channel_dim is out of range.
        RuntimeError: x and alpha are on different devices. (One CPU element without gradient goes with any x.)

    Example::

        >>> alpha = torch.tensor(0.25, requires_grad=True)
        >>> y = leaky_ext.learnable_leaky_relu(torch.tensor([-2.0, 3.0]), alpha)
        >>> y.sum().backward()
        >>> y.detach(), alpha.grad
        (tensor([-0.5000,  3.0000]), tensor(-2.))
    """
    if save != "input" and save != "output":
        raise ValueError(f"leaky_ext: save must be 'input' or 'output', got {save!r}")
    if is_compiling() or is_tracing():
        return reference.learnable_leaky_relu(x, alpha, channel_dim=channel_dim)
    plain = type(x) in _PLAIN
    if not plain:
        if _overridden(x):
            return handle_torch_function(learnable_leaky_relu, (x,), x, alpha, channel_dim=channel_dim, save=save)
        plain = holds_data(x)
    if type(alpha) not in _SLOPES:
        alpha = _slope(alpha)
    if transforms_active() or forward_ad._current_level >= 0:
        return transforms.activation(x, alpha, channel_dim, False)
    if is_grad_enabled():
        if isinstance(alpha, Tensor) and alpha.requires_grad:
            if save == "output" and plain:
                return keep_output(alive(x), alive(alpha), channel_dim, False)
            return keep_input(alive(x), alive(alpha), channel_dim, False)
        if x.requires_grad:
            return (keep_mask if plain else keep_input)(alive(x), alpha, channel_dim, False)
    return _C.learnable_leaky_relu(x, alpha, channel_dim)


def learnable_leaky_relu_(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1) -> Tensor:
    """:func:`learnable_leaky_relu` in place: x is overwritten and returned, and save="output" is what is kept.

    Raises:
        RuntimeError: also where x is a leaf that needs a gradient, a view of one, or has elements that share memory;
            nothing is written then.
    """
    if is_compiling() or is_tracing():
        return reference.learnable_leaky_relu_(x, alpha, channel_dim=channel_dim)
    if type(x) not in _PLAIN and _overridden(x):
        return handle_torch_function(learnable_leaky_relu_, (x,), x, alpha, channel_dim=channel_dim)
    if type(alpha) not in _SLOPES:
        alpha = _slope(alpha)
    if transforms_active() or forward_ad._current_level >= 0:
        return x.copy_(transforms.activation(x.clone(), alpha, channel_dim, False))
    if is_grad_enabled():
        if isinstance(alpha, Tensor) and alpha.requires_grad:
            check_inplace(x)
            return keep_output(alive(x), alive(alpha), channel_dim, True)
        if x.requires_grad:
            check_inplace(x)
            return keep_mask(alive(x), alpha, channel_dim, False, True)
    _C.learnable_leaky_relu_(x, alpha, channel_dim)
    return x


def straight_through_relu(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    r"""ReLU in the forward pass, with the gradient of leaky ReLU: no unit stops learning.

    The value is ``x`` where ``x >= 0``, else 0 (NaN stays NaN). Every derivative is the surrogate's, that is, the one
    that :func:`learnable_leaky_relu` has: ::

        grad_x     = g where x >= 0, else alpha * g
        grad_alpha = sum of g * x over the negative elements, to alpha's shape

    Where alpha needs no gradient, 1 bit an element is kept for backward: less than ReLU itself keeps. Else x is.

    Args and errors are those of :func:`learnable_leaky_relu`. So is the precision of the gradients.

    Example::

        >>> x = torch.tensor([-2.0, 3.0], requires_grad=True)
        >>> y = leaky_ext.straight_through_relu(x, 0.1)
        >>> y.sum().backward()
        >>> y.detach(), x.grad
        (tensor([0., 3.]), tensor([0.1000, 1.0000]))
    """
    if is_compiling() or is_tracing():
        return reference.straight_through_relu(x, alpha, channel_dim=channel_dim)
    plain = type(x) in _PLAIN
    if not plain:
        if _overridden(x):
            return handle_torch_function(straight_through_relu, (x,), x, alpha, channel_dim=channel_dim)
        plain = holds_data(x)
    if type(alpha) not in _SLOPES:
        alpha = _slope(alpha)
    if transforms_active() or forward_ad._current_level >= 0:
        return transforms.activation(x, alpha, channel_dim, True)
    if isinstance(alpha, Tensor):
        _C.check_alpha(x, alpha, channel_dim)
        if alpha.requires_grad and is_grad_enabled():
            return keep_input(alive(x), alive(alpha), channel_dim, True)
    if x.requires_grad and is_grad_enabled():
        return (keep_mask if plain else keep_input)(alive(x), alpha, channel_dim, True)
    return _C.straight_through_relu(x)


def straight_through_relu_(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    """:func:`straight_through_relu` in place: x is overwritten and returned.

    Raises:
        RuntimeError: also where alpha needs a gradient, which is computed from x; and where x is a leaf that needs a
            gradient, a view of one, or has elements that share memory. Nothing is written then.
    """
    learned = isinstance(alpha, Tensor) and alpha.requires_grad
    if learned and is_grad_enabled():
        raise RuntimeError(
            "leaky_ext: straight_through_relu_ overwrites x, which the gradient of alpha is computed from: use "
            "straight_through_relu, or alpha.detach() if alpha is not to be learned"
        )
    if is_compiling() or is_tracing():
        return reference.straight_through_relu_(x, alpha, channel_dim=channel_dim)
    if type(x) not in _PLAIN and _overridden(x):
        return handle_torch_function(straight_through_relu_, (x,), x, alpha, channel_dim=channel_dim)
    if type(alpha) not in _SLOPES:
        alpha = _slope(alpha)
    if transforms_active() or forward_ad._current_level >= 0:
        return x.copy_(transforms.activation(x.clone(), alpha, channel_dim, True))
    if isinstance(alpha, Tensor):
        _C.check_alpha(x, alpha, channel_dim)
    if is_grad_enabled() and x.requires_grad:
        check_inplace(x)
        return keep_mask(alive(x), alpha, channel_dim, True, True)
    _C.straight_through_relu_(x)
    return x


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """The value of `x_forward`, with the gradient going to `x_backward` alone, summed to its shape.

    The building block of surrogate gradients: ``straight_through(torch.sign(x), torch.tanh(x))``. Nothing is copied and
    nothing is kept: the result shares the memory of `x_forward`. (Under a `torch.func` transform, forward-mode AD or a
    compiler it is new memory.) Unlike ``x_backward + (x_forward - x_backward).detach()`` it is right at infinities.

    Args:
        x_forward: any floating tensor. No gradient reaches it.
        x_backward: a floating tensor on the same device, of any shape that broadcasts to x_forward's.

    Raises:
        TypeError: one of them is not floating.
        ValueError: x_backward does not broadcast to x_forward's shape.
        RuntimeError: they are on different devices.
    """
    if is_compiling() or is_tracing() or transforms_active() or forward_ad._current_level >= 0:
        return reference.straight_through(x_forward, x_backward)
    if type(x_forward) not in _PLAIN and _overridden(x_forward):
        return handle_torch_function(straight_through, (x_forward,), x_forward, x_backward)
    reference.check_straight_through(x_forward, x_backward)
    if is_grad_enabled() and x_backward.requires_grad:
        return pass_gradient(alive(x_forward), alive(x_backward))
    return x_forward.detach()


def _overridden(x: Tensor) -> bool:
    if not isinstance(x, Tensor):
        raise TypeError(f"leaky_ext: x must be a Tensor, got {type(x).__name__}")
    if "torch.distributed.tensor" in sys.modules:
        from . import distributed  # noqa: F401 - tells DTensor how the operators are sharded
    return has_torch_function((x,))


def _slope(alpha: Tensor | float) -> Tensor | float:
    if isinstance(alpha, Tensor):
        return alpha
    reference.check_number(alpha)
    return float(alpha)
