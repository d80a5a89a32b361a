"""Clamps a slope to its bounds: the operator `clamp_slope` (csrc/bounds.cpp) and its rules for each mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.library import register_fake, register_vmap
from torch.overrides import has_torch_function

from .. import torch_private
from . import register_sharding

_clamp_slope = torch.ops.leaky_ext.clamp_slope.default


def clamp_slope(alpha: Tensor, low: float, high: float) -> Tensor:
    """Return `alpha` clamped. The gradient is 0 only if a descent step would move an outside slope further out.

    Exporters, tracers and backends that do not support the operators get a plain clamp.
    """
    if is_compiling():
        from .compiled import traced_for  # imported here because it imports Dynamo and Inductor

        return alpha.clamp(low, high) if traced_for() == "reference" else _clamp_slope(alpha, low, high)
    if torch_private.is_tracing() or has_torch_function((alpha,)):
        return alpha.clamp(low, high)
    register_sharding()
    return _clamp_slope(alpha, low, high)


@register_fake("leaky_ext::clamp_slope")
def _fake(alpha: Tensor, low: float, high: float) -> Tensor:
    return torch.empty_like(alpha)


@register_vmap("leaky_ext::clamp_slope")
def _vmap(info: Any, in_dims: tuple, alpha: Tensor, low: float, high: float) -> tuple[Tensor, int | None]:
    return _clamp_slope(alpha, low, high), in_dims[0]


def _decomposed(alpha: Tensor, low: float, high: float) -> Tensor:
    return alpha.clamp(low, high)


DECOMPOSITIONS = {_clamp_slope: _decomposed}
"""What Inductor compiles instead of the operator."""
