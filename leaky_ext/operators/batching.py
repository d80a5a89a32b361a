"""The rules for vmap: one call of an operator computes the whole batch.

The batch dimension becomes the first dimension of x. If alpha is batched, it becomes an alpha with slopes per channel
of the batch dimension, or an alpha that broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_vmap

from ..enums import INPUT, KINDS_OF_INPUT, one_of
from ..reference import check

ops = torch.ops.leaky_ext


def _forward(op: Any, in_place: bool) -> Any:
    def rule(
        info: Any, in_dims: tuple, x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int
    ) -> tuple[Tensor, int]:
        x_dim, alpha_dim = in_dims[:2]
        if in_place and x_dim is None:
            raise RuntimeError(
                "leaky_ext: vmap: an in-place function is called on a tensor that is not batched, but the slope is: "
                "use the function without _"
            )
        x = batch_first(x, x_dim, info.batch_size)
        example = alpha if alpha is None or alpha_dim is None else one_example(alpha.movedim(alpha_dim, 0))
        check(one_example(x), value if example is None else example, channel_dim)  # for errors with an example's shape
        alpha, channel_dim = batch_alpha(alpha, alpha_dim, x.ndim - 1, channel_dim)
        return op(x, alpha, value, channel_dim, formula), 0

    return rule


register_vmap("leaky_ext::forward", _forward(ops.forward, False))
register_vmap("leaky_ext::forward_", _forward(ops.forward_, True))


@register_vmap("leaky_ext::backward")
def backward(
    info: Any,
    in_dims: tuple,
    grad: Tensor,
    saved: Tensor | None,
    mask: Tensor | None,
    alpha: Tensor | None,
    value: float,
    channel_dim: int,
    kind: int,
    stride: Any,
    output_mask: Sequence[bool],
) -> tuple[tuple[Tensor | None, Tensor | None], tuple[int | None, int | None]]:
    if saved is None or kind not in KINDS_OF_INPUT:
        kinds = one_of(KINDS_OF_INPUT)
        raise NotImplementedError(f"leaky_ext: vmap of backward needs x itself: kind must be {kinds}, got {kind}")
    need_x, need_alpha = output_mask[0], output_mask[1] and alpha is not None
    alpha_dim = in_dims[3]
    grad = batch_first(grad, in_dims[0], info.batch_size)
    x = batch_first(saved, in_dims[1], info.batch_size)
    shape: Any = None
    if need_alpha:  # every example has a grad_alpha of its own, so it needs an alpha of its own
        alpha, alpha_dim = batch_first(alpha, alpha_dim, info.batch_size), 0
        shape = alpha.shape
    alpha, channel_dim = batch_alpha(alpha, alpha_dim, x.ndim - 1, channel_dim)
    grad_x, grad_alpha = ops.backward(grad, x, None, alpha, value, channel_dim, INPUT, None, [need_x, need_alpha])
    if need_alpha:
        grad_alpha = grad_alpha.reshape(shape)
    return (grad_x, grad_alpha), (0 if need_x else None, 0 if need_alpha else None)


def one_example(batch: Tensor) -> Tensor:
    """Returns the first example, or an empty one of its shape if there is none."""
    return batch[0] if batch.shape[0] else batch.new_empty(batch.shape[1:])


def batch_first(x: Any, dim: int | None, size: int) -> Any:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def batch_alpha(alpha: Tensor | None, dim: int | None, ndim: int, channel_dim: int) -> tuple[Tensor | None, int]:
    """Return the alpha and channel_dim that apply after a batch dimension was added in front of an x with `ndim`."""
    if alpha is None:
        return alpha, channel_dim
    if dim is None:
        if alpha.numel() == 1:
            return alpha, 0
        if alpha.ndim == 1:
            return alpha, channel_dim % ndim + 1
        return alpha.unsqueeze(0), 0
    alpha = alpha.movedim(dim, 0)
    size = alpha.shape[0]
    if alpha.shape[1:].numel() == 1:  # one slope per example: a channel along the batch
        return alpha.reshape(size), 0
    if alpha.ndim == 2 and ndim != 1:  # C slopes per example
        before = channel_dim % ndim
        alpha = alpha.reshape([size] + [1] * before + [alpha.shape[1]] + [1] * (ndim - before - 1))
    return alpha, 0
