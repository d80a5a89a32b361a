"""Fake implementations of the operators: shapes, strides and dtypes for tracers and meta tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import register_fake

from ..enums import FORMULAS, KINDS, MASK, OUTPUT_AND_MASK, one_of
from ..reference import check


@register_fake("leaky_ext::forward")
def forward(x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int) -> Tensor:
    if formula not in FORMULAS:
        raise ValueError(f"leaky_ext: formula must be {one_of(FORMULAS)}, got {formula}")
    check(x, value if alpha is None else alpha, channel_dim)
    return torch.empty_like(x)


@register_fake("leaky_ext::forward_mask")
def forward_mask(
    x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int
) -> tuple[Tensor, Tensor]:
    return forward(x, alpha, value, channel_dim, formula), x.new_empty([(x.numel() + 7) // 8], dtype=torch.uint8)


@register_fake("leaky_ext::forward_")
def forward_(x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int) -> Tensor:
    check(x, value if alpha is None else alpha, channel_dim)
    if any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True)):
        raise RuntimeError(f"leaky_ext: elements of x of shape {list(x.shape)}, strides {x.stride()}, share memory")
    return x


@register_fake("leaky_ext::forward_mask_")
def forward_mask_(x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int) -> Tensor:
    return forward_mask(forward_(x, alpha, value, channel_dim, formula), alpha, value, channel_dim, formula)[1]


@register_fake("leaky_ext::backward")
def backward(
    grad: Tensor,
    saved: Tensor | None,
    mask: Tensor | None,
    alpha: Tensor | None,
    value: float,
    channel_dim: int,
    kind: int,
    stride: Sequence[int] | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    _check_saved(grad, saved, mask, kind, stride)
    like = saved
    if like is None:
        like = grad.new_empty(grad.shape) if stride is None else grad.new_empty_strided(grad.shape, stride)
    check(like, value if alpha is None else alpha, channel_dim)
    need_x, need_alpha = output_mask
    grad_alpha = None
    if need_alpha and alpha is not None:
        if saved is None:
            raise ValueError("leaky_ext: the gradient of alpha cannot be computed from the mask")
        grad_alpha = torch.empty_like(alpha, memory_format=torch.contiguous_format)
    return torch.empty_like(like) if need_x else None, grad_alpha


def _check_saved(
    grad: Tensor, saved: Tensor | None, mask: Tensor | None, kind: int, stride: Sequence[int] | None
) -> None:
    """Raises the errors of `check_saved` in csrc/checks.cpp."""
    if kind not in KINDS:
        raise ValueError(f"leaky_ext: kind must be {KINDS[0]} to {KINDS[-1]}, got {kind}")
    has_saved, has_mask = kind != MASK, kind in (OUTPUT_AND_MASK, MASK)
    if (saved is not None, mask is not None) != (has_saved, has_mask):
        tensor, bits = ("a" if has else "no" for has in (has_saved, has_mask))
        raise ValueError(f"leaky_ext: kind {kind} takes {tensor} saved tensor and {bits} mask")
    if saved is not None:
        if grad.shape != saved.shape:
            raise ValueError(
                f"leaky_ext: grad has shape {list(grad.shape)}, but what was saved has shape {list(saved.shape)}"
            )
        if grad.dtype != saved.dtype:
            raise TypeError(f"leaky_ext: grad is {grad.dtype}, but what was saved is {saved.dtype}")
        if grad.device != saved.device:
            raise RuntimeError(f"leaky_ext: grad is on {grad.device}, but x is on {saved.device}")
    if mask is not None:
        size = (grad.numel() + 7) // 8
        if mask.dtype != torch.uint8:
            raise TypeError(f"leaky_ext: mask must be uint8, got {mask.dtype}")
        if mask.ndim != 1 or not mask.is_contiguous() or mask.shape[0] != size:
            raise ValueError(
                f"leaky_ext: mask of {list(mask.shape)} does not fit {grad.numel()} elements: it must have {size} "
                "contiguous bytes"
            )
        if mask.device != grad.device:
            raise RuntimeError(f"leaky_ext: mask is on {mask.device}, but x is on {grad.device}")
    if stride is not None and len(stride) != grad.ndim:
        raise ValueError(f"leaky_ext: stride {list(stride)} does not fit grad of shape {list(grad.shape)}")
