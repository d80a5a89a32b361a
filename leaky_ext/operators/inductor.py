"""The operators as Inductor is to compile them: expressions that fuse with their neighbours.

They compute what the kernels compute. The spelling was chosen for the code that Inductor generates, and for what its
partitioner can keep for backward: y and its sign, in place of x.

- The straight-through ReLU writes -0.0 where x is negative and +0.0 where x is zero of either sign. Its value is that
  of ReLU, and the sign of y tells whether x was negative. The next layer keeps y anyway.
- With save="output", backward rebuilds x from y, and from one byte per element that holds whether x was negative.

backward is traced with x, and computes y again from it, by the expressions of the forward. The partitioner merges equal
expressions, and then keeps y if that costs less than to keep x.
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
        # No constant -0.0: it compares equal to 0.0, so a compiler may merge it with a 0.0 of the same graph.
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
    assert saved is not None
    x, wide = saved, grad.to(opmath(grad.dtype))
    slope = slopes(x, value if alpha is None else alpha, channel_dim)
    need_x, need_alpha = output_mask[0], output_mask[1] and alpha is not None
    if not need_alpha:
        if not need_x:
            return None, None
        if kind == INPUT_OF_RELU:
            # The sign of y, -0.0 included, and NaN. Inductor's CPU code runs torch.signbit element by element.
            y = forward(x, alpha, value, channel_dim, RELU)
            negative = _kept_as_byte(~(torch.reciprocal(y) >= 0), wide)
        else:
            negative = _kept_as_byte(~(x >= 0), wide)
        return torch.where(negative, slope * wide, wide).to(grad.dtype), None
    assert alpha is not None and isinstance(slope, Tensor)
    if kind == INPUT_OF_LEAKY_RELU:
        y = forward(x, alpha, value, channel_dim, LEAKY_RELU)
        negative = _kept_as_byte(~(x >= 0), wide)
        # Where slope * x underflowed, x is still negative.
        x = torch.where(negative, (y.to(wide.dtype) / slope).clamp_max(-torch.finfo(wide.dtype).tiny), y)
        positive = ~negative
    else:
        positive = x >= 0
    # grad_x first: Inductor's CPU scheduler fuses a reduction into the loop of what stands before it, not after.
    grad_x = torch.where(positive, wide, slope * wide).to(grad.dtype) if need_x else None
    products = torch.where(positive, 0, wide * x)
    return grad_x, products.sum_to_size(slope.shape).reshape(alpha.shape).to(alpha.dtype)


def _kept_as_byte(condition: Tensor, grad: Tensor) -> Tensor:
    """Returns `condition`, by way of one byte per element that backward may keep.

    Inductor's CPU code writes and reads a bool mask element by element; a uint8 made of a float it converts in vectors
    (1M elements, forward + backward: 0.29 ms for 5.7). The comparison depends on grad, if not in value, because the
    partitioner would otherwise keep its bool, which is nearer to the gradient.
    """
    kept = torch.where(condition, 1.0, 0.0).to(torch.uint8)
    return kept.to(grad.dtype) > torch.where(grad == grad, 0.0, 0.5)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    ops.forward.default: forward,
    ops.backward.default: backward,
    **bounds.DECOMPOSITIONS,
}


def register() -> bool:
    """Adds the decompositions to the table that Inductor uses now. Returns whether the table holds them afterwards.

    Inductor copies its table when it first compiles anything. A registration that comes later must reach that copy, or
    the operators stay opaque in every later graph of the process.
    """
    for table in (inductor_decomposition.decompositions, inductor_decomposition.select_decomp_table()):
        table.update(DECOMPOSITIONS)
    return DECOMPOSITIONS.keys() <= inductor_decomposition.select_decomp_table().keys()


def revision() -> int:
    """Returns a number that changes with the version of leaky_ext and with this file.

    The key of AOTAutograd's cache on disk covers the graph that Dynamo made, but no decompositions. The graph holds
    this number, so code that an older leaky_ext compiled is not served again.
    """
    try:
        source = inspect.getsource(sys.modules[__name__])
    except OSError:  # installed without sources
        source = ""
    return zlib.crc32(f"{VERSION}\n{source}".encode())


REVISION = revision()
register()
