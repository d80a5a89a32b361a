"""Decomposes the operators for Inductor into expressions that fuse with their neighbours.

The expressions compute the same as the kernels. Their form is chosen for the code that Inductor generates, and so that
Inductor's partitioner can save y instead of x.

- The straight-through ReLU writes -0.0 where x is negative, and +0.0 where x is +0.0 or -0.0. So the values are those
  of ReLU, and the sign of y shows whether x is negative. The next layer usually saves y anyway.
- With save="output", backward computes x from y and from one byte per element: whether x is negative.

backward is traced with x, and computes y from x with the expressions of forward. The partitioner merges equal
expressions, and saves y if this costs less than saving x.
"""

from __future__ import annotations

import inspect
import sys
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._inductor import decomposition as inductor_decomposition

from .._build import VERSION
from ..enums import INPUT_OF_LEAKY_RELU, INPUT_OF_RELU, KINDS_OF_INPUT, LEAKY_RELU, RELU
from ..reference import opmath, slopes
from . import bounds

ops = torch.ops.leaky_ext


def forward(x: Tensor, alpha: Tensor | None, value: float, channel_dim: int, formula: int) -> Tensor:
    if formula == RELU:
        # Not a constant -0.0: it is equal to 0.0, so a compiler may merge both constants.
        magnitude = torch.relu(x).abs()
        return torch.where(x < 0, -magnitude, magnitude)
    wide = x.to(opmath(x.dtype))
    slope = slopes(x, value if alpha is None else alpha, channel_dim)
    return torch.where(x >= 0, wide, slope * wide).to(x.dtype)


def backward(
    grad: Tensor,
    saved: Tensor | None,
    mask: Tensor | None,
    alpha: Tensor | None,
    value: float,
    channel_dim: int,
    kind: int,
    stride: Any,
    output_mask: Any,
) -> Any:
    if kind not in KINDS_OF_INPUT:  # saved by an eager forward, under compiled autograd
        return NotImplemented
    need_x, need_alpha = output_mask[0], output_mask[1] and alpha is not None
    if not need_x and not need_alpha:
        return None, None
    assert saved is not None
    x, wide = saved, grad.to(opmath(grad.dtype))
    slope = slopes(x, value if alpha is None else alpha, channel_dim)
    positive = x >= 0
    if not need_alpha and kind == INPUT_OF_RELU:
        # False if y is -0.0 or NaN. Not torch.signbit, which Inductor's CPU code does not vectorize.
        positive = torch.reciprocal(forward(x, alpha, value, channel_dim, RELU)) >= 0
    if not need_alpha or kind == INPUT_OF_LEAKY_RELU:
        positive, negative = _kept_as_byte(positive, wide)
    # grad_x first: Inductor's CPU scheduler fuses a reduction into the loop before it, not into the loop after it.
    # grad is used once: Inductor's CPU code transposes a tensor for each use (MONAI's 2-D UNet: 5% of a step).
    factor = torch.where(positive, wide.new_ones(()), slope)
    grad_x = (wide * factor).to(grad.dtype) if need_x else None
    if not need_alpha:
        return grad_x, None
    assert alpha is not None and isinstance(slope, Tensor)
    if kind == INPUT_OF_LEAKY_RELU:
        # For negative elements alone. If slope * x underflowed, x is still negative: the clamp keeps the sign.
        y = forward(x, alpha, value, channel_dim, LEAKY_RELU)
        x = (y.to(wide.dtype) / slope).clamp_max(-torch.finfo(wide.dtype).tiny)
        products = torch.where(negative, wide * x, 0)
    else:
        products = torch.where(positive, 0, wide * x)
    return grad_x, products.sum_to_size(slope.shape).reshape(alpha.shape).to(alpha.dtype)


def _kept_as_byte(condition: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return `condition` and its opposite, computed from one byte per element that the partitioner can save.

    Inductor's CPU code writes and reads a bool mask element by element, but converts between uint8 and float in vectors
    (1M elements, forward + backward: 0.29 ms instead of 5.7 ms). The comparison is with 0, written as a sum of no
    elements of grad: so it belongs to the backward graph, and the partitioner cannot save its result, a bool.

    Use each of the two once. Inductor may write a condition that is used twice to memory, as bools, which its CPU code
    transposes element by element. With save="output", this doubled the time of backward of a residual network.

    The byte is computed without torch.where. Inductor's CPU code vectorizes the last elements of a loop only if at most
    12% of the operations in the loop are torch.where.
    """
    kept = condition.to(grad.dtype).to(torch.uint8).to(grad.dtype)
    zero = grad.unsqueeze(0)[:0].sum()
    return kept > zero, kept <= zero


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    ops.forward.default: forward,
    ops.backward.default: backward,
    **bounds.DECOMPOSITIONS,
}


def register() -> bool:
    """Add the decompositions to Inductor's tables. Return whether the table in use contains them.

    Inductor copies its table at the first compilation. Later registrations must also change this copy. Otherwise the
    operators are opaque in all later graphs of the process.
    """
    for table in (inductor_decomposition.decompositions, inductor_decomposition.select_decomp_table()):
        table.update(DECOMPOSITIONS)
    return DECOMPOSITIONS.keys() <= inductor_decomposition.select_decomp_table().keys()


def revision() -> int:
    """Return a number that changes with the version of leaky_ext and with this file.

    The key of AOTAutograd's cache on disk depends on Dynamo's graph, but not on decompositions. The graph contains this
    number, so the cache never returns code that another version of leaky_ext compiled.
    """
    try:
        source = inspect.getsource(sys.modules[__name__])
    except OSError:  # installed without sources
        source = ""
    return zlib.crc32(f"{VERSION}\n{source}".encode())


REVISION = revision()
register()
