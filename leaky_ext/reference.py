"""The public functions in plain PyTorch, differentiable to any order by autograd alone.

The tests use them as oracle, the benchmarks as a baseline. `torch.export`, ONNX and most backends of `torch.compile`
compile these functions instead of the operators. Formulas, arguments and errors are those of `leaky_ext`. Like the
kernels, they compute each element in float32 (float64 for float64) and round once. They run on every device.
"""

from __future__ import annotations

from numbers import Real
from typing import overload

import torch
from torch import Tensor

from . import torch_private
from .enums import one_of

__all__ = [
    "learnable_leaky_relu",
    "learnable_leaky_relu_",
    "straight_through",
    "straight_through_relu",
    "straight_through_relu_",
]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_DTYPE_NAMES = one_of(str(dtype).removeprefix("torch.") for dtype in DTYPES)


def negative(x: Tensor) -> Tensor:
    """Return a mask of the negative elements: not (x >= 0). NaN is negative, +0.0 and -0.0 are not."""
    return torch.logical_not(x >= 0)


def opmath(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which elements of `dtype` are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@overload
def slopes(x: Tensor, alpha: Tensor, channel_dim: int) -> Tensor: ...
@overload
def slopes(x: Tensor, alpha: Tensor | float, channel_dim: int) -> Tensor | float: ...
def slopes(x: Tensor, alpha: Tensor | float, channel_dim: int) -> Tensor | float:
    """Check the arguments. Return `alpha` in the compute dtype, with a shape that broadcasts against `x`."""
    check(x, alpha, channel_dim)
    if not isinstance(alpha, Tensor):
        return alpha
    wide = alpha.to(opmath(x.dtype))
    if alpha.numel() == 1:
        return wide if alpha.ndim <= x.ndim else wide.reshape(())
    if alpha.ndim == 1 and x.ndim != 1:
        return wide.reshape([alpha.shape[0]] + [1] * (x.ndim - channel_dim % x.ndim - 1))
    return wide


def leaky(where: Tensor, slope: Tensor | float, x: Tensor) -> Tensor:
    """Return slope * x at `where`, else x."""
    # x is masked before the product: else 0 * inf makes the gradient of the slope NaN.
    return torch.where(where, slope * torch.where(where, x, 0), x)


def check(x: Tensor, alpha: Tensor | float = 0.0, channel_dim: int = 1) -> None:
    """Raise the operators' errors for invalid arguments."""
    check_dtype(x, "x")
    if not isinstance(alpha, Tensor):
        check_number(alpha)
        return
    check_dtype(alpha, "alpha")
    one = alpha.numel() == 1
    if alpha.device != x.device and not (one and alpha.device.type == "cpu" and not alpha.requires_grad):
        raise RuntimeError(f"leaky_ext: alpha is on {alpha.device}, but x is on {x.device}")
    if one:
        return
    shape, slopes = list(x.shape), list(alpha.shape)
    if alpha.ndim == 1 and x.ndim > 1:
        if not -x.ndim <= channel_dim < x.ndim:
            raise IndexError(f"leaky_ext: channel_dim {channel_dim} is out of range for x of shape {shape}")
        if slopes[0] != shape[channel_dim]:
            raise ValueError(
                f"leaky_ext: alpha of shape {slopes} needs {slopes[0]} channels, but x of shape {shape} has "
                f"{shape[channel_dim]} in dimension {channel_dim}"
            )
    elif alpha.ndim != x.ndim or any(a != 1 and a != n for a, n in zip(slopes, shape, strict=True)):
        raise ValueError(
            f"leaky_ext: alpha of shape {slopes} does not fit x of shape {shape}: it must have one element, one for "
            "each channel, or broadcast in as many dimensions as x"
        )


def check_number(alpha: object) -> None:
    if not isinstance(alpha, (Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"leaky_ext: alpha must be a float or a Tensor, got {type(alpha).__name__}")


def as_tensor(alpha: Tensor | float, x: Tensor) -> Tensor:
    """Return `alpha` as a tensor. The product keeps a number dynamic that a compiler treats as dynamic."""
    return alpha if isinstance(alpha, Tensor) else torch.ones((), dtype=opmath(x.dtype), device=x.device) * alpha


def slope_and_value(alpha: Tensor | float) -> tuple[Tensor | None, float]:
    """Return the arguments `alpha` and `value` of the operators: a tensor and 0, or None and a number."""
    if isinstance(alpha, Tensor):
        return alpha, 0.0
    check_number(alpha)
    return None, float(alpha)


def check_dtype(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in DTYPES:
        raise TypeError(f"leaky_ext: {name} must be {_DTYPE_NAMES}, got {tensor.dtype}")


def check_straight_through(x_forward: Tensor, x_backward: Tensor) -> None:
    """Raise the errors of `straight_through` for invalid arguments."""
    if not (x_forward.is_floating_point() and x_backward.is_floating_point()):
        raise TypeError(f"leaky_ext: both tensors must be floating, got {x_forward.dtype} and {x_backward.dtype}")
    if x_forward.device != x_backward.device:
        raise RuntimeError(f"leaky_ext: x_forward is on {x_forward.device} but x_backward is on {x_backward.device}")
    to, shape = x_forward.shape, x_backward.shape
    pairs = zip(reversed(shape), reversed(to), strict=False)
    if shape != to and (len(shape) > len(to) or any(b != 1 and b != f for b, f in pairs)):
        raise ValueError(
            f"leaky_ext: x_backward of shape {list(shape)} does not broadcast to x_forward's shape {list(to)}"
        )


def learnable_leaky_relu(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1, save: str = "input") -> Tensor:
    """Return x, or alpha * x where x is negative. See `leaky_ext.learnable_leaky_relu`; `save` has no effect here."""
    slope = slopes(x, alpha, channel_dim)
    return leaky(negative(x), slope, x.to(opmath(x.dtype))).to(x.dtype)


def learnable_leaky_relu_(x: Tensor, alpha: Tensor | float, *, channel_dim: int = 1) -> Tensor:
    """Overwrite x with the result of `learnable_leaky_relu`."""
    return x.copy_(learnable_leaky_relu(x, alpha, channel_dim=channel_dim))


def straight_through_relu(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    """Return ReLU of x with the gradient of `learnable_leaky_relu`. See `leaky_ext.straight_through_relu`."""
    surrogate = learnable_leaky_relu(x, alpha, channel_dim=channel_dim)
    return straight_through(torch.where(x < 0, 0, x), surrogate)


def straight_through_relu_(x: Tensor, alpha: Tensor | float = 0.01, *, channel_dim: int = 1) -> Tensor:
    """Overwrite x with the result of `straight_through_relu`."""
    return x.copy_(straight_through_relu(x, alpha, channel_dim=channel_dim))


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """Return x_forward, with a gradient for x_backward only. See `leaky_ext.straight_through`.

    Compilers, exporters and tracers get a formula of functional ATen operations. Its value is x_forward to the bit. Its
    gradient is 0 where x_backward is not finite, because no differentiable formula passes the gradient there.
    """
    check_straight_through(x_forward, x_backward)
    if torch.compiler.is_compiling() or torch_private.is_tracing():
        z = x_backward.to(x_forward.dtype)
        z = torch.where(z.isfinite(), z, 0)
        return x_forward.detach() - (z.detach() - z)  # not + (z - z.detach()): adding +0.0 turns -0.0 into +0.0
    from .autograd import PassGradient, PassGradientAndTangent  # here, because autograd imports this module

    function = PassGradientAndTangent if torch_private.is_transformed() else PassGradient
    return function.apply(x_forward.detach(), x_backward)
