"""What the operators give for tensors without data: shapes, strides and dtypes, for tracers and meta tensors.

They accept what the operators accept, and raise what they raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.library import register_fake

from . import _C  # noqa: F401  (loading it defines the operators)
from .reference import check

Alpha = Tensor | float


def _output(x: Tensor, alpha: Alpha = 0.0, channel_dim: int = 1, *, positive_zero: bool = False) -> Tensor:
    check(x, alpha, channel_dim)
    return torch.empty_like(x)


def _mask(x: Tensor) -> Tensor:
    return x.new_empty([(x.numel() + 7) // 8], dtype=torch.uint8)


def _output_and_mask(x: Tensor, alpha: Alpha = 0.0, channel_dim: int = 1) -> tuple[Tensor, Tensor]:
    return _output(x, alpha, channel_dim), _mask(x)


def _in_place(x: Tensor, alpha: Alpha = 0.0, channel_dim: int = 1, *, positive_zero: bool = False) -> None:
    check(x, alpha, channel_dim)
    if any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True)):
        raise RuntimeError(f"leaky_ext: elements of x of shape {list(x.shape)}, strides {x.stride()}, share memory")


def _in_place_mask(x: Tensor, alpha: Alpha = 0.0, channel_dim: int = 1) -> Tensor:
    _in_place(x, alpha, channel_dim)
    return _mask(x)


def _check_like(x: Tensor, grad: Tensor, name: str) -> None:
    if grad.shape != x.shape:
        raise ValueError(f"leaky_ext: grad has shape {list(grad.shape)}, but {name} has shape {list(x.shape)}")
    if grad.dtype != x.dtype:
        raise TypeError(f"leaky_ext: grad is {grad.dtype}, but {name} is {x.dtype}")
    if grad.device != x.device:
        raise RuntimeError(f"leaky_ext: grad is on {grad.device}, but x is on {x.device}")


def _check_mask(x: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.uint8:
        raise TypeError(f"leaky_ext: mask must be uint8, got {mask.dtype}")
    if mask.ndim != 1 or not mask.is_contiguous() or mask.shape[0] != (x.numel() + 7) // 8:
        raise ValueError(
            f"leaky_ext: mask of {list(mask.shape)} does not fit {x.numel()} elements: it must have "
            f"{(x.numel() + 7) // 8} contiguous bytes"
        )
    if mask.device != x.device:
        raise RuntimeError(f"leaky_ext: mask is on {mask.device}, but x is on {x.device}")


def _gradients(
    x: Tensor, alpha: Tensor, channel_dim: int, output_mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    check(x, alpha, channel_dim)
    need_x, need_alpha = output_mask
    grad_alpha = torch.empty_like(alpha, memory_format=torch.contiguous_format) if need_alpha else None
    return torch.empty_like(x) if need_x else None, grad_alpha


def _backward(
    grad: Tensor, x: Tensor, alpha: Tensor, channel_dim: int, output_mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    _check_like(x, grad, "x")
    return _gradients(x, alpha, channel_dim, output_mask)


def _backward_float(grad: Tensor, x: Tensor, alpha: float) -> Tensor:
    _check_like(x, grad, "x")
    return _output(x)


def _backward_mask(grad: Tensor, mask: Tensor, alpha: Alpha, channel_dim: int, stride: Sequence[int]) -> Tensor:
    _check_mask(grad, mask)
    if len(stride) != grad.ndim:
        raise ValueError(f"leaky_ext: stride {list(stride)} does not fit grad of shape {list(grad.shape)}")
    return _output(grad.new_empty_strided(grad.shape, stride), alpha, channel_dim)


def _backward_mask_float(grad: Tensor, mask: Tensor, alpha: float, stride: Sequence[int]) -> Tensor:
    return _backward_mask(grad, mask, alpha, 1, stride)


def _backward_output(
    grad: Tensor, y: Tensor, mask: Tensor | None, alpha: Tensor, channel_dim: int, output_mask: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    _check_like(y, grad, "y")
    if mask is not None:
        _check_mask(y, mask)
    return _gradients(y, alpha, channel_dim, output_mask)


_FAKES: dict[Callable, tuple[str, ...]] = {
    _output: ("learnable_leaky_relu", "learnable_leaky_relu.Scalar", "straight_through_relu"),
    _output_and_mask: (
        "learnable_leaky_relu_mask",
        "learnable_leaky_relu_mask.Scalar",
        "straight_through_relu_mask",
    ),
    _in_place: ("learnable_leaky_relu_", "learnable_leaky_relu_.Scalar", "straight_through_relu_"),
    _in_place_mask: (
        "learnable_leaky_relu_mask_",
        "learnable_leaky_relu_mask_.Scalar",
        "straight_through_relu_mask_",
    ),
    _backward: ("backward",),
    _backward_float: ("backward.Scalar",),
    _backward_mask: ("backward_mask",),
    _backward_mask_float: ("backward_mask.Scalar",),
    _backward_output: ("backward_output",),
}
for fake, names in _FAKES.items():
    for name in names:
        register_fake(f"leaky_ext::{name}", fake)
